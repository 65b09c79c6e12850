"""How close a set of generated images is to a set of real ones, by a classifier's outputs.

The classifier is the caller's affair; a score is only comparable with scores of the same one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genimg.errors import InputError

VALUES_AT_ONCE = 2**14  # of each item that is compared with others
SPLITS, LEAST_SPLIT = 10, 100  # of the inception score, and images of one
AT_ONCE = 4096  # features of which there are copies in float64


@dataclass
class FeatureStatistics:
    """Running mean and covariance of features, in float64, on the features' device.

    Batches may be added in any order and by several workers, whose statistics then merge
    (Chan, Golub, LeVeque 1979: the deviations are about the mean, so nothing cancels).
    """

    count: int
    mean: Tensor  # float64 [D]
    scatter: Tensor  # float64 [D, D], sum of outer products of the deviations from the mean

    @classmethod
    def of(cls, features: Tensor) -> FeatureStatistics:
        """The statistics of one batch, float [N, D] with N >= 1; in bounded memory beside it."""
        assert features.ndim == 2, f"features are [N, D], not {list(features.shape)}"
        assert len(features) > 0, "an empty batch has no mean"
        first, *others = features.detach().split(AT_ONCE)
        whole = cls._of(first)
        for few in others:
            whole.merge(cls._of(few))
        return whole

    @classmethod
    def _of(cls, features: Tensor) -> FeatureStatistics:
        values = features.double()
        mean = values.mean(dim=0)
        deviations = values - mean
        return cls(len(values), mean, deviations.T @ deviations)

    def update(self, features: Tensor) -> None:
        """Add a batch, float [N, D]."""
        self.merge(FeatureStatistics.of(features))

    def merge(self, other: FeatureStatistics) -> None:
        """Add everything that `other` has seen."""
        total = self.count + other.count
        step = other.mean.to(self.mean.device) - self.mean
        self.scatter = (
            self.scatter
            + other.scatter.to(self.scatter.device)
            + torch.outer(step, step) * (self.count * other.count / total)
        )
        self.mean = self.mean + step * (other.count / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """float64 [D, D], the unbiased estimate. Raises InputError for fewer than two images."""
        if self.count < 2:
            raise InputError(f"{self.count} image has no covariance; give 2 or more")
        return self.scatter / (self.count - 1)


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2), FID on Inception features (Heusel et al. 2017).

    With S1 = F1 F1', S2 = F2 F2' the non-zero eigenvalues of S1 S2 are the squared singular
    values of F1' F2, so the trace of the root is their sum: real by construction and exact for
    singular covariances, where a general matrix square root fails. Lower is better, 0 is equal.
    The value falls with the number of images: compare equal numbers only.
    """
    means = (a.mean - b.mean.to(a.mean.device)).square().sum()
    cov_a, cov_b = a.covariance, b.covariance.to(a.mean.device)
    root_trace = torch.linalg.svdvals(_factor(cov_a).T @ _factor(cov_b)).sum()
    distance = means + cov_a.trace() + cov_b.trace() - 2 * root_trace
    return max(float(distance), 0.0)  # rounding may leave -1e-13


def _factor(covariance: Tensor) -> Tensor:
    """F [D, R] with F F' = covariance [D, D] of rank R; directions of mere rounding are left out.

    Their eigenvalues are about eps, but the root would make them 1e-8 each.
    """
    values, vectors = torch.linalg.eigh(covariance)
    rounding = len(values) * torch.finfo(values.dtype).eps * values[-1].clamp(min=0)
    kept = values > rounding
    return vectors[:, kept] * values[kept].sqrt()


def inception_score(probabilities: Tensor, splits: int | None = None) -> tuple[float, float]:
    """exp(E KL(p(y|x) || p(y))), Salimans et al. 2016: (mean, standard deviation) over splits.

    splits: None: ten, but fewer where one would have less than 100 images, as the score of a split
        is no more than its number of images
    probabilities: float [N, K], rows that add up to 1, N >= splits. Between 1 (every image looks
    alike to the classifier) and K (each is certain, all classes equally frequent). Splits are
    consecutive, so shuffle first where the images are ordered by class.
    """
    if splits is None:
        splits = max(1, min(SPLITS, len(probabilities) // LEAST_SPLIT))
    if len(probabilities) < splits:
        raise InputError(
            f"{len(probabilities)} images cannot be scored in {splits} splits; give {splits} or "
            "more, or fewer splits"
        )
    scores = []
    for part in probabilities.double().tensor_split(splits):
        marginal = part.mean(dim=0)
        # xlogy: a class of probability 0 adds 0
        divergence = torch.xlogy(part, part) - torch.xlogy(part, marginal)
        scores.append(divergence.sum(dim=1).mean().exp())
    values = torch.stack(scores)
    return float(values.mean()), float(values.std(correction=0))


def diversity(items: Tensor) -> float:
    """Mean over all pairs of different items of their root mean square difference.

    items: any dtype [N, ...], images or features, N >= 2. In the items' own unit: 0 if all are
    equal (a collapsed generator), sqrt(2) times the standard deviation for independent noise.
    In bounded memory beside them, however large an item is.
    """
    if len(items) < 2:
        raise InputError(f"{len(items)} image has no diversity; give 2 or more")
    points = items.flatten(1)
    total = torch.zeros((), dtype=torch.float64, device=items.device)
    for rows in torch.arange(len(points)).split(1024):
        squared = torch.zeros(len(rows), len(points), dtype=torch.float64, device=items.device)
        for some in points.split(VALUES_AT_ONCE, dim=1):
            values = some.double()
            values -= values.mean(dim=0)  # cdist expands the square: less to cancel
            squared += torch.cdist(values[rows], values).square_()
        total += squared.sqrt_().sum()
    pairs = len(points) * (len(points) - 1)
    return float(total / pairs / points.shape[1] ** 0.5)


def class_shares(probabilities: Tensor) -> Tensor:
    """float64 [K]: the share of images, of float [N, K], whose likeliest class is each class."""
    counts = torch.bincount(probabilities.argmax(dim=1), minlength=probabilities.shape[1])
    return counts.double() / len(probabilities)


def confident_share(probabilities: Tensor, threshold: float = 0.9) -> float:
    """The share of images, of float [N, K], with a class of probability `threshold` or more."""
    return float((probabilities.amax(dim=1) >= threshold).double().mean())
