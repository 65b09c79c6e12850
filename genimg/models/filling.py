"""A first guess of what a mask marks, for a network that has to know less by itself then."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from genimg.models.restoring import RestoringNetwork, receptive_field

HALVINGS = 4  # so far a guess reaches: over holes of some thirty pixels
COARSER = 0.02  # how much a level trusts the next coarser one, beside the known share of its own


class Filled(RestoringNetwork):
    """A network that is told a mask as its one map, and is given images filled by first_guess.

    Images [N, C, H, W] in [-1, 1], of any values where the mask [N, 1, H, W] is 1 -> images.
    """

    def __init__(self, network: RestoringNetwork) -> None:
        assert network.maps == 1, f"{network.maps} condition maps, not the mask alone"
        assert network.scale == 1, f"enlarges by {network.scale}"
        super().__init__(network.channels, 1)
        self.network = network
        self.stride = max(network.stride, 2**HALVINGS)
        self.held = network.held
        cells = [2**level for level in range(HALVINGS + 1)]
        guess = receptive_field(*((cell, 1) for cell in (*cells, *cells[::-1])))
        self.receptive_field = network.receptive_field + guess + self.stride

    def restore(self, known: Tensor) -> Tensor:
        images, mask = known[:, : self.channels], known[:, self.channels :]
        filled = torch.where(mask > 0, first_guess(images, mask), images)
        return self.network.restore(torch.cat([filled, mask], dim=1))


def first_guess(images: Tensor, mask: Tensor) -> Tensor:
    """Images smoothly continued from what is known: normalised averaging, coarse to fine.

    (Normalised convolution, Knutsson and Westin 1993, on the levels of a pyramid.)

    images [N, C, H, W], mask [N, 1, H, W] of 1 where they are not known; H and W multiples of
    2**HALVINGS. Zero where nothing is known as far as it reaches.
    """
    share = 1 - mask.clamp(0, 1)
    both = torch.cat([images * share, share], dim=1)
    levels = [both]
    for _ in range(HALVINGS):
        levels.append(F.avg_pool2d(levels[-1], 2))
    return refined(levels, torch.zeros_like(levels[-1][:, :-1]))


def refined(levels: Sequence[Tensor], guess: Tensor) -> Tensor:
    """A guess [N, C, h, w] at the coarsest level, made finer by what is known at each.

    levels: each half as large as the one before, [N, C + 1, ...]: values times their known share,
        and that share
    """
    for level in reversed(levels):
        if guess.shape[-2:] != (size := level.shape[-2:]):
            guess = F.interpolate(guess, size=size, mode="bilinear", align_corners=False)
        near = F.avg_pool2d(level, 3, stride=1, padding=1)
        guess = (near[:, :-1] + COARSER * guess) / (near[:, -1:] + COARSER)
    return guess
