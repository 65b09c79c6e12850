"""What structural similarity is made of, for the metric in float64 and for the loss in float32."""

from functools import lru_cache

import torch
from torch import Tensor

WINDOW = 11  # pixels, Wang et al. 2004, section III.B
WINDOW_SIGMA = 1.5
K1 = 0.01  # by the images' range, squared, the constants of the luminance,
K2 = 0.03  # and of contrast and structure


def window_mean(planes: Tensor) -> Tensor:
    """float [..., H, W] -> [..., H - 10, W - 10]: Gaussian means, along the rows, then down."""
    down, along = (_band(side, planes.dtype, planes.device) for side in planes.shape[-2:])
    return down @ (planes @ along.T)


@lru_cache(maxsize=32)
def _band(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[length - 10, length]: the window's weights, one place further in each row.

    Products with such a matrix are faster than convolutions are, on CPUs many times, and where
    convolutions are of reduced precision on GPUs (TF32), products are not unless asked for.
    """
    with torch.inference_mode(False):  # the next to use it may want gradients
        offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
        weights = torch.exp(-0.5 * (offsets / WINDOW_SIGMA).square())
        weights = weights / weights.sum()
        band = torch.zeros(length - WINDOW + 1, length, dtype=torch.float64)
        for place, weight in enumerate(weights):
            band.diagonal(place).fill_(weight)
        return band.to(device, dtype)
