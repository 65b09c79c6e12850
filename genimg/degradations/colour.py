"""Colours as JPEG keeps them, in libjpeg's whole numbers: full-range YCbCr of BT.601 (JFIF 1.02).

Fractions are of 16 bits, and sums of 24, which float32 holds exactly.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def _fraction(value: float) -> float:
    return round(value * 2**16) / 2**16


_Y = tuple(map(_fraction, (0.299, 0.587, 0.114)))
_CB = (-_fraction(0.168735892), -_fraction(0.331264108), 0.5)
_CR = (0.5, -_fraction(0.418687589), -_fraction(0.081312411))
_CHROMA = 128.5 - 2**-16  # added to chroma: halves are rounded down


def to_ycc(pixels: Tensor) -> list[Tensor]:
    """Bytes of RGB, float32 [N, 3, H, W] -> those of Y, Cb and Cr, each [N, H, W]."""
    red, green, blue = pixels.unbind(1)
    return [
        (red * r).add_(green, alpha=g).add_(blue, alpha=b).add_(offset).floor_()
        for (r, g, b), offset in ((_Y, 0.5), (_CB, _CHROMA), (_CR, _CHROMA))
    ]


def from_ycc(luma: Tensor, blue: Tensor, red: Tensor) -> Tensor:
    """Bytes of Y, Cb and Cr, float32 [N, H, W] each -> those of RGB [N, 3, H, W]."""
    blue, red = blue - 128, red - 128
    green = (blue * -_fraction(0.344136286)).sub_(red, alpha=_fraction(0.714136286))
    added = (red.mul_(_fraction(1.402)), green, blue.mul_(_fraction(1.772)))
    return torch.stack([each.add_(0.5).floor_().add_(luma) for each in added], dim=1).clamp_(0, 255)


def halved(planes: Tensor) -> Tensor:
    """Planes of bytes [N, H, W] -> [N, ceil(H / 2), 8 ceil(W / 16)]: means of four.

    Rounded up and down in turns along a row, so that there is no bias. Whole blocks wide: what
    fills the last one repeats the image's last column, and not its mean with its neighbour.
    """
    height, width = planes.shape[-2:]
    padded = F.pad(planes[:, None], (0, -width % 16, 0, height % 2), mode="replicate")[:, 0]
    rows = padded[:, ::2] + padded[:, 1::2]
    sums = rows[..., ::2] + rows[..., 1::2]
    turns = torch.arange(sums.shape[-1], device=planes.device) % 2 + 1
    return sums.add_(turns).mul_(0.25).floor_()


def twice(planes: Tensor) -> Tensor:
    """Planes of bytes [N, h, w] -> [N, 2 h, 2 w], 3/4 of the nearer and 1/4 of the next."""
    padded = F.pad(planes[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    middle = padded[:, 1:-1] * 3
    rows = torch.stack([middle + padded[:, :-2], middle + padded[:, 2:]], dim=2).flatten(1, 2)
    middle = rows[..., 1:-1] * 3
    left = (middle + rows[..., :-2]).add_(8)
    right = (middle + rows[..., 2:]).add_(7)
    return torch.stack([left, right], dim=-1).flatten(2).mul_(1 / 16).floor_()
