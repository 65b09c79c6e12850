"""What restored images cost beside clean ones: losses of restoration, and their weighted sum.

Images are float32 [N, C, H, W] in [-1, 1], and each loss is a scalar: a mean over images, so that
it is a worker's part of the mean over a global batch.
"""

from collections.abc import Callable, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from genimg.errors import InputError
from genimg.section import Section
from genimg.similarity import K1, K2, WINDOW, window_mean


def charbonnier(restored: Tensor, clean: Tensor, eps: float = 1e-3) -> Tensor:
    """The mean of sqrt(difference^2 + eps^2): L1, but smooth at 0 (Lai et al. 2017).

    At equality it is eps.
    """
    return ((restored - clean).square() + eps**2).sqrt().mean()


def psnr_loss(restored: Tensor, clean: Tensor, eps: float = 1e-8) -> Tensor:
    """10 log10(MSE + eps) of each image on the scale of 0 to 1: minus its PSNR, at least -80 dB.

    (HINet, Chen et al. 2021; eps as in NAFNet, Chen et al. 2022.)
    """
    squared = ((restored - clean) / 2).square().flatten(1).mean(dim=1)
    return 10 * (squared + eps).log10().mean()


def ssim_loss(restored: Tensor, clean: Tensor) -> Tensor:
    """1 - SSIM (eq. 13, Wang et al. 2004), over the places of the window and over channels.

    genimg.metrics.fidelity.ssim of the same images, were they bytes. Raises InputError if they
    are smaller than the window.
    """
    height, width = restored.shape[-2:]
    if min(height, width) < WINDOW:
        raise InputError(
            f"images of {width}x{height}: the SSIM loss needs {WINDOW}x{WINDOW} or more; train on "
            "larger ones (data.size), or give ssim the weight 0"
        )
    # Of x, y in [0, 1] their sum and difference, whose moments give all that the equation asks
    # for; less a half each, as variances from mean squares are the more exact the smaller these.
    both = torch.stack([restored + clean, restored - clean]) / 2
    with torch.autocast(restored.device.type, enabled=False):
        means = window_mean(both)
        variances = window_mean(both.square()) - means.square()
    total, difference = (means[0] + 1).square() / 2, means[1].square() / 2
    luminance = (total - difference + K1**2) / (total + difference + K1**2)
    total, difference = variances / 2
    structure = (total - difference + K2**2) / (total + difference + K2**2)
    return 1 - (luminance * structure).mean()


def fourier_l1(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute difference of the 2-D discrete Fourier transforms (Cho et al. 2021).

    Over real and imaginary parts of all frequencies. The transform is not normalised, so that it
    grows with the square root of the pixels: papers' weights of 0.05 to 0.1 suit patches.
    """
    spectrum = torch.fft.fft2(restored - clean)
    return torch.view_as_real(spectrum).abs().mean()


def features_l1(restored: Sequence[Tensor], clean: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of feature maps [N, F, H, W], then the mean over such layers.

    (The perceptual loss of Johnson et al. 2016, in the L1 of ESRGAN, Wang et al. 2018.)
    """
    layers = [F.l1_loss(r.float(), c.float()) for r, c in zip(restored, clean, strict=True)]
    return torch.stack(layers).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "absolute": F.l1_loss,
    "squared": F.mse_loss,
    "charbonnier": charbonnier,
    "psnr": psnr_loss,
    "ssim": ssim_loss,
    "fourier": fourier_l1,
}


class RestorationLoss(Section):
    absolute: float = Field(1.0, ge=0)
    """weight of the mean absolute difference (EDSR, Lim et al. 2017)"""
    squared: float = Field(0.0, ge=0)
    """weight of the mean squared difference"""
    charbonnier: float = Field(0.0, ge=0)
    """weight of sqrt(difference^2 + 0.001^2), a smooth absolute difference (Lai et al. 2017)"""
    psnr: float = Field(0.0, ge=0)
    """weight of minus the PSNR in dB (NAFNet, Chen et al. 2022)"""
    ssim: float = Field(0.0, ge=0)
    """weight of 1 - SSIM, whose window takes images of 11 pixels or more (Wang et al. 2004)"""
    fourier: float = Field(0.0, ge=0)
    """weight of the absolute difference of Fourier transforms; 0.05 is usual (Cho et al. 2021)"""

    @model_validator(mode="after")
    def something_counts(self) -> Self:
        weights = {name: value for name, value in self if isinstance(value, float)}
        if not any(weights.values()):
            raise ValueError(
                "all weights of the loss are 0; give one above 0, as absolute=1 "
                f"(of {', '.join(weights)})"
            )
        return self

    def between(self, restored: Tensor, clean: Tensor) -> Tensor:
        """The weighted sum of the losses of float32 [N, C, H, W] in [-1, 1]: a scalar."""
        weights = {name: getattr(self, name) for name in LOSSES}
        counted = [w * LOSSES[name](restored, clean) for name, w in weights.items() if w]
        return torch.stack(counted).sum() if counted else restored.new_zeros(())
