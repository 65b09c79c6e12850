"""What lies deep in the holes of an image, where networks see nothing that is known around them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genimg.models.filling import refined

CELL = 4  # pixels of a side, of which there is one mean
REACH = 5  # cells around a known pixel within which nothing is deep
_BAND = 64  # rows of cells whose pixels are in memory as floats


class Deep(NamedTuple):
    """places: bool [H, W]; guess: like the image, [H, W, C], of use where these are."""

    places: np.ndarray
    guess: np.ndarray


def deep_in(image: np.ndarray, mask: np.ndarray) -> Deep | None:
    """Pixels of an image uint8 or uint16 [H, W, C] that are some 20 away from all that is known,
    and a smooth guess of them, by what is known anywhere; None where nothing lies so deep.

    mask: float32 [H, W], above 0 where nothing is known
    """
    known = mask <= 0
    height, width = known.shape
    cells = np.asarray(_cells(known[..., None]).any(axis=(1, 3)))[..., 0]
    near = F.max_pool2d(torch.from_numpy(cells)[None].float(), 2 * REACH + 1, 1, REACH)[0] > 0
    inside = ~near.numpy()
    if not (inside.any() and cells.any()):
        return None
    places = inside.repeat(CELL, 0).repeat(CELL, 1)[:height, :width]
    down, across = (_around(np.flatnonzero(inside.any(axis=axis))) for axis in (1, 0))
    few = continued(_sums(image, known))[:, down, across]
    most = float(np.iinfo(image.dtype).max)
    smooth = F.interpolate(few[None], scale_factor=CELL, mode="bilinear", align_corners=False)[0]
    levels = smooth.round_().clamp_(0, most).permute(1, 2, 0).numpy().astype(image.dtype)
    guess = np.zeros_like(image)
    target = guess[down.start * CELL : down.stop * CELL, across.start * CELL : across.stop * CELL]
    target[:] = levels[: target.shape[0], : target.shape[1]]
    return Deep(places, guess)


def continued(sums: Tensor) -> Tensor:
    """float32 [C, h, w]: what is known, continued smoothly over all cells.

    As genimg.models.filling does, but from a single mean on.

    sums: [C + 1, h, w], of each cell those of its known pixels, and how many there are
    """
    levels = [sums[None] / CELL**2]
    while max(levels[-1].shape[-2:]) > 1:
        pooled = F.avg_pool2d(levels[-1], 2, ceil_mode=True, count_include_pad=False)
        levels.append(pooled)
    return refined(levels, levels[-1][:, :-1] / levels[-1][:, -1:])[0]


def _sums(image: np.ndarray, known: np.ndarray) -> Tensor:
    """As `continued` takes them, a band of rows at a time."""
    bands = []
    for top in range(0, len(known), _BAND * CELL):
        share = known[top : top + _BAND * CELL, :, None].astype(np.float32)
        both = np.concatenate([image[top : top + _BAND * CELL] * share, share], axis=2)
        bands.append(_cells(both).sum(axis=(1, 3)))
    return torch.from_numpy(np.concatenate(bands)).permute(2, 0, 1)


def _cells(values: np.ndarray) -> np.ndarray:
    """[h, CELL, w, CELL, C] of [H, W, C], with zeros where the last cells are not full."""
    height, width, channels = values.shape
    values = np.pad(values, ((0, -height % CELL), (0, -width % CELL), (0, 0)))
    return values.reshape(-1, CELL, values.shape[1] // CELL, CELL, channels)


def _around(places: np.ndarray) -> slice:
    """From the first of ascending places to the last."""
    return slice(int(places[0]), int(places[-1]) + 1)
