"""What translators learn: how images of both kinds come of what there is of an image."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genimg.contracts import Rows
from genimg.degradations.light import luma
from genimg.masks import palette

NIGHT = (0.2, 0.3, 0.55)  # what is left of red, green and blue
DUSK = 1.5  # exponent: what is dark by day is darker still

Side = Callable[[Rows], Tensor]


class Task(NamedTuple):
    """From images of one kind to those of another.

    wants: columns that both are made of
    first, second: rows -> images float32 [N, C, H, W] in [-1, 1]
    paired: whether a row has both of a pair
    """

    wants: tuple[str, ...]
    first: Side
    second: Side
    paired: bool = True


def image(rows: Rows) -> Tensor:
    return rows["image"]


def coloured(rows: Rows) -> Tensor:
    """Masks as pictures [N, 3, H, W]: classes in the colours of PASCAL VOC's palette."""
    return colours(rows["mask"].device)[rows["mask"]].permute(0, 3, 1, 2)


@cache
def colours(device: torch.device) -> Tensor:
    """float32 [256, 3] in [-1, 1]"""
    return torch.from_numpy(palette()).to(device).float().div(127.5).sub(1)


def gray(rows: Rows) -> Tensor:
    """Without colour: all channels are the luma of BT.601."""
    return luma(rows["image"]).expand_as(rows["image"]).contiguous()


def night(rows: Rows) -> Tensor:
    """Dark and blue, as films show it that are shot by day."""
    value = rows["image"].add(1).div_(2).clamp_(0, 1).pow_(DUSK)
    left = NIGHT if value.shape[1] == 3 else NIGHT[1:2]
    channels = [plane * part for plane, part in zip(value.split(1, dim=1), left, strict=True)]
    return torch.cat(channels, dim=1).mul_(2).sub_(1)


def mirrored(rows: Rows) -> Tensor:
    """Left to right."""
    return rows["image"].flip(-1)


def thickened(rows: Rows) -> Tensor:
    """What is light is a pixel larger all around: the maximum of 3 x 3."""
    return F.max_pool2d(rows["image"], 3, stride=1, padding=1)


TASKS: Mapping[str, Task] = {
    "pairs": Task(("image", "target"), image, lambda rows: rows["target"]),
    "folders": Task(("image", "other"), image, lambda rows: rows["other"], paired=False),
    "masks": Task(("image", "mask"), coloured, image),
    "gray": Task(("image",), gray, image),
    "night": Task(("image",), image, night),
    "mirrored": Task(("image",), image, mirrored),
    "thickened": Task(("image",), image, thickened),
}
