"""How close an image is to the one it should be: PSNR and SSIM, for bytes as they are stored."""

from functools import lru_cache

import torch
from torch import Tensor

from genimg.errors import InputError

PEAK = 255.0
WINDOW = 11  # pixels, Wang et al. 2004, section III.B
WINDOW_SIGMA = 1.5
C1 = (0.01 * PEAK) ** 2
C2 = (0.03 * PEAK) ** 2

_BYTES = 2**22  # compared at a time: bounds the memory of the differences
_SIDE = 128  # windows that a block has along each side: a block stays in a processor's cache
_SIDE_ON_GPU = 512


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, dB, of each image: float64 [N]; identical images give inf.

    a, b: uint8 [N, C, H, W], on one device. The error is a mean over the image's channels and
    pixels, summed in integers, so the result is exact up to the logarithm. Memory beside the
    images is bounded. Raises InputError if the shapes differ.
    """
    _check(a, b)
    parts = zip(
        a.flatten(1).split(max(1, _BYTES // len(a)), dim=1),
        b.flatten(1).split(max(1, _BYTES // len(b)), dim=1),
        strict=True,
    )
    total = torch.zeros(len(a), dtype=torch.int64, device=a.device)
    for x, y in parts:
        total += (x.int() - y.int()).square_().sum(dim=1, dtype=torch.int64)
    return 10 * torch.log10(PEAK**2 / (total.double() / a.shape[1:].numel()))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of each image: float64 [N], at most 1 (identical images).

    a, b: uint8 [N, C, H, W] with H, W >= 11, on one device. Wang, Bovik, Sheikh, Simoncelli 2004,
    eq. 13, with their Gaussian window, averaged over the positions where the whole window lies in
    the image, and over channels. Computed in float64, block by block, in bounded memory. Raises
    InputError if the shapes differ or the images are too small.
    """
    _check(a, b)
    if min(a.shape[-2:]) < WINDOW:
        height, width = a.shape[-2:]
        raise InputError(
            f"images of {width}x{height}: SSIM needs {WINDOW}x{WINDOW} or more; use PSNR for these"
        )
    x, y = a.flatten(0, 1), b.flatten(0, 1)
    side = _SIDE if a.device.type == "cpu" else _SIDE_ON_GPU
    blocks = torch.stack(
        [
            _block(x, y, slice(top, top + side + WINDOW - 1), slice(left, left + side + WINDOW - 1))
            for top in range(0, a.shape[-2] - WINDOW + 1, side)
            for left in range(0, a.shape[-1] - WINDOW + 1, side)
        ]
    )
    places = (a.shape[-2] - WINDOW + 1) * (a.shape[-1] - WINDOW + 1)
    return blocks.sum(dim=0).view(a.shape[:2]).mean(dim=1) / places


def _block(x: Tensor, y: Tensor, rows: slice, columns: slice) -> Tensor:
    """uint8 [P, H, W] twice -> float64 [P]: the sum of similarities in one block of the planes."""
    x, y = x[:, rows, columns], y[:, rows, columns]
    at_once = max(1, _SIDE**2 // x[0].numel()) if x.device.type == "cpu" else 64
    pairs = zip(x.split(at_once), y.split(at_once), strict=True)
    return torch.cat([_similarity(part.double(), other.double()) for part, other in pairs])


def _similarity(x: Tensor, y: Tensor) -> Tensor:
    """float64 [P, H, W] twice -> [P]: eq. 13, summed over all positions of the window.

    From the sum and the difference of the two, whose means and mean squares give all that the
    equation asks for by four window means instead of five.
    """
    both = torch.stack([x + y, x - y])
    means, squares = _window_mean(both), _window_mean(both.square_())
    products = means.square_()
    variances = squares[0] + squares[1] - products[0] - products[1]  # 2 (vx + vy)
    covariance = squares[0] - squares[1] - products[0] + products[1]  # 4 cov
    luminance = products[0] + products[1], products[0] - products[1]  # 2 (mx^2 + my^2), 4 mx my
    upper = luminance[1].div_(2).add_(C1).mul_(covariance.div_(2).add_(C2))
    lower = luminance[0].div_(2).add_(C1).mul_(variances.div_(2).add_(C2))
    return upper.div_(lower).sum(dim=(1, 2))


def _window_mean(planes: Tensor) -> Tensor:
    """float64 [..., H, W] -> [..., H - 10, W - 10]: Gaussian means, along the rows, then down."""
    down, along = (_band(length, planes.device) for length in planes.shape[-2:])
    return down @ (planes @ along.T)


@lru_cache(maxsize=16)
def _band(length: int, device: torch.device) -> Tensor:
    """float64 [length - 10, length]: the window's weights, one place further in each row.

    In float64 products with such a matrix are many times faster than convolutions are.
    """
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-0.5 * (offsets / WINDOW_SIGMA).square())
    weights = weights / weights.sum()
    band = torch.zeros(length - WINDOW + 1, length, dtype=torch.float64)
    for place, weight in enumerate(weights):
        band.diagonal(place).fill_(weight)
    return band.to(device)


def _check(a: Tensor, b: Tensor) -> None:
    assert a.dtype == b.dtype == torch.uint8, "PSNR and SSIM are defined here on stored bytes"
    if a.shape != b.shape:
        raise InputError(
            f"images of {list(a.shape)} cannot be compared with images of {list(b.shape)} "
            "([number, channels, height, width]); make them alike first"
        )
