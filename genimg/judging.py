"""What a classifier sees in generated images, beside the same of real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from genimg.errors import InputError
from genimg.inference import to_floats
from genimg.metrics.distributions import (
    FeatureStatistics,
    class_shares,
    confident_share,
    frechet_distance,
    inception_score,
)

if TYPE_CHECKING:
    from genimg.engine import Engine
    from genimg.recipe import Data, Recipe

AT_ONCE = 512  # images


class Seen(NamedTuple):
    """What a judge sees in N images, on its device."""

    features: Tensor  # float32 [N, F]
    probabilities: Tensor  # float32 [N, classes]


def seen(judge: Engine, images: Tensor) -> Seen:
    """What a classifier sees in images uint8 [N, C, H, W] of its size; there may be none."""
    features, classify = judge.networks["classifier"].features, judge.abilities["classify"].compute
    parts: list[Seen] = []
    for start in range(0, max(1, len(images)), AT_ONCE):
        few = images[start : start + AT_ONCE]
        # where there are none, one that counts for nothing tells how many columns there are
        rows = to_floats(
            few if len(images) else images.new_zeros(1, *images.shape[1:]), judge.device
        )
        found = judge.inference.run(features, rows)  # type: ignore[arg-type]
        scores = judge.inference.rows(classify, {"image": rows})["scores"]
        parts.append(Seen(found[: len(few)], scores[: len(few)]))
    return Seen(*(torch.cat(column) for column in zip(*parts, strict=True)))


def refuse_judge(data: Data, judge: Recipe, named: str) -> None:
    """InputError where models of a recipe cannot look at images that are like some data."""
    judge.need("classify")
    its = judge.data
    if (data.size, data.channels) != (its.size, its.channels):
        raise InputError(
            f"{named} takes {its.channels} x {its.size} x {its.size} images, the model makes "
            f"{data.channels} x {data.size} x {data.size}; train a classifier of that size"
        )


def judged(fake: Seen, real: Seen) -> dict[str, float]:
    """judge_fid: Frechet distance of the features; judge_inception_score: of the classes;

    judge_confident: part of the generated images of whose class the judge is sure, and
    judge_confident_real of the real ones; judge_smallest_class, judge_largest_class: parts of the
    generated images that are taken for one class. All by the judge's features and classes, not by
    Inception's: comparable where the judge is the same.
    """
    statistics = [FeatureStatistics.of(each.features.cpu()) for each in (fake, real)]
    probabilities = fake.probabilities.cpu()
    shares = class_shares(probabilities)
    score, _ = inception_score(probabilities)
    return {
        "judge_fid": frechet_distance(*statistics),
        "judge_inception_score": score,
        "judge_confident": confident_share(probabilities),
        "judge_confident_real": confident_share(real.probabilities.cpu()),
        "judge_smallest_class": float(shares.min()),
        "judge_largest_class": float(shares.max()),
    }
