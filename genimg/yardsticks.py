"""A judge's scores of generated images, beside what the best and the worst of images would get."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from genimg import references
from genimg.by_class import ByClass, accuracies, accuracy, distances, intra_fid, truth_in
from genimg.contracts import Dataset
from genimg.errors import InputError
from genimg.inference import real_images
from genimg.judging import (
    AT_ONCE,
    Seen,
    chosen_from,
    identity,
    judged,
    labels_of,
    seen,
    seen_in,
)
from genimg.metrics.multiscale import ms_ssim, pairs_of, scales_of
from genimg.metrics.neighbours import K_DENSITY, Authenticity, authenticity, neighbours
from genimg.rng import fold, integers

if TYPE_CHECKING:
    from genimg.engine import Engine
    from genimg.judges import Judge

PAIRS = 2048  # of images whose MS-SSIM is taken
TRAINING_PER_SAMPLE = 6  # training images, at most, among which the nearest are looked for
PAIRS_AT_ONCE = 128  # of which the pixels are in memory
NOISE_AT_ONCE = 2**22  # values
FEWEST = 10  # training images that are judged as if generated

_NOISE = int.from_bytes(b"noise")
_ORDER = int.from_bytes(b"order")

Pictures = Callable[[Tensor], Tensor]  # places int64 [P] -> uint8 [P, C, H, W]


@dataclass(frozen=True)
class Verdict:
    """What a judge says of N generated images.

    likeness: to training images, None where these are not known
    classes: of a model that draws by class, by what is told of each
    """

    metrics: dict[str, float]
    seen: Seen
    likeness: Authenticity | None
    classes: dict[str, ByClass] = field(default_factory=dict)


@dataclass(frozen=True)
class Yardstick:
    """A judge, the real images that it compares with, and those trained on, if they are known.

    data, training: of which seeded, class-balanced choices are looked at: of as many images as
        are generated, and of up to six times as many trained on
    samples: how many images are generated
    learnt_from: how many a classifier learns from, for GAN-train; 0: none does

    Raises InputError for fewer than six real images.
    """

    judge: Judge
    data: Dataset
    training: Dataset | None
    samples: int
    learnt_from: int = 0

    def __post_init__(self) -> None:
        if len(self.data) <= K_DENSITY:
            raise InputError(
                f"real images to judge by: {len(self.data)}, too few for {K_DENSITY} neighbours"
                f" each; give {K_DENSITY + 1} or more"
            )

    @cached_property
    def real(self) -> Seen:
        return seen_in(self.judge, self.data, self.chosen)

    @cached_property
    def chosen(self) -> np.ndarray:
        return self.data.choose(self.samples)

    @cached_property
    def trained(self) -> Seen | None:
        if self.training is None or len(self.training) < 2:  # a single one has no nearest other
            return None
        return seen_in(self.judge, self.training, self.trained_on)

    @cached_property
    def trained_on(self) -> np.ndarray:
        """int64 indices of training images; none where they are not known."""
        if self.training is None:
            return np.empty(0, np.int64)
        return self.training.choose(TRAINING_PER_SAMPLE * self.samples)

    @cached_property
    def truth(self) -> Tensor | None:
        """int64 [N]: the classes of the real images, as the judge numbers them; None: unknown."""
        return truth_in(self.judge, self.data, self.chosen)

    @property
    def names(self) -> tuple[str, ...]:
        return self.judge.abilities["classify"].classes

    def verdict(
        self, images: Tensor, labels: Tensor | None = None, student: Engine | None = None
    ) -> Verdict:
        """Of generated images, uint8 [N, C, H, W] on the CPU.

        labels: int64 [N], what each was asked to be, as the judge numbers its classes
        student: a classifier that has learnt from images of the same model (see `student_of`)
        """
        made = seen(self.judge, images)
        verdict = self._verdict(made, images.__getitem__)
        if labels is None:
            return verdict
        classes = {"gan_test": accuracies(labels_of(made), labels, self.names)}
        metrics = {"judge_gan_test": accuracy(labels_of(made), labels)}
        if student and self.truth is not None:
            learnt = labels_of(seen_in(student, self.data, self.chosen))
            classes["gan_train"] = accuracies(learnt, self.truth, self.names)
            metrics["judge_gan_train"] = accuracy(learnt, self.truth)
        if self.truth is not None:
            classes["fid"] = distances(made, labels, self.real, self.truth, self.names)
            metrics |= intra_fid(classes["fid"], classes["gan_test"])
        return replace(verdict, metrics=verdict.metrics | metrics, classes=classes)

    def classes(self) -> dict[str, ByClass]:
        """By class, what stands beside verdicts: of the real images the judge's accuracy, and the
        distances of as many training images; nothing where classes are not known."""
        if self.truth is None:
            return {}
        found = {"real_accuracy": accuracies(labels_of(self.real), self.truth, self.names)}
        if self.training is not None:
            chosen = self.training.choose(self.samples)
            labels = truth_in(self.judge, self.training, chosen)
            if labels is not None:
                trained = seen_in(self.judge, self.training, chosen)
                found["real_fid"] = distances(trained, labels, self.real, self.truth, self.names)
        return found

    def limits(self) -> dict[str, dict[str, float]]:
        """Scores of sets that a reader can imagine, by metric: kept, as they are of no model.

        real: as many training images, which no generator can be expected to surpass; their
            authenticity is that of the real images compared with. Only with ten training images.
            Where classes are known, beside GAN-test and GAN-train the judge's accuracy on the
            images compared with: it has learnt from real ones
        noise: each pixel drawn at random; repeated: one real image over and over. Beside GAN-test
            and GAN-train chance: neither has to do with a class
        """
        about = identity(self.judge) | {
            "real": chosen_from(self.data, self.chosen),
            "training": None
            if self.training is None
            else chosen_from(self.training, self.trained_on),
            "samples": self.samples,
        }
        kept = references.kept(about, self._limits, torch.device("cpu"))
        found: dict[str, dict[str, float]] = {"real": {}, "noise": {}, "repeated": {}}
        for name, value in kept.items():
            who, _, metric = name.partition(" ")
            found[who][metric] = float(value)
        if self.truth is not None:
            right, chance = accuracy(labels_of(self.real), self.truth), 1 / len(self.names)
            for who, share in (("real", right), ("noise", chance), ("repeated", chance)):
                found[who] |= {"judge_gan_test": share, "judge_gan_train": share}
            classes = self.classes()
            found["real"] |= intra_fid(classes.get("real_fid", {}), classes["real_accuracy"])
        return {who: each for who, each in found.items() if each}

    def nearest(self, verdict: Verdict, count: int, beside: int) -> tuple[Tensor, Tensor] | None:
        """(int64 [count] samples that come nearest to training images, uint8 [count, beside,
        C, H, W]: to each the training images that are nearest to it); None: these are not known."""
        if verdict.likeness is None or self.trained is None or self.training is None:
            return None
        places = verdict.likeness.ratios.argsort()[:count]
        beside = min(beside, len(self.trained_on))
        points = self.trained.features
        _, found = neighbours(verdict.seen.features[places], points, beside)
        wanted = self.trained_on[found.flatten().cpu().numpy()]
        return places, real_images(self.training, wanted).unflatten(0, (-1, beside))

    def _limits(self) -> dict[str, Tensor]:
        """{"WHO METRIC": float64}"""
        shape = (self.data.channels, self.data.size, self.data.size)

        def noise(places: Tensor) -> Tensor:
            few = places.split(max(1, NOISE_AT_ONCE // math.prod(shape)))
            parts = [integers(fold(_NOISE, each), 256, shape).to(torch.uint8) for each in few]
            return torch.cat(parts)

        def one(places: Tensor) -> Tensor:
            return real_images(self.data, self.chosen[:1]).expand(len(places), *shape)

        parts = torch.arange(self.samples).split(AT_ONCE)
        of_noise = [seen(self.judge, noise(few)) for few in parts]
        again = [each[:1].expand(self.samples, *each.shape[1:]) for each in self.real]
        found = {
            "noise": self._verdict(Seen(*map(torch.cat, zip(*of_noise, strict=True))), noise),
            "repeated": self._verdict(Seen(*again), one),
        }
        metrics = {who: verdict.metrics for who, verdict in found.items()}
        if self.training is not None and self.trained and len(self.training) >= FEWEST:
            metrics["real"] = self._of_training(self.training, self.trained)
        return {
            f"{who} {name}": torch.tensor(value, dtype=torch.float64)
            for who, each in metrics.items()
            for name, value in each.items()
        }

    def _of_training(self, training: Dataset, trained: Seen) -> dict[str, float]:
        chosen = training.choose(self.samples)
        # folders are sorted by class, and the inception score is of parts that follow one another
        order = fold(_ORDER, torch.arange(len(chosen))).argsort()
        shuffled = (each[order.to(each.device)] for each in seen_in(self.judge, training, chosen))

        def pictures(places: Tensor) -> Tensor:
            return real_images(training, chosen[order[places].numpy()])

        metrics = self._verdict(Seen(*shuffled), pictures).metrics
        unseen = authenticity(self.real.features, trained.features)
        return metrics | {"judge_authenticity": unseen.share}

    def _verdict(self, made: Seen, pictures: Pictures) -> Verdict:
        metrics = judged(made, self.real)
        if scales := scales_of(self.data.size):
            pairs = pairs_of(labels_of(made), PAIRS)
            if len(pairs):
                values = [
                    ms_ssim(pictures(one), pictures(other), scales=scales)
                    for one, other in (few.unbind(1) for few in pairs.split(PAIRS_AT_ONCE))
                ]
                metrics["judge_ms_ssim"] = float(torch.cat(values).mean())
        likeness = None
        if self.trained is not None:
            likeness = authenticity(made.features, self.trained.features)
            metrics["judge_authenticity"] = likeness.share
        return Verdict(metrics, made, likeness)

    def protocol(self) -> dict[str, str | int]:
        """What is done: numbers of images, the seed, and who looks at them, in which precision."""
        told: dict[str, str | int] = {
            "digest": self.judge.digest,
            "precision": self.judge.precision,
            "images": len(self.chosen),
            "samples": self.samples,
            "training_images": len(self.trained_on),
            "training_images_in_all": 0 if self.training is None else len(self.training),
            "ms_ssim_scales": scales_of(self.data.size),
            "seed": 0,
        }
        return told | ({"gan_train": self.learnt_from} if self.learnt_from else {})
