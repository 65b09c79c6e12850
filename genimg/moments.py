"""Means and variances of features' channels: what style is to adaptive instance normalisation.

Maps are float [N, D, H, W], of which each channel has a mean and a variance in each image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

EPS = 1e-5  # of variances


def moments(maps: Tensor, weight: Tensor | None = None) -> Tensor:
    """float32 [N, 2, D]: means and variances of maps [N, D, H, W] over their places.

    weight: float32 [N, H, W], how much each place counts; without it all alike, as of an image
        where none counts
    """
    maps = maps.float()
    if weight is None:
        variance, mean = torch.var_mean(maps, dim=(2, 3), correction=0)
        return torch.stack([mean, variance], dim=1)
    total = weight.sum(dim=(1, 2), keepdim=True)
    part = torch.where(total > 0, weight / total, 1 / weight[0].numel())[:, None]
    mean = (maps * part).sum(dim=(2, 3), keepdim=True)
    variance = ((maps - mean).square() * part).sum(dim=(2, 3))
    return torch.stack([mean[..., 0, 0], variance], dim=1)


def pooled(parts: Tensor, weights: Tensor) -> Tensor:
    """float64 [2, D]: the moments of a whole of parts' [T, 2, D], which count by weights [T].

    (Chan, Golub & LeVeque 1983, of any number of parts.) One weight at least is above 0.
    """
    share = (weights.double() / weights.double().sum())[:, None]
    means, variances = parts.double().unbind(1)
    mean = (means * share).sum(dim=0)
    variance = ((variances + (means - mean).square()) * share).sum(dim=0)
    return torch.stack([mean, variance])


def exchange(content: Tensor, style: Tensor, strength: float = 1.0) -> Tensor:
    """[..., 2, D]: factors on maps and what is added, so that moments of a content [..., 2, D] on
    them become those of a style (eq. 8, Huang & Belongie 2017).

    strength: 0 leaves them as they are, 1 exchanges them, what is between is between (eq. 14)
    """
    (mean, variance), (wanted, theirs) = content.unbind(-2), style.unbind(-2)
    factor = ((theirs + EPS) / (variance + EPS)).sqrt()
    made = torch.stack([factor, wanted - mean * factor], dim=-2)
    unchanged = torch.stack([torch.ones_like(mean), torch.zeros_like(mean)], dim=-2)
    return torch.lerp(unchanged, made, strength)


def exchanged(maps: Tensor, change: Tensor) -> Tensor:
    """float32 maps [N, D, H, W] times factors, and with what is added: [N, 2, D]."""
    factor, added = change[..., None, None].unbind(1)
    return maps.float() * factor + added


def style_distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """float32 [N]: how far means and deviations of maps are apart (eq. 13, Huang & Belongie 2017):
    squares, their mean over channels, and the sum over layers.
    """
    apart = torch.zeros((), device=one[0].device)
    for layers in zip(one, other, strict=True):
        (mean, variance), (wanted, theirs) = (moments(maps).unbind(1) for maps in layers)
        deviation, their = (variance + EPS).sqrt(), (theirs + EPS).sqrt()
        squares = (mean - wanted).square() + (deviation - their).square()
        apart = apart + squares.mean(dim=1)
    return apart


def content_distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """float32 [N]: how far maps are apart that have lost their style: the mean of squares over the
    layers, of which each channel is normalised (as of section 5.1, Huang et al. 2018, MUNIT).

    0 of equal ones and, as each has the variance 1, about 2 of those that have nothing in common.
    """
    layers = [
        (normalised(a) - normalised(b)).square().flatten(1).mean(dim=1)
        for a, b in zip(one, other, strict=True)
    ]
    return torch.stack(layers).mean(dim=0)


def normalised(maps: Tensor) -> Tensor:
    """Each channel of each image with mean 0 and variance 1."""
    found = moments(maps)
    plain = torch.stack([torch.zeros_like(found[:, 0]), torch.ones_like(found[:, 1])], dim=1)
    return exchanged(maps, exchange(found, plain))
