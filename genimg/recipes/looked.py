"""What restored images are compared by with the clean ones, and what these must be for that."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from genimg.errors import InputError
from genimg.metrics.blocking import psnr_b
from genimg.metrics.colour import luma
from genimg.metrics.fidelity import EXACT, WINDOW, finite_psnr, ssim
from genimg.metrics.multiscale import WEIGHTS, ms_ssim, smallest

More = Literal["ms_ssim", "psnr_b"]


class Looked(NamedTuple):
    """How a restorer is judged.

    images: whole ones, at most
    seed: decides the damage
    planes: that are compared: all, or of colour images the luma of BT.601
    border: pixels that are cut off all around before
    more: measures beside PSNR and SSIM
    """

    images: int
    seed: int = 0
    planes: Literal["all", "luma"] = "all"
    border: int = 0
    more: tuple[More, ...] = ()

    @property
    def measures(self) -> tuple[str, ...]:
        return ("psnr", "ssim", *self.more)

    @property
    def least(self) -> int:
        """Pixels a side that these measures need, borders included."""
        window = smallest(len(WEIGHTS)) if "ms_ssim" in self.more else WINDOW
        return window + 2 * self.border

    def refuse_smaller(self, name: str, height: int, width: int, scale: int) -> None:
        """InputError for an image that is too small once its sides are multiples of the scale."""
        least = -(-self.least // scale) * scale
        if min(height, width) < least:
            raise InputError(
                f"{name} is of {width}x{height} pixels; {', '.join(self.measures)} of this model"
                f" need {least}x{least} or more: leave it out"
            )

    def compared(self, made: Tensor, clean: Tensor) -> Tensor:
        """float64 [N, measures] of uint8 [N, C, H, W]; decibels are at most EXACT."""
        if self.planes == "luma" and clean.shape[1] == 3:  # rounded, as MATLAB's rgb2ycbcr of bytes
            made, clean = luma(made).round(), luma(clean).round()
        values = [finite_psnr(made, clean, self.border), ssim(made, clean, self.border)]
        for name in self.more:
            if name == "psnr_b":
                values.append(psnr_b(made, clean).clamp(max=EXACT))
            else:
                values.append(ms_ssim(made, clean, self.border))
        return torch.stack(values, dim=1)
