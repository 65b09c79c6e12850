"""Copy-paste: objects cut out of one image by their masks, and put into another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field
from torch import Tensor

from genimg.augmentations.mixing import CAPTION, Mix, Mixing, partners
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

    def mix(self, stored: Stored, keys: Tensor, part: Tensor) -> Mix:
        keys, chance = fold(keys, word("copy-paste")), (self.share * part)[:, None]
        masks = stored["mask"][:, 0]
        shown = (masks > 0) & (masks < UNKNOWN)
        if "boxes" not in stored:
            taken = uniform(keys, (UNKNOWN + 1,)) < chance
            kinds = partners(masks)
            pasted = partners(shown) & taken.gather(1, kinds.flatten(1).long()).view(kinds.shape)
            return Mix(pasted[:, None].float())
        places = Places.of(stored["boxes"], masks.shape[1:])
        crowded = places.pixels(shown & (places.cover() > 1)) > 0
        whole = (places.pixels(shown) > 0) & ~crowded
        kept = shown & (places.cover(crowded) > 0)
        theirs = Places(*map(partners, places))
        given = (uniform(keys, whole.shape[1:]) < chance) & partners(whole)
        given &= theirs.pixels(partners(shown) & kept) == 0
        room = (stored["boxes"][..., 0] < 0).sum(dim=1, keepdim=True)
        given &= given.cumsum(dim=1) <= room
        pasted = partners(shown) & (theirs.cover(given) > 0)
        return Mix(pasted[:, None].float(), given=given, objects=shown)


class Places(NamedTuple):
    """Where K boxes of N images are: the rows and columns of pixels whose middles are in them.

    Boxes that there are not are empty. Pixels in them are counted by products of matrices: there is
    nothing of the size of all boxes times all pixels.
    """

    down: Tensor  # float32 [N, K, H], 1 or 0
    across: Tensor  # float32 [N, K, W]

    @classmethod
    def of(cls, boxes: Tensor, size: torch.Size) -> Self:
        """Of boxes float32 [N, K, 5] on images of a height and a width."""
        y, x = (torch.arange(length, device=boxes.device) + 0.5 for length in size)
        x0, y0, x1, y1 = boxes[..., 1:, None].unbind(dim=2)
        return cls(((y0 <= y) & (y < y1)).float(), ((x0 <= x) & (x < x1)).float())

    def cover(self, of: Tensor | None = None) -> Tensor:
        """float32 [N, H, W]: how many boxes each pixel is in; of: bool [N, K], of which ones."""
        down = self.down if of is None else self.down * of[..., None]
        return down.mT @ self.across

    def pixels(self, shown: Tensor) -> Tensor:
        """float32 [N, K]: how many pixels of those shown, bool [N, H, W], each box has in it."""
        return ((self.down @ shown.float()) * self.across).sum(dim=2)

    def around(self, shown: Tensor) -> Tensor:
        """float32 [N, K, 4]: x0, y0, x1, y1 around what each box has of what is shown in it, bool
        [N, H, W]; zeros where there is nothing."""
        seen = shown.float()
        (x0, x1), (y0, y1) = (
            ends((along @ each > 0) & (other > 0))
            for along, each, other in (
                (self.down, seen, self.across),
                (self.across, seen.mT, self.down),
            )
        )
        return torch.stack([x0, y0, x1, y1], dim=-1) * (x1 > 0)[..., None]


def ends(taken: Tensor) -> tuple[Tensor, Tensor]:
    """Of bool [..., L]: float32, the first place along it that is taken, and the one behind the
    last; L and 0 where none is."""
    length = taken.shape[-1]
    place = torch.arange(length, device=taken.device, dtype=torch.float32)
    low = length - (taken * (length - place)).amax(dim=-1)
    return low, (taken * (place + 1)).amax(dim=-1)
