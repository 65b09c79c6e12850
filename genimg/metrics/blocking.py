"""PSNR-B: fidelity that also counts the edges which JPEG's blocks leave."""

import math

import torch
from torch import Tensor

from genimg.errors import InputError
from genimg.metrics.fidelity import PEAK, cropped, refuse_smaller, squared_error, strips

BLOCK = 8  # pixels a side of JPEG's blocks


def psnr_b(images: Tensor, truth: Tensor) -> Tensor:
    """PSNR with the blocking effect added to the squared error, dB, of each: float64 [N].

    images, truth: uint8, or float64 on the scale of 0 to 255, [N, 1, H, W] with H, W >= 9, on one
    device. Yim and Bovik 2011. The blocks' edges are looked for in `images` alone, at
    multiples of 8 pixels from the top left corner: so nothing is cropped. Memory beside the images
    is bounded. Raises InputError if the shapes differ, of colour, or of too small images.
    """
    images, truth = cropped(images, truth)
    if images.shape[1] != 1:
        raise InputError(
            f"images of {images.shape[1]} channels: PSNR-B is defined on one; give their luma"
        )
    refuse_smaller(images, BLOCK + 1, "PSNR-B")
    return 10 * torch.log10(PEAK**2 / (squared_error(images, truth) + blocking_effect(images)))


def blocking_effect(images: Tensor) -> Tensor:
    """uint8 or float64 [N, 1, H, W] -> float64 [N]: the blocking effect factor of the paper.

    How much larger the mean squared difference of neighbours is across the edges of blocks than
    elsewhere, by log2(8) / log2(the shorter side); 0 where it is not larger.
    """
    height, width = images.shape[-2:]
    across = torch.zeros(len(images), width - 1, dtype=torch.float64, device=images.device)
    down = torch.zeros(len(images), height - 1, dtype=torch.float64, device=images.device)
    top = 0
    for upper, lower in strips(images[:, :, :-1], images[:, :, 1:]):
        across += _squares(upper[..., 1:], upper[..., :-1]).sum(dim=1)
        down[:, top : top + upper.shape[2]] = _squares(upper, lower).sum(dim=2)
        top += upper.shape[2]
    last = images[:, :, -1:]
    across += _squares(last[..., 1:], last[..., :-1]).sum(dim=1)

    edges = slice(BLOCK - 1, None, BLOCK)
    at_edges = across[:, edges].sum(dim=1) + down[:, edges].sum(dim=1)
    elsewhere = across.sum(dim=1) + down.sum(dim=1) - at_edges
    edge_count = (width - 1) // BLOCK * height + (height - 1) // BLOCK * width
    count = (width - 1) * height + (height - 1) * width
    excess = at_edges / edge_count - elsewhere / (count - edge_count)  # D_B - D_BC
    return excess.clamp_(min=0) * (math.log2(BLOCK) / math.log2(min(height, width)))


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """uint8 or float64 [N, 1, H, W] twice -> float64 [N, H, W]: their squared differences."""
    difference = x.int() - y.int() if x.dtype == torch.uint8 else x - y
    return difference.square_().double()[:, 0]
