"""How close an image is to the one it should be: PSNR and SSIM, for bytes as they are stored."""

import torch
import torch.nn.functional as F
from torch import Tensor

from genimg.errors import InputError

PEAK = 255.0
WINDOW = 11  # pixels, Wang et al. 2004, section III.B
WINDOW_SIGMA = 1.5
C1 = (0.01 * PEAK) ** 2
C2 = (0.03 * PEAK) ** 2


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, dB, of each image: float64 [N]; identical images give inf.

    a, b: uint8 [N, C, H, W]. The error is a mean over the image's channels and pixels, summed in
    integers, so the result is exact up to the logarithm. Raises InputError if the shapes differ.
    """
    _check(a, b)
    squares = (a.int() - b.int()).square_()
    mse = squares.flatten(1).sum(dim=1, dtype=torch.int64).double() / a.shape[1:].numel()
    return 10 * torch.log10(PEAK**2 / mse)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of each image: float64 [N], at most 1 (identical images).

    a, b: uint8 [N, C, H, W] with H, W >= 11. Wang, Bovik, Sheikh, Simoncelli 2004, eq. 13, with
    their Gaussian window, averaged over the positions where the whole window lies in the image,
    and over channels. Raises InputError if the shapes differ or the images are too small.
    """
    _check(a, b)
    if min(a.shape[-2:]) < WINDOW:
        height, width = a.shape[-2:]
        raise InputError(
            f"images of {width}x{height}: SSIM needs {WINDOW}x{WINDOW} or more; use PSNR for these"
        )
    x, y = (image.double().flatten(0, 1)[:, None] for image in (a, b))
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    var_x = _window_mean(x.square()) - mean_x.square()
    var_y = _window_mean(y.square()) - mean_y.square()
    cov = _window_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
    contrast_structure = (2 * cov + C2) / (var_x + var_y + C2)
    return (luminance * contrast_structure).reshape(len(a), -1).mean(dim=1)


def _window_mean(planes: Tensor) -> Tensor:
    """float64 [N, 1, H, W] -> [N, 1, H - 10, W - 10]: Gaussian means, rows then columns."""
    offsets = torch.arange(WINDOW, dtype=planes.dtype, device=planes.device) - WINDOW // 2
    weights = torch.exp(-0.5 * (offsets / WINDOW_SIGMA).square())
    weights = weights / weights.sum()
    rows = F.conv2d(planes, weights.reshape(1, 1, 1, WINDOW))
    return F.conv2d(rows, weights.reshape(1, 1, WINDOW, 1))


def _check(a: Tensor, b: Tensor) -> None:
    assert a.dtype == b.dtype == torch.uint8, "PSNR and SSIM are defined here on stored bytes"
    if a.shape != b.shape:
        raise InputError(
            f"images of {list(a.shape)} cannot be compared with images of {list(b.shape)} "
            "([number, channels, height, width]); make them alike first"
        )
