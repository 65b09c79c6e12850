"""What a classifier sees in generated images, beside the same of real ones."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genimg import references
from genimg.contracts import Dataset, Sync
from genimg.errors import InputError
from genimg.inference import Inference, real_images, to_floats
from genimg.metrics.distributions import (
    FeatureStatistics,
    class_shares,
    confident_share,
    frechet_distance,
    inception_score,
)
from genimg.metrics.kernel import kernel_distance
from genimg.metrics.neighbours import manifolds
from genimg.training.sync import Alone, share

if TYPE_CHECKING:
    from genimg.judges import Judge
    from genimg.recipe import Data, Recipe

AT_ONCE = 512  # images
VALUES_AT_ONCE = 2**26  # of them as numbers: fewer, where they are larger than 200 pixels
MOST_STACKED = 12  # classes of a channel: three channels have their cube
MANIFOLDS = ("judge_precision", "judge_recall", "judge_density", "judge_coverage")

Best = Literal[
    "swd", "judge_fid", "judge_kid", "judge_inception_score", "judge_precision", "judge_recall",
    "judge_density", "judge_coverage", "judge_modes_kl",
]  # fmt: skip
"""Metrics by which a training may choose its best checkpoint."""

BETTER: Mapping[str, Literal["min", "max"]] = {
    "swd": "min",
    "judge_fid": "min",
    "judge_kid": "min",
    "judge_inception_score": "max",
    "judge_precision": "max",
    "judge_recall": "max",
    "judge_density": "max",
    "judge_coverage": "max",
    "judge_ms_ssim": "min",
    "judge_authenticity": "max",
    "judge_confident": "max",
    "judge_modes": "max",
    "judge_modes_kl": "min",
    "judge_smallest_class": "max",
    "judge_largest_class": "min",
    "judge_gan_test": "max",
    "judge_gan_train": "max",
    "judge_intra_fid": "min",
}
"""Which way a metric of generators is better."""


class Seen(NamedTuple):
    """What a judge sees in N images, on its device.

    features: float32 [N, F]; of stacked images those of each channel, one after the other
    probabilities: float32 [N, classes]; of stacked images [N, 3, classes] (see `joint`)
    """

    features: Tensor
    probabilities: Tensor


def seen(judge: Judge, images: Tensor) -> Seen:
    """What a classifier sees in images uint8 [N, C, H, W] of its size; there may be none.

    One that takes gray images reads each channel of stacked ones.
    """
    if images.shape[1] > judge.abilities["classify"].channels:
        each = seen(judge, images.flatten(0, 1)[:, None])
        features, probabilities = (column.unflatten(0, (-1, images.shape[1])) for column in each)
        return Seen(features.flatten(1), probabilities)
    network = judge.networks["classifier"]
    classes = len(judge.abilities["classify"].classes)

    def look(rows: Tensor) -> Tensor:
        features = network.features(rows)  # type: ignore[operator]
        logits = network.to_logits(features)  # type: ignore[operator]
        return torch.cat([features.float(), logits.float()], dim=1)

    parts: list[Tensor] = []
    most = max(1, min(AT_ONCE, VALUES_AT_ONCE // images.shape[1:].numel()))
    for start in range(0, max(1, len(images)), most):
        few = images[start : start + most]
        # where there are none, one that counts for nothing tells how many columns there are
        rows = to_floats(
            few if len(images) else images.new_zeros(1, *images.shape[1:]), judge.device
        )
        parts.append(judge.inference.run(look, rows)[: len(few)])
    found = torch.cat(parts)
    return Seen(found[:, :-classes].contiguous(), found[:, -classes:].softmax(dim=1))


def seen_in(judge: Judge, data: Dataset, indices: np.ndarray, sync: Sync | None = None) -> Seen:
    """What a judge sees in the images of a dataset at int64 `indices`: looked at once, then kept.

    sync: the workers that look together; all get the same
    """
    sync = sync or Alone()
    part = share(sync, len(indices))
    mine = indices[part.start : part.stop]

    def compute() -> dict[str, Tensor]:
        parts = [
            seen(judge, real_images(data, mine[at : at + AT_ONCE], judge.device))
            for at in range(0, max(1, len(mine)), AT_ONCE)
        ]
        whole = (sync.gather(torch.cat(column)) for column in zip(*parts, strict=True))
        return dict(zip(Seen._fields, whole, strict=True))

    about = identity(judge) | {"images": chosen_from(data, indices)}
    return Seen(**references.kept(about, compute, judge.device, sync))


def joint(probabilities: Tensor) -> Tensor:
    """float [N, classes] of float [N, classes], or [N, classes^3] of [N, 3, classes].

    A class of stacked images is one of each channel, the first one's number counting most.
    """
    if probabilities.dim() == 2:
        return probabilities
    return torch.einsum("na,nb,nc->nabc", *probabilities.unbind(1)).flatten(1)


def labels_of(seen: Seen) -> Tensor:
    """int64 [N], on the CPU: the class that each image is taken for, a column of `joint`."""
    labels = seen.probabilities.argmax(dim=-1).cpu()
    if labels.dim() == 1:
        return labels
    worth = seen.probabilities.shape[-1] ** torch.arange(2, -1, -1)
    return (labels * worth).sum(dim=1)


def classes_of(judge: Judge, stacked: bool = False) -> list[str]:
    """Names of what `joint` has columns for."""
    names = judge.abilities["classify"].classes
    return [" ".join(each) for each in product(names, repeat=3 if stacked else 1)]


def identity(judge: Judge) -> dict[str, Any]:
    """What decides what a judge sees in given images."""
    return {
        "digest": judge.digest,
        "precision": judge.precision,
        "device": judge.device.type,
    }


def chosen_from(data: Dataset, indices: np.ndarray) -> dict[str, Any]:
    """Which images those of a dataset at int64 `indices` are, as they are fetched.

    The fingerprint tells data, split, what is held out, and how images are fitted.
    """
    return {
        "data": data.fingerprint,
        "indices": hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest(),
        "size": data.size,
        "channels": data.channels,
    }


def refuse_judge(data: Data, judge: Recipe, named: str) -> None:
    """InputError where models of a recipe cannot look at images that are like some data."""
    names = judge.need("classify").classes
    its, channels = judge.data, 1 if data.stack else data.channels
    if (data.size, channels) != (its.size, its.channels):
        makes = f"{data.channels} x {data.size} x {data.size}"
        raise InputError(
            f"{named} takes {its.channels} x {its.size} x {its.size} images, the model makes "
            f"{makes}{', of gray ones' * data.stack}; train a classifier of that size"
        )
    if data.stack and len(names) > MOST_STACKED:
        raise InputError(
            f"{named} tells {len(names)} classes; of stacked images it may tell {MOST_STACKED}"
        )


def refuse_best(best: Best | None, judge: str | None, data: Data) -> None:
    """ValueError where a training does not measure what it is to choose by."""
    if best not in (None, "swd") and not judge:
        raise ValueError(f"evaluation.best={best}: a judge tells it; give evaluation.judge")
    if best == "judge_modes_kl" and not data.stack:
        raise ValueError(f"evaluation.best={best}: of stacked images only; give data.stack=true")


def judged_in_training(
    inference: Inference, fake: Tensor, data: Dataset, chosen: np.ndarray, best: Best | None
) -> dict[str, float]:
    """What the helper `judge` sees, as `judged` tells it, measured by all workers together.

    fake:   this worker's share of generated images, uint8 [N, C, H, W]
    chosen: int64, of the images that they are compared with, alike on all workers
    best:   the metric that chooses the best checkpoint; of those that take time only this
    """
    judge = inference.helpers["judge"]
    real = seen_in(judge, data, chosen, inference.sync)
    made = Seen(*map(inference.gather, seen(judge, fake)))
    return judged(made, real, best or "judge_fid", inference.sync)


def judged(
    fake: Seen, real: Seen, best: str | None = None, sync: Sync | None = None
) -> dict[str, float]:
    """Metrics by a judge's features and classes, not Inception's: comparable where it is the same.

    judge_fid: Frechet distance of the features; judge_kid: 1000-image kernel distances, mean and
    (judge_kid_std, of more images than that) standard deviation; judge_inception_score: of the
    classes; judge_precision, judge_recall, judge_density, judge_coverage: see
    genimg.metrics.neighbours.

    judge_confident: part of the generated images of whose class the judge is sure, and
    judge_confident_real of the real ones; judge_smallest_class, judge_largest_class: parts of the
    generated images that are taken for one class.

    Of stacked images, judge_modes: how many of all classes there are; judge_modes_kl: divergence of
    their shares from those of the real images, nats (see `modes`).

    best: measure only what takes no time, and this; None: everything
    sync: the workers that measure together; all have the same, and get the same
    """
    statistics = [FeatureStatistics.of(each.features.cpu()) for each in (fake, real)]
    probabilities = joint(fake.probabilities.cpu())
    shares = class_shares(probabilities)
    score, _ = inception_score(probabilities)
    found = {"judge_fid": frechet_distance(*statistics)}
    if best in (None, "judge_kid"):
        found["judge_kid"], spread = kernel_distance(real.features, fake.features, sync=sync)
        if not math.isnan(spread):
            found["judge_kid_std"] = spread
    found["judge_inception_score"] = score
    if best is None or best in MANIFOLDS:
        several = manifolds(real.features, fake.features, sync)
        found |= {f"judge_{name}": value for name, value in several._asdict().items()}
    if real.probabilities.dim() > 2:
        found |= modes(shares, real.probabilities.cpu())
    return found | {
        "judge_confident": confident_share(probabilities),
        "judge_confident_real": confident_share(joint(real.probabilities.cpu())),
        "judge_smallest_class": float(shares.min()),
        "judge_largest_class": float(shares.max()),
    }


def modes(shares: Tensor, real: Tensor) -> dict[str, float]:
    """How many classes generated stacked images have, and KL(their shares || those of the data).

    shares: float64 [classes^3], of generated images; real: float [N, 3, classes], of real ones,
    whose three channels are drawn independently: so their shares are products of the shares of
    a channel's classes, which are counted over all channels. A class that no real channel has
    counts as one image. Metz et al. 2017, section 3.3.1.
    """
    channel = class_shares(real.flatten(0, 1)).clamp(min=1 / real[..., 0].numel())
    data = joint(channel.expand(1, 3, -1))[0]
    return {
        "judge_modes": float((shares > 0).sum()),
        "judge_modes_kl": float((torch.xlogy(shares, shares) - torch.xlogy(shares, data)).sum()),
    }
