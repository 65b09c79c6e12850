"""What a decoder's planes say of an image: the likelihoods that autoencoders may have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor

from genimg.losses.likelihood import (
    bernoulli_nll,
    discretised_gaussian_nll,
    gaussian_nll,
    logistic_mixture_mean,
    logistic_mixture_nll,
    logistic_mixture_planes,
)

Kind = Literal["gaussian", "bernoulli", "logistic-mixture"]


class Likelihood(ABC):
    """Of images [N, channels, H, W] in [-1, 1], given planes [N, planes, H, W] of any values.

    scaled: whether it has a log_sigma []: of the standard deviation of a pixel; others ignore it
    """

    scaled = False

    def __init__(self, channels: int) -> None:
        self.channels = channels

    @property
    def planes(self) -> int:
        return self.channels

    @abstractmethod
    def mean(self, made: Tensor) -> Tensor:
        """The images that are expected, in [-1, 1]."""

    @abstractmethod
    def nll(self, images: Tensor, made: Tensor, log_sigma: Tensor) -> Tensor:
        """What is minimised, in nats, [N]: of a density, where the likelihood is one."""

    def mass_nll(self, images: Tensor, made: Tensor, log_sigma: Tensor) -> Tensor:
        """-log of the probability of the images' values, in nats, [N]."""
        return self.nll(images, made, log_sigma)


class Gaussian(Likelihood):
    """One standard deviation for all pixels."""

    scaled = True

    def mean(self, made: Tensor) -> Tensor:
        return made.tanh()

    def nll(self, images: Tensor, made: Tensor, log_sigma: Tensor) -> Tensor:
        return gaussian_nll(images, self.mean(made), log_sigma)

    def mass_nll(self, images: Tensor, made: Tensor, log_sigma: Tensor) -> Tensor:
        return discretised_gaussian_nll(images, self.mean(made), log_sigma)


class Bernoulli(Likelihood):
    """Each pixel black or white."""

    def mean(self, made: Tensor) -> Tensor:
        return 2 * made.sigmoid() - 1

    def nll(self, images: Tensor, made: Tensor, log_sigma: Tensor) -> Tensor:
        return bernoulli_nll(images, made)


class LogisticMixture(Likelihood):
    """Each pixel of a mixture of discretised logistic distributions (Salimans et al. 2017)."""

    @property
    def planes(self) -> int:
        return logistic_mixture_planes(self.channels)

    def mean(self, made: Tensor) -> Tensor:
        return logistic_mixture_mean(made, self.channels)

    def nll(self, images: Tensor, made: Tensor, log_sigma: Tensor) -> Tensor:
        return logistic_mixture_nll(images, made)


LIKELIHOODS: dict[Kind, type[Likelihood]] = {
    "gaussian": Gaussian,
    "bernoulli": Bernoulli,
    "logistic-mixture": LogisticMixture,
}
