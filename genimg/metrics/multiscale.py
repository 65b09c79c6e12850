"""Structural similarity at several scales, MS-SSIM."""

import torch
from torch import Tensor

from genimg.metrics.fidelity import cropped, mean_similarity, refuse_smaller
from genimg.similarity import WINDOW

# of the scales, from the finest: Wang, Simoncelli, Bovik 2003
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SMALLEST = (WINDOW - 1) * 2 ** (len(WEIGHTS) - 1) + 1  # pixels: one window at the coarsest scale


def ms_ssim(a: Tensor, b: Tensor, crop: int = 0) -> Tensor:
    """Multi-scale structural similarity of each image: float64 [N], 0 to 1 (identical images).

    a, b: uint8, or float64 on the scale of 0 to 255, [N, C, H, W], on one device; H, W >= 161
    without `crop` pixels at each border. Eq. 7, Wang, Simoncelli, Bovik 2003: contrast and
    structure at five scales, luminance at the coarsest, by the window of SSIM; a mean that is
    negative counts as 0. Scales are halved by means of 2x2 pixels, of which an odd side repeats
    its last, as in the authors' program. Averaged over channels. In float64 and bounded memory:
    the halved images take as much as the bytes. Raises InputError if the shapes differ or the
    images are too small.
    """
    a, b = cropped(a, b, crop)
    refuse_smaller(a, SMALLEST, "MS-SSIM, of five scales,")
    x, y = a.flatten(0, 1), b.flatten(0, 1)
    *finer, coarsest = WEIGHTS
    similarity = torch.ones(len(x), dtype=torch.float64, device=x.device)
    for weight in finer:
        similarity *= mean_similarity(x, y, luminance=False).clamp_(min=0).pow_(weight)
        x, y = _halved(x), _halved(y)
    similarity *= mean_similarity(x, y).clamp_(min=0).pow_(coarsest)
    return similarity.view(a.shape[:2]).mean(dim=1)


def _halved(planes: Tensor) -> Tensor:
    """[P, H, W] -> [P, H / 2, W / 2], rounded up: float64 of float64, else float32.

    In float32 the sixteen bits of bytes that were halved four times are exact.
    """
    kind = torch.float64 if planes.dtype == torch.float64 else torch.float32
    for dim in (1, 2):
        length = planes.shape[dim]
        places = torch.arange(0, length, 2, device=planes.device)
        first = planes.index_select(dim, places).to(kind)
        second = planes.index_select(dim, (places + 1).clamp_(max=length - 1))
        planes = first.add_(second).div_(2)
    return planes
