"""How close an image is to the one it should be: PSNR and SSIM, for bytes as they are stored."""

import torch
from torch import Tensor

from genimg.errors import InputError

PEAK = 255.0
WINDOW = 11  # pixels, Wang et al. 2004, section III.B
WINDOW_SIGMA = 1.5
C1 = (0.01 * PEAK) ** 2
C2 = (0.03 * PEAK) ** 2

_BYTES = 2**22  # compared at a time: bounds the memory of the differences
_ROWS = 32  # of means a strip: a strip of a photo stays in a processor's cache
_MEANS = 2**17  # a strip, at most, where there are many planes or rows are long


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
    the image, and over channels. Computed in float64, strip by strip, in bounded memory. Raises
    InputError if the shapes differ or the images are too small.
    """
    _check(a, b)
    if min(a.shape[-2:]) < WINDOW:
        height, width = a.shape[-2:]
        raise InputError(
            f"images of {width}x{height}: SSIM needs {WINDOW}x{WINDOW} or more; use PSNR for these"
        )
    x, y = a.flatten(0, 1), b.flatten(0, 1)
    high, wide = a.shape[-2] - WINDOW + 1, a.shape[-1] - WINDOW + 1  # of the positions
    rows = max(1, min(_ROWS, high, _MEANS // wide))
    planes = max(1, _MEANS // (rows * wide))
    similarity = torch.cat(
        [
            sum(_strips(part, other, rows), torch.zeros(len(part), device=a.device).double())
            for part, other in zip(x.split(planes), y.split(planes), strict=True)
        ]
    )
    return similarity.reshape(a.shape[:2]).mean(dim=1) / (high * wide)


def _strips(x: Tensor, y: Tensor, rows: int) -> list[Tensor]:
    """For each strip of `rows` rows of windows: float64 [P], the sum of their similarities."""
    down = x.shape[-2] - WINDOW + 1
    return [
        _similarity(*(planes[:, top : top + rows + WINDOW - 1].double() for planes in (x, y)))
        for top in range(0, down, rows)
    ]


def _similarity(x: Tensor, y: Tensor) -> Tensor:
    """float64 [P, H, W] twice -> [P]: eq. 13, summed over all positions of the window.

    From the sum and the difference of the two, whose means and mean squares give all that the
    equation asks for by four window means instead of five.
    """
    total, difference = x + y, x - y
    means = _window_mean(torch.stack([total, difference, total.square(), difference.square()]))
    squares = means[:2].square()
    both, cross = squares[0] + squares[1], squares[0] - squares[1]  # 2 (mx² + my²), 4 mx my
    variances = means[2] + means[3] - both  # 2 (vx + vy)
    covariance = means[2] - means[3] - cross  # 4 cov
    luminance = (cross / 2 + C1) / (both / 2 + C1)
    contrast_structure = (covariance / 2 + C2) / (variances / 2 + C2)
    return (luminance * contrast_structure).sum(dim=(1, 2))


def _window_mean(planes: Tensor) -> Tensor:
    """float64 [..., H, W] -> [..., H - 10, W - 10]: Gaussian means, down the columns, then along.

    Down by a banded matrix: on CPUs a product is many times faster than a convolution in float64.
    """
    offsets = torch.arange(WINDOW, dtype=planes.dtype, device=planes.device) - WINDOW // 2
    weights = torch.exp(-0.5 * (offsets / WINDOW_SIGMA).square())
    weights = weights / weights.sum()
    down, along = (length - WINDOW + 1 for length in planes.shape[-2:])
    shift = torch.arange(planes.shape[-2], device=planes.device) - torch.arange(
        down, device=planes.device
    ).unsqueeze(1)
    band = torch.where((shift >= 0) & (shift < WINDOW), weights[shift.clamp(0, WINDOW - 1)], 0)
    columns = band @ planes
    out = columns.narrow(-1, WINDOW // 2, along) * weights[WINDOW // 2]
    for k in range(WINDOW // 2):  # the window is symmetric
        mirrored = columns.narrow(-1, k, along) + columns.narrow(-1, WINDOW - 1 - k, along)
        out.addcmul_(mirrored, weights[k])
    return out


def _check(a: Tensor, b: Tensor) -> None:
    assert a.dtype == b.dtype == torch.uint8, "PSNR and SSIM are defined here on stored bytes"
    if a.shape != b.shape:
        raise InputError(
            f"images of {list(a.shape)} cannot be compared with images of {list(b.shape)} "
            "([number, channels, height, width]); make them alike first"
        )
