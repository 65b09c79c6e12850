"""Divergences and likelihoods of autoencoders, in nats an image."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MIXTURE = 10  # logistic distributions in a mixture, as in Salimans et al. 2017
LOG_SCALES = (-7.0, 7.0)  # at the narrowest and at the widest


def gaussian_kl(
    mean: Tensor,
    log_variance: Tensor,
    prior_mean: Tensor | None = None,
    prior_log_variance: Tensor | None = None,
) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(prior_mean, exp(prior_log_variance))), [N, ...], nats.

    Of each dimension by itself (appendix B, Kingma & Welling 2014). Without a prior, of N(0, 1).
    """
    shift = mean if prior_mean is None else mean - prior_mean
    if prior_log_variance is None:
        return 0.5 * (shift.square() + log_variance.exp() - 1 - log_variance)
    wider = log_variance - prior_log_variance
    return 0.5 * (shift.square() * (-prior_log_variance).exp() + wider.exp() - 1 - wider)


def gaussian_log_ratio(
    drawn: Tensor,
    mean: Tensor,
    log_variance: Tensor,
    prior_mean: Tensor | None = None,
    prior_log_variance: Tensor | None = None,
) -> Tensor:
    """log p(drawn) - log q(drawn) in nats, [N], of prior p and posterior q as in `gaussian_kl`.

    Summed over dimensions; minus the divergence, on average over what q draws.
    """
    from_mean = (drawn - mean).square() * (-log_variance).exp() + log_variance
    from_prior = (drawn if prior_mean is None else drawn - prior_mean).square()
    if prior_log_variance is not None:
        from_prior = from_prior * (-prior_log_variance).exp() + prior_log_variance
    return 0.5 * (from_mean - from_prior).flatten(1).sum(dim=1)


def importance_bound(log_weights: Tensor) -> Tensor:
    """Logarithms of importance weights [N, K] -> of the mean of each row's, [N].

    (Eq. 8, Burda et al. 2016.) Of weights p(x, z) / q(z | x) a bound of log p(x), in nats.
    """
    return log_weights.logsumexp(dim=1) - math.log(log_weights.shape[1])


def gaussian_nll(images: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """-log N(images; mean, sigma) in nats, [N], summed over pixels; scalar log_sigma."""
    squared = (images - mean).square().flatten(1).sum(dim=1)
    count = images[0].numel()
    return 0.5 * squared * (-2 * log_sigma).exp() + count * (
        log_sigma + 0.5 * math.log(2 * math.pi)
    )


def discretised_gaussian_nll(images: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """-log P(bytes) in nats, [N]: the Gaussian's mass in each of the 256 levels of [-1, 1].

    A probability and not a density, so it cannot be improved by shrinking sigma below a level
    (the discretisation of eq. 13, Ho et al. 2020). Computed in float64 and in logarithms, so that
    it is right however far from the mean a level lies.
    """
    log_ndtr = torch.special.log_ndtr
    centred = (images - mean).double()
    scale = torch.exp(-log_sigma.double())
    upper, lower = (centred + 1 / 255) * scale, (centred - 1 / 255) * scale
    # on the side of the tail, where the logarithm keeps the digits of what is small
    flip = lower > 0
    more = log_ndtr(torch.where(flip, -lower, upper))
    less = log_ndtr(torch.where(flip, -upper, lower))
    mass = more + (-torch.expm1(less - more)).log()
    # the outermost levels reach to infinity
    mass = torch.where(images < -1 + 1e-3, log_ndtr(upper), mass)
    mass = torch.where(images > 1 - 1e-3, log_ndtr(-lower), mass)
    return -mass.flatten(1).sum(dim=1)


def bernoulli_nll(images: Tensor, logits: Tensor) -> Tensor:
    """-log P(pixels) in nats, [N], of images [N, C, H, W] of which each pixel is -1 or 1.

    Of values between these it is the cross-entropy, which is no likelihood.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, (images + 1) / 2, reduction="none")
    return entropy.flatten(1).sum(dim=1)


def logistic_mixture_planes(channels: int) -> int:
    """Planes of a mixture for images of so many channels: see `logistic_mixture`."""
    return MIXTURE * (1 + 2 * channels + channels * (channels - 1) // 2)


def logistic_mixture(made: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Planes [N, P, H, W] as (log shares [N, K, H, W], means and log scales [N, K, C, H, W],
    couplings [N, K, C (C - 1) / 2, H, W]) of K logistic distributions."""
    each = made.unflatten(1, (MIXTURE, -1))
    pairs = channels * (channels - 1) // 2
    shares, means, scales, couplings = each.split((1, channels, channels, pairs), dim=2)
    return (
        shares[:, :, 0].log_softmax(dim=1),
        means,
        scales.clamp(*LOG_SCALES),
        couplings.tanh(),
    )


def logistic_mixture_nll(images: Tensor, made: Tensor) -> Tensor:
    """-log P(bytes) in nats, [N], of images [N, C, H, W] with planes [N, P, H, W].

    Each pixel is of one of K logistic distributions, discretised to the 256 levels of [-1, 1], the
    outermost of which take the tails; the means of a channel move with the values of the channels
    before it (eq. 2 and 3, Salimans et al. 2017).
    """
    channels = images.shape[1]
    shares, means, scales, couplings = logistic_mixture(made, channels)
    values = images[:, None]
    centred = values - coupled(means, couplings, values.expand_as(means))
    narrow = (-scales).exp()
    upper, lower = narrow * (centred + 1 / 255), narrow * (centred - 1 / 255)
    # log(F(upper) - F(lower)), with what the outermost levels have beyond them
    inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + (-torch.expm1(-2 / 255 * narrow)).log()
    mass = torch.where(values < -1 + 1e-3, F.logsigmoid(upper), inside)
    mass = torch.where(values > 1 - 1e-3, F.logsigmoid(-lower), mass)
    return -(shares + mass.sum(dim=2)).logsumexp(dim=1).flatten(1).sum(dim=1)


def logistic_mixture_mean(made: Tensor, channels: int) -> Tensor:
    """Images [N, C, H, W] in [-1, 1]: each distribution's mean, at most 1, by its share."""
    shares, means, _, couplings = logistic_mixture(made, channels)
    held: list[Tensor] = []
    for channel in range(channels):
        values = torch.stack([*held, *means.unbind(2)[channel:]], dim=2)
        held.append(coupled(means, couplings, values)[:, :, channel].clamp(-1, 1))
    return (shares.exp()[:, :, None] * torch.stack(held, dim=2)).sum(dim=1)


def coupled(means: Tensor, couplings: Tensor, values: Tensor) -> Tensor:
    """Means [N, K, C, H, W] that have moved with the values of the channels before each."""
    moved, number = [], 0
    for channel, mean in enumerate(means.unbind(2)):
        for before in range(channel):
            mean = mean + couplings[:, :, number] * values[:, :, before]
            number += 1
        moved.append(mean)
    return torch.stack(moved, dim=2)
