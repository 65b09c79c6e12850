"""The luma on which super-resolution and JPEG's restoration are judged."""

import torch
from torch import Tensor

from genimg.errors import InputError

WEIGHTS = (65.481, 128.553, 24.966)  # of R, G, B in [0, 1]: BT.601 with 219 steps above 16
BLACK = 16.0


def luma(images: Tensor) -> Tensor:
    """Y of BT.601: uint8 [N, 3, H, W] -> float64 [N, 1, H, W] in 16 to 235, not rounded.

    As MATLAB's rgb2ycbcr gives it of RGB in doubles. PSNR on it takes 255 for the peak, as
    published figures do. Raises InputError for gray images, which are compared as they are: of
    full range they would gain 1.32 dB by it.
    """
    assert images.dtype == torch.uint8, images.dtype
    if images.shape[1] != len(WEIGHTS):
        raise InputError(
            f"images of {images.shape[1]} channel(s) have no luma apart; compare them as they are"
        )
    out = torch.full_like(images[:, :1], BLACK, dtype=torch.float64)
    for channel, weight in enumerate(WEIGHTS):
        out.add_(images[:, channel : channel + 1], alpha=weight / 255)
    return out
