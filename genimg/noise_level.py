"""How noisy an image is, told from the image alone: white Gaussian noise, blindly measured.

Chen, Zhu, Heng 2015, "An Efficient Statistical Method for Image Noise Level Estimation", on those
patches that are as flat as noise alone would leave them: Liu, Tanaka, Okutomi 2013, "Single-Image
Noise Level Estimation for Blind Denoising". The first alone reads texture as noise. Patches that
reach black or white do not count, where there are enough others: noise was cut off there, or never
was, as in a frame around an image or beneath what is transparent.
"""

import numpy as np
import torch
from torch import Tensor

MOST_PATCHES = 16_384  # a plane; more do not sharpen the estimate
VALUES_AT_ONCE = 2**23  # float64 patch values in memory at a time: 64 MB, and twice as many copies
ROUNDS = 3  # of choosing flat patches by the last estimate
DEVIATIONS = 3.0  # how far above pure noise a patch's texture may lie and still count as flat
FEWEST = 4  # flat patches for each pixel of a patch, below which they would not tell


def estimate_sigma(images: Tensor, peak: float | None = None) -> Tensor:
    """Standard deviation of white Gaussian noise, float32 [N], in steps of 0..255.

    images: float32 [N, C, H, W] in [-1, 1], noise may exceed it, or numbers of any type from 0 to
    `peak`; the channels' estimates are averaged. Computes in float64; memory does not grow with
    the image, of which a large one is sampled on a grid. Correlated noise (images enlarged or
    compressed afterwards) is judged too low. On 32x32 images errors of 1 to 2 are common; below
    8x8 there are too few patches to tell,
    and the estimate falls to 0.
    """
    planes = images.flatten(0, 1)
    height, width = planes.shape[-2:]
    size = _patch_size(min(height, width))
    stride = _stride(height - size + 1, width - size + 1)
    patches = planes.unfold(1, size, stride).unfold(2, size, stride)  # a view [N C, h, w, s, s]
    at_once = max(1, VALUES_AT_ONCE // patches[0].numel())
    ends = (-1, 1) if peak is None else (0, peak)
    variance = torch.cat([_variance(part, ends) for part in patches.split(at_once)])
    span = ends[1] - ends[0]
    return (variance.sqrt() * (255 / span)).reshape(images.shape[:2]).mean(dim=1).float()


def sigma_of(image: np.ndarray) -> float:
    """That of one image uint8 or uint16 [H, W, 1 to 4]; the last channel of 2 or 4 is alpha."""
    colour = image[..., : image.shape[2] - (image.shape[2] in (2, 4))]
    peak = int(np.iinfo(image.dtype).max)
    planes = torch.from_numpy(colour).permute(2, 0, 1)
    return float(estimate_sigma(planes[None], peak))


def _patch_size(side: int) -> int:
    """8 as in the paper; smaller where an image would give too few patches for the covariance."""
    return 8 if side >= 64 else 5 if side >= 28 else min(3, side)


def _stride(rows: int, columns: int) -> int:
    """The smallest step at which a grid of rows x columns patches is no more than MOST_PATCHES."""
    stride = 1
    while -(-rows // stride) * -(-columns // stride) > MOST_PATCHES:
        stride += 1
    return stride


def _variance(windows: Tensor, ends: tuple[float, float]) -> Tensor:
    """Noise variance, float64 [B], of planes' patches [B, h, w, s, s]. ends: black and white"""
    size = windows.shape[-1]
    fewest = FEWEST * size**2
    squares = windows.flatten(1, 2)  # [B, n, s, s]
    cut_off = ((squares == ends[0]) | (squares == ends[1])).flatten(2).any(dim=2)
    telling = (~cut_off).double()  # [B, n]
    telling[telling.sum(dim=1) < fewest] = 1
    squares = squares.double()
    squares = squares - squares.mean(dim=1, keepdim=True)  # or what follows rounds more
    across, down = (squares.diff(dim=dim).square().sum(dim=(2, 3)) for dim in (3, 2))
    texture = across + down  # [B, n]
    patches = squares.flatten(2)
    form = _texture_form(size, patches.device)
    # mean and standard deviation of x' F x for white noise of variance 1: tr F, sqrt(2 tr F^2)
    limit = form.trace() + DEVIATIONS * (2 * form.square().sum()).sqrt()

    variance = _median_mean(_covariance(patches, telling))
    for _ in range(ROUNDS):
        flat = (texture <= limit * variance[:, None]) * telling
        enough = flat.sum(dim=1) >= fewest
        weights = torch.where(enough[:, None], flat, 1.0)
        variance = torch.where(enough, _median_mean(_covariance(patches, weights)), variance)
    return variance


def _texture_form(size: int, device: torch.device) -> Tensor:
    """F [s s, s s] with x' F x = the sum of a patch's squared differences, across and down."""
    unit = torch.eye(size**2, dtype=torch.float64, device=device).unflatten(1, (size, size))
    across, down = unit.diff(dim=2).flatten(1), unit.diff(dim=1).flatten(1)
    return across @ across.T + down @ down.T


def _covariance(patches: Tensor, weights: Tensor) -> Tensor:
    """float64 [B, d, d] of patches [B, n, d], those of weight 1 among weights [B, n]."""
    count = weights.sum(dim=1)[:, None, None]
    mean = weights[:, None] @ patches / count
    return (patches * weights[..., None]).mT @ patches / count - mean.mT @ mean


def _median_mean(covariance: Tensor) -> Tensor:
    """Noise variance [B] from the eigenvalues of covariances [B, d, d] (Chen et al., Algorithm 1).

    Noise adds its variance to all eigenvalues, an image to the largest only. So the largest are
    dropped, one at a time, until the mean of the rest is their median as well.
    """
    values = torch.linalg.eigvalsh(covariance).clamp(min=0)  # ascending
    count = torch.arange(1, values.shape[1] + 1, device=values.device)
    mean = values.cumsum(dim=1) / count  # of the smallest 1, 2, ... d
    kept = torch.ones_like(covariance, dtype=torch.bool).tril()
    above = (kept & (values[:, None] > mean[..., None])).sum(dim=2)
    below = (kept & (values[:, None] < mean[..., None])).sum(dim=2)
    largest = ((above == below) * count).argmax(dim=1)  # the smallest alone always qualifies
    return mean.gather(1, largest[:, None])[:, 0]
