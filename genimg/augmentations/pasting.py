"""Copy-paste: objects cut out of one image by their masks, and put into another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from genimg.augmentations.mixing import CAPTION, Mix, Mixing
from genimg.contracts import UNKNOWN, Stored
from genimg.ranges import word
from genimg.rng import fold, uniform


class CopyPaste(Mixing):
    """Some of the partner's objects lie over the image, where they were (Ghiasi et al. 2021).

    They are cut out along their masks, of which class 0 is the background; masks then show them, as
    the pixels do. Where there are boxes, an object is what the mask shows within its box: it comes
    with its box, and boxes that it covers in part shrink to what is still seen. That each pixel's
    object be known, objects that reach into one another's boxes are neither taken nor covered.
    Without boxes, all that an image shows of a class counts as one object.
    """

    kind: Literal["copy-paste"] = "copy-paste"
    """objects of another image, by its mask; class 0 is the background"""
    share: float = Field(0.5, gt=0, le=1)
    """of the other image's objects, each of them by chance"""

    refuses: ClassVar[Mapping[str, str]] = {
        "label": "an image's class does not say which objects there are",
        "frames": "what is pasted would not move",
        "text": CAPTION,
    }
    needs: ClassVar[tuple[str, ...]] = ("mask",)

    def mix(self, stored: Stored, others: Stored, keys: Tensor, part: Tensor) -> Mix:
        keys, chance = fold(keys, word("copy-paste")), (self.share * part)[:, None]
        mask = others["mask"][:, 0]
        shown = objects(mask)
        if "boxes" not in stored:
            taken = uniform(keys, (UNKNOWN + 1,)) < chance
            pasted = shown & taken.gather(1, mask.flatten(1).long()).view(mask.shape)
            return Mix(pasted[:, None].float())
        mine, theirs = stored["boxes"], others["boxes"]
        own = objects(stored["mask"][:, 0])
        kept = own & (layers(mine, crowded(own, mine), mask.shape[1:]) > 0)
        (there, _), (over, _) = extents(shown, theirs), extents(shown & kept, theirs)
        given = uniform(keys, theirs.shape[1:2]) < chance
        given &= (there > 0) & (over == 0) & ~crowded(shown, theirs)
        room = mine.shape[1] - (mine[..., 0] >= 0).sum(dim=1, keepdim=True)
        given &= given.cumsum(dim=1) <= room
        pasted = shown & (layers(theirs, given, mask.shape[1:]) > 0)
        return Mix(pasted[:, None].float(), given=given, objects=own)


def objects(masks: Tensor) -> Tensor:
    """bool [N, H, W], where masks uint8 [N, H, W] show something else than background."""
    return (masks > 0) & (masks < UNKNOWN)


def crowded(shown: Tensor, boxes: Tensor) -> Tensor:
    """bool [N, K]: which boxes [N, K, 5] share some of what is shown, bool [N, H, W]."""
    several = shown & (layers(boxes, boxes[..., 0] >= 0, shown.shape[1:]) > 1)
    return extents(several, boxes)[0] > 0


def layers(boxes: Tensor, of: Tensor, size: torch.Size) -> Tensor:
    """float32 [N, H, W]: how many of boxes [N, K, 5] each pixel is in; of: bool [N, K], which."""
    down, across = spans(boxes, size)
    return (down & of[..., None]).float().mT @ across.float()


def spans(boxes: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
    """bool [N, K, H] and [N, K, W]: the rows and columns whose middles are in boxes [N, K, 5]."""
    height, width = (torch.arange(length, device=boxes.device) + 0.5 for length in size)
    x0, y0, x1, y1 = boxes[..., 1:, None].unbind(dim=2)
    return (y0 <= height) & (height < y1), (x0 <= width) & (width < x1)


def extents(shown: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """How much of what is shown, bool [N, H, W], each of boxes [N, K, 5] has in it.

    -> pixels float32 [N, K], and x0, y0, x1, y1 float32 [N, K, 4] around them; zeros without any
    """
    down, across = spans(boxes, shown.shape[1:])
    pixels = shown.float()
    by_column = (down.float() @ pixels) * across  # [N, K, W], how many in each
    by_row = (across.float() @ pixels.mT) * down
    x0, x1 = ends(by_column > 0)
    y0, y1 = ends(by_row > 0)
    count = by_column.sum(dim=2)
    return count, torch.stack([x0, y0, x1, y1], dim=-1) * (count > 0)[..., None]


def ends(taken: Tensor) -> tuple[Tensor, Tensor]:
    """Of bool [N, K, L] along the last: the first place and the one behind the last, [N, K]."""
    length = taken.shape[-1]
    place = torch.arange(length, device=taken.device)
    low = torch.where(taken, place, length).amin(dim=-1)
    return low, torch.where(taken, place + 1, 0).amax(dim=-1)
