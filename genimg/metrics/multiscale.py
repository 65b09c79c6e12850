"""Structural similarity at several scales, MS-SSIM."""

import torch
from torch import Tensor

from genimg.metrics.fidelity import cropped, mean_similarity, refuse_smaller
from genimg.rng import fold
from genimg.similarity import WINDOW

# of the scales, from the finest: Wang, Simoncelli, Bovik 2003
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

_PAIRS = int.from_bytes(b"pairs")


def smallest(scales: int) -> int:
    """Pixels a side that so many scales need: one window at the coarsest."""
    return (WINDOW - 1) * 2 ** (scales - 1) + 1


def scales_of(side: int) -> int:
    """How many of the five scales images have whose shorter side is of so many pixels.

    1 from 11 pixels on, 2 from 21 (28, 32), 3 from 41 (64), 4 from 81 (128), 5 from 161; 0 below.
    """
    return sum(side >= smallest(number) for number in range(1, len(WEIGHTS) + 1))


def ms_ssim(a: Tensor, b: Tensor, crop: int = 0, scales: int = len(WEIGHTS)) -> Tensor:
    """Multi-scale structural similarity of each image: float64 [N], 0 to 1 (identical images).

    a, b: uint8, or float64 on the scale of 0 to 255, [N, C, H, W], on one device; H, W >= 161
    without `crop` pixels at each border. Eq. 7, Wang, Simoncelli, Bovik 2003: contrast and
    structure at five scales, luminance at the coarsest, by the window of SSIM; a mean that is
    negative counts as 0. Scales are halved by means of 2x2 pixels, of which an odd side repeats
    its last, as in the authors' program. Averaged over channels. In float64 and bounded memory:
    the halved images take as much as the bytes. Raises InputError if the shapes differ or the
    images are too small.

    scales: fewer are for smaller images (see `scales_of`): the finest ones, whose weights then
    add up to 1; one alone is SSIM, whose mean is not below 0.
    """
    a, b = cropped(a, b, crop)
    number = {len(WEIGHTS): "five", 1: "one"}.get(scales, str(scales))
    refuse_smaller(a, smallest(scales), f"MS-SSIM, of {number} scale{'s' * (scales > 1)},")
    x, y = a.flatten(0, 1), b.flatten(0, 1)
    used = WEIGHTS[:scales]
    weights = used if scales == len(WEIGHTS) else [weight / sum(used) for weight in used]
    *finer, coarsest = weights
    similarity = torch.ones(len(x), dtype=torch.float64, device=x.device)
    for weight in finer:
        similarity *= mean_similarity(x, y, luminance=False).clamp_(min=0).pow_(weight)
        x, y = _halved(x), _halved(y)
    similarity *= mean_similarity(x, y).clamp_(min=0).pow_(coarsest)
    return similarity.view(a.shape[:2]).mean(dim=1)


def pairs_of(labels: Tensor, most: int, seed: int = 0) -> Tensor:
    """int64 [P, 2], P <= most: pairs of images of one class, of which no image is in two.

    labels: int64 [N]. Of every class by its share, drawn by the seed; alike on every device.
    Their mean MS-SSIM tells how much alike a class's images are (Odena, Olah, Shlens 2017,
    section 4.2).
    """
    labels = labels.cpu()
    drawn = fold(seed, _PAIRS, torch.arange(len(labels))).argsort(stable=True)
    order = drawn[labels[drawn].argsort(stable=True)]  # by class, shuffled in each
    ranked = labels[order]
    starts = torch.searchsorted(ranked, ranked)
    first = (torch.arange(len(order)) - starts) % 2 == 0
    whole = first[:-1] & (ranked[:-1] == ranked[1:])
    pairs = torch.stack([order[:-1][whole], order[1:][whole]], dim=1)
    return pairs[fold(seed, _PAIRS, pairs[:, 0]).argsort(stable=True)[:most]]


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
