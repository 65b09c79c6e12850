"""How close an image is to the one it should be: PSNR and SSIM.

For bytes as they are stored, or for float64 on their scale of 0 to 255 that are none, as luma is.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from genimg.errors import InputError
from genimg.similarity import K1, K2, WINDOW, window_mean

__all__ = [
    "EXACT", "PEAK", "WINDOW", "finite_psnr", "mean_similarity", "psnr", "squared_error", "ssim",
]  # fmt: skip

PEAK = 255.0
EXACT = 100.0  # dB that identical images count for where means are taken of them

_BYTES = 2**22  # compared at a time: bounds the memory of the differences
_SIDE = 128  # windows that a block has along each side: a block stays in a processor's cache
_SIDE_ON_GPU = 512


def psnr(a: Tensor, b: Tensor, crop: int = 0) -> Tensor:
    """Peak signal-to-noise ratio, dB, of each image: float64 [N]; identical images give inf.

    a, b: uint8, or float64 on the scale of 0 to 255, [N, C, H, W], on one device. The error is a
    mean over the image's channels and pixels, without `crop` pixels at each border; that of bytes
    is summed in integers, so the result is exact up to the logarithm. Memory beside the images is
    bounded. Raises InputError if the shapes differ, or if no pixel is left.
    """
    return 10 * torch.log10(PEAK**2 / squared_error(*cropped(a, b, crop)))


def finite_psnr(a: Tensor, b: Tensor, crop: int = 0) -> Tensor:
    """As psnr, EXACT at most: so means stay finite, and scores numbers that JSON has."""
    return psnr(a, b, crop).clamp(max=EXACT)


def ssim(a: Tensor, b: Tensor, crop: int = 0) -> Tensor:
    """Structural similarity of each image: float64 [N], at most 1 (identical images).

    a, b: uint8, or float64 on the scale of 0 to 255, [N, C, H, W], on one device; H, W >= 11
    without `crop` pixels at each border. Wang, Bovik, Sheikh, Simoncelli 2004, eq. 13, with their
    Gaussian window, averaged over the positions where the whole window lies in the image, and over
    channels. Computed in float64, block by block, in bounded memory. Raises InputError if the
    shapes differ or the images are too small.
    """
    a, b = cropped(a, b, crop)
    refuse_smaller(a, WINDOW, "SSIM")
    return mean_similarity(a.flatten(0, 1), b.flatten(0, 1)).view(a.shape[:2]).mean(dim=1)


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """uint8 or float64 [N, C, H, W] twice -> float64 [N]: the mean over channels and pixels."""
    total = torch.zeros(len(a), dtype=torch.float64, device=a.device)
    for x, y in strips(a, b):
        if a.dtype == torch.uint8:
            squares = (x.int() - y.int()).square_()
            total += squares.flatten(1).sum(dim=1, dtype=torch.int64)
        else:
            total += (x - y).square_().flatten(1).sum(dim=1)
    return total / a.shape[1:].numel()


def mean_similarity(x: Tensor, y: Tensor, luminance: bool = True) -> Tensor:
    """Planes [P, H, W] twice, of any numbers on the scale of 0 to 255 -> float64 [P].

    The mean of eq. 13, Wang et al. 2004, over all positions of the window; without `luminance`
    that of contrast and structure alone, as MS-SSIM has it at all scales but the coarsest.
    """
    side = _SIDE if x.device.type == "cpu" else _SIDE_ON_GPU
    height, width = (length - WINDOW + 1 for length in x.shape[-2:])
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for top in range(0, height, side):
        for left in range(0, width, side):
            rows, columns = (slice(at, at + side + WINDOW - 1) for at in (top, left))
            total += _block(x[:, rows, columns], y[:, rows, columns], luminance)
    return total / (height * width)


def _block(x: Tensor, y: Tensor, luminance: bool) -> Tensor:
    """[P, H, W] twice -> float64 [P]: the sum of similarities in one block of the planes."""
    at_once = max(1, _SIDE**2 // x[0].numel()) if x.device.type == "cpu" else 64
    pairs = zip(x.split(at_once), y.split(at_once), strict=True)
    return torch.cat(
        [_similarity(part.double(), other.double(), luminance) for part, other in pairs]
    )


def _similarity(x: Tensor, y: Tensor, luminance: bool) -> Tensor:
    """float64 [P, H, W] twice -> [P]: eq. 13, summed over all positions of the window.

    From the sum and the difference of the two, whose means and mean squares give all that the
    equation asks for by four window means instead of five.
    """
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    both = torch.stack([x + y, x - y])
    means, squares = window_mean(both), window_mean(both.square_())
    products = means.square_()
    variances = squares[0] + squares[1] - products[0] - products[1]  # 2 (vx + vy)
    covariance = squares[0] - squares[1] - products[0] + products[1]  # 4 cov
    upper, lower = covariance.div_(2).add_(c2), variances.div_(2).add_(c2)
    if luminance:
        upper.mul_((products[0] - products[1]).div_(2).add_(c1))  # 4 mx my
        lower.mul_((products[0] + products[1]).div_(2).add_(c1))  # 2 (mx^2 + my^2)
    return upper.div_(lower).sum(dim=(1, 2))


def cropped(a: Tensor, b: Tensor, crop: int = 0) -> tuple[Tensor, Tensor]:
    """Both without `crop` pixels at each border, if they can be compared: else InputError."""
    assert a.dtype == b.dtype, f"{a.dtype} beside {b.dtype}"
    assert a.dtype in (torch.uint8, torch.float64), f"bytes or float64 are compared, not {a.dtype}"
    assert crop >= 0, crop
    if a.shape != b.shape:
        raise InputError(
            f"images of {list(a.shape)} cannot be compared with images of {list(b.shape)} "
            "([number, channels, height, width]); make them alike first"
        )
    height, width = a.shape[-2:]
    if min(height, width) <= 2 * crop:
        raise InputError(
            f"crop={crop}: nothing is left of images of {width}x{height}; crop less, or leave "
            "out images as small"
        )
    inner = slice(crop, height - crop), slice(crop, width - crop)
    return a[..., *inner], b[..., *inner]


def refuse_smaller(images: Tensor, side: int, metric: str) -> None:
    """InputError for images [N, C, H, W] of which a side is below that."""
    height, width = images.shape[-2:]
    if min(height, width) < side:
        raise InputError(
            f"images of {width}x{height}: {metric} needs {side}x{side} or more; use PSNR for these"
        )


def strips(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Both [N, C, H, W] in strips of rows from the top, of bounded memory."""
    rows = max(1, _BYTES // max(1, a[:, :, :1].numel()))
    return zip(a.split(rows, dim=2), b.split(rows, dim=2), strict=True)
