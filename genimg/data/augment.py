"""Images varied for training, each its own way, as its key says, a batch at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from genimg.augmentations import Augmentation, Geometric, Mixing, Values, partners
from genimg.contracts import Stored
from genimg.data.columns import COLUMNS
from genimg.errors import InputError
from genimg.rng import fold, integers

if TYPE_CHECKING:
    from genimg.recipe import Recipe

_AUGMENT = int.from_bytes(b"augment")
_TRANSLATE = int.from_bytes(b"shifted")
_LISTED = int.from_bytes(b"listed")
LIT_ALIKE = ("image", "other", "frames")
"""Columns whose values change: what is learnt from, and not what an image should become."""


def augment(
    stored: Stored,
    keys: Tensor,
    kind: Literal["none", "flip", "dihedral"],
    translate: int = 0,
    augmentations: Sequence[Augmentation] = (),
    done: Tensor | None = None,
) -> Stored:
    """Images and what is beside them, each image turned and shifted as its key (int64 [N]) says.

    kind: flip: mirrored left to right or not; dihedral: one of the eight symmetries of the square,
        all equally likely. translate: see `shifted`. augmentations: of square images, see `varied`;
        they come last. done: float32 [N] in [0, 1], how much of what changes over the training lies
        behind; nothing, if not given. What is given is not changed. Raises InputError for dihedral
        on images that are not square.
    """
    made = stored if kind == "none" else symmetric(stored, keys, kind)
    made = shifted(made, keys, translate) if translate else made
    for place, augmentation in enumerate(augmentations):
        made = varied(made, fold(keys, _LISTED, place), augmentation, done)
    return made


def augmenting(recipe: Recipe) -> Callable[[Stored, Tensor, Tensor], Stored]:
    """What a Loader does to images of a recipe's data, and to what it wants beside them.

    Where images are mixed, labels become shares of classes for those methods that take them.
    """
    data, wants, burn_in = recipe.data, recipe.wants, recipe.train.burn_in * recipe.train.images
    mixing = any(isinstance(each, Mixing) for each in data.augmentations)
    classes = recipe.soft_classes if mixing else None

    def augmented(stored: Stored, keys: Tensor, seen: Tensor) -> Stored:
        if classes is not None and "label" in stored:
            stored = {**stored, "label": F.one_hot(stored["label"], classes).float()}
        done = (seen / burn_in).clamp_(max=1)
        made = augment(stored, keys, data.augment, data.translate, data.augmentations, done)
        return {column: values for column, values in made.items() if column in wants}

    return augmented


def varied(
    stored: Stored, keys: Tensor, augmentation: Augmentation, done: Tensor | None = None
) -> Stored:
    """One of a list, done to those images that it befalls, for keys int64 [N]; done: as above."""
    images = stored["image"]
    part = augmentation.part(torch.zeros(len(keys), device=keys.device) if done is None else done)
    if isinstance(augmentation, Geometric):
        warp = augmentation.warp(keys, images.shape[-1], part)
        made = {column: COLUMNS[column].warped(values, warp) for column, values in stored.items()}
    elif isinstance(augmentation, Mixing):
        mix = augmentation.mix(stored, keys, part)
        made = {
            column: COLUMNS[column].mixed(values, partners(values), mix)
            for column, values in stored.items()
        }
    else:
        made = {
            column: changed(values, images.shape[1], keys, augmentation, part)
            if column in LIT_ALIKE
            else values
            for column, values in stored.items()
        }
    if augmentation.probability == 1 and augmentation.constant:
        return made
    befallen = augmentation.befallen(keys) & (part > 0)
    return {
        column: torch.where(befallen.view(-1, *[1] * (values.dim() - 1)), made[column], values)
        for column, values in stored.items()
    }


def changed(
    values: Tensor, channels: int, keys: Tensor, augmentation: Values, part: Tensor
) -> Tensor:
    """Pictures uint8 [N, T * C, H, W], the T of each alike, for keys int64 [N]."""
    pictures = values.unflatten(1, (-1, channels)).flatten(0, 1)
    each = len(pictures) // max(1, len(values))
    keys, part = keys.repeat_interleave(each), part.repeat_interleave(each)
    made = augmentation.change(pictures.float(), keys, part)
    return made.round_().clamp_(0, 255).to(torch.uint8).view(values.shape)


def symmetric(stored: Stored, keys: Tensor, kind: Literal["flip", "dihedral"]) -> Stored:
    height, width = stored["image"].shape[-2:]
    if kind == "dihedral" and height != width:
        raise InputError(
            f"data.augment=dihedral: images of {width}x{height} are not square; "
            "use data.augment=flip"
        )
    symmetry = integers(fold(keys, _AUGMENT), 8)
    if kind == "flip":
        symmetry = symmetry & 1
    return {
        column: COLUMNS[column].turned(values, symmetry, (height, width))
        for column, values in stored.items()
    }


def shifted(stored: Stored, keys: Tensor, most: int) -> Stored:
    """Square images moved by -most to most pixels each way, all equally likely.

    What comes in at a border mirrors what lies behind it, the border's own pixels left out.
    """
    corners = integers(fold(keys, _TRANSLATE), 2 * most + 1, (2,))
    size = stored["image"].shape[-1]
    return {
        column: cut(reflected(values, most), corners, size)
        if COLUMNS[column].on_grid
        else COLUMNS[column].cropped(values, corners - most, size)
        for column, values in stored.items()
    }


def reflected(values: Tensor, border: int) -> Tensor:
    """[N, C, S, S] with `border` below S more lines on each side: PyTorch's own takes no bytes."""
    last = values.shape[-1] - 1
    places = torch.arange(-border, last + border + 1, device=values.device).abs()
    places = last - (last - places).abs()
    return values.index_select(2, places).index_select(3, places)


def cut(values: Tensor, corners: Tensor, size: int) -> Tensor:
    """[N, C, size, size] out of [N, C, H, W], each at its corner int64 [N, 2] (top, left)."""
    count, channels = values.shape[:2]
    image = torch.arange(count, device=values.device)[:, None, None]
    channel = torch.arange(channels, device=values.device)[:, None]
    line = corners[:, :1, None] + torch.arange(size, device=values.device)
    return values.unfold(3, size, 1)[image, channel, line, corners[:, 1:, None]]
