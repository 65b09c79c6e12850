"""What frames would be if nothing moved, or all went on as it has: what predictions are beside."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 9  # pixels across, of the surroundings by which a pixel is found again
STILL = 1e-3  # squared error, a pixel of the way: a place further off must fit better by so much
FINE = 64  # pixels of a side that are looked for, at least; of larger frames not every one
_FARTHEST = 16  # a frame's side by this is how far a pixel may go from frame to frame, at least 2


def copy_last(frames: Tensor, count: int) -> Tensor:
    """[N, T, C, H, W] -> [N, count, C, H, W]: the last one again and again."""
    return frames[:, -1:].expand(-1, count, -1, -1, -1)


def constant_velocity(frames: Tensor, count: int) -> Tensor:
    """float32 [N, T, C, H, W] in [-1, 1] -> [N, count, C, H, W]: every pixel of the last frame goes
    on as it came from the one before.

    Where it came from is found by block matching (Jain & Jain 1981), to whole pixels. Behind what
    has moved is the median of the frame; where several pixels come together the brightest is seen.
    """
    last, before = frames[:, -1], frames[:, -2] if frames.shape[1] > 1 else frames[:, -1]
    down, right = displacements(before, last)
    moves = (down != 0) | (right != 0)
    behind = last.flatten(2).median(dim=2).values[..., None, None]
    still = torch.where(moves[:, None], behind, last)
    made = [splatted(last, still, moves, down * step, right * step) for step in range(1, count + 1)]
    return torch.stack(made, dim=1)


def displacements(before: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """int64 [N, H, W] twice: by how many pixels, down and to the right, each pixel of `last` has
    come since `before`, both [N, C, H, W].

    How far pixels go grows with the frame: all pixels at all places would take sixteenfold the time
    at twice the side. So of larger frames than FINE every second pixel is looked for, or every
    third, by blocks of such; those between go with it.
    """
    height, width = last.shape[-2:]
    reach = max(2, -(-min(height, width) // _FARTHEST) + 1)
    step = -(-min(height, width) // FINE)
    padded = F.pad(before, (reach,) * 4, mode="replicate")
    places = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]
    places.sort(key=lambda place: place[0] ** 2 + place[1] ** 2)  # of equal ones the nearest
    sought = last[..., ::step, ::step]
    best = torch.full_like(sought[:, 0], float("inf"))
    down = right = torch.zeros_like(best, dtype=torch.int64)
    for y, x in places:
        top, left = reach - y, reach - x
        moved = padded[..., top : top + height : step, left : left + width : step]
        error = (moved - sought).square().mean(dim=1, keepdim=True)
        cost = around(error) + STILL * (y * y + x * x) ** 0.5
        better = cost < best
        best = torch.where(better, cost, best)
        down, right = torch.where(better, y, down), torch.where(better, x, right)
    down, right = (each.repeat_interleave(step, 1) for each in (down, right))
    down, right = (each.repeat_interleave(step, 2) for each in (down, right))
    return down[:, :height, :width], right[:, :height, :width]


def around(errors: Tensor) -> Tensor:
    """[N, H, W]: means of [N, 1, H, W] over BLOCK x BLOCK pixels, across and then down."""
    half = BLOCK // 2
    rows = F.avg_pool2d(errors, (1, BLOCK), 1, (0, half), count_include_pad=False)
    return F.avg_pool2d(rows, (BLOCK, 1), 1, (half, 0), count_include_pad=False)[:, 0]


def splatted(last: Tensor, still: Tensor, moves: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """[N, C, H, W]: `still`, and over it the pixels of `last` that move, bool [N, H, W], each so
    far on; those that leave the frame are gone."""
    count, channels, height, width = last.shape
    y = torch.arange(height, device=last.device)[:, None] + down
    x = torch.arange(width, device=last.device) + right
    inside = moves & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    places = torch.where(inside, y * width + x, height * width)  # the others beyond the end
    places = places.flatten(1)[:, None].expand(-1, channels, -1)
    canvas = F.pad(torch.full_like(last, -float("inf")).flatten(2), (0, 1))
    canvas = canvas.scatter_reduce(2, places, last.flatten(2), "amax")[..., :-1]
    made = canvas.view(count, channels, height, width)
    return torch.where(made.isfinite(), made, still)
