"""Procedural scenes: textured shapes on a background, endless, seeded, drawn in batches.

A scene is a pure function of its int64 key: the same key gives the same picture, bit for bit
whatever else is drawn beside it, and the same layout at every size.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from genimg import rng
from genimg.contracts import Stored
from genimg.data.beside import BOXES
from genimg.data.choice import balanced_choice
from genimg.data.columns import COLUMNS, refuse_missing
from genimg.data.grids import FRAMES
from genimg.data.layout import BACKDROPS, COLOURS, SLOTS, Layout, compose, retextured
from genimg.data.motion import moving
from genimg.data.painting import CPU, coverage, paint
from genimg.data.shapes import SHAPES
from genimg.data.textures import TEXTURES
from genimg.data.transfer import to_device
from genimg.errors import InputError, listed

VERSION = 1  # raise it with every change of what a key looks like, or of what is said of it
CHOSEN_FROM = 4  # times as many scenes as are chosen
_SCENES = 0x5CE9E5  # keeps keys of scenes apart from all others made of the same seed


@dataclass(frozen=True)
class Annotations:
    """What N scenes show. Slot 0 is the main object: largest in area and never covered."""

    labels: Tensor  # int64 [N]: the shape of the main object
    captions: list[str]  # "a striped red star and a plain blue disc on a gradient background"
    masks: Tensor  # uint8 [N, H, W]: 0 background, k + 1 where the object in slot k is seen
    object_classes: Tensor  # int64 [N, SLOTS]: shapes, -1 where the slot is empty
    boxes: Tensor  # float32 [N, SLOTS, 4]: x0, y0, x1, y1 around what is seen, pixels; or zeros

    def class_masks(self) -> Tensor:
        """int64 [N, H, W]: 0 background, 1 + the shape's class elsewhere."""
        return by_class(self.masks, self.object_classes)


def render(keys: Tensor, size: int, channels: int, simple: bool = False) -> Tensor:
    """Draw scenes: uint8 [N, channels, size, size], on the device of `keys` (int64 [N]).

    One channel is the luma of the three (ITU-R BT.601), to within rounding.
    """
    return paint(compose(keys.cpu(), simple), size, channels, keys.device)


def annotate(keys: Tensor, size: int, simple: bool = False) -> Annotations:
    """The truth about the scenes that `render` draws with the same keys and size, on the CPU."""
    layout = compose(keys.cpu(), simple)
    masks = slot_masks(layout, size)
    return Annotations(
        labels=layout.shapes[:, 0].clone(),
        captions=captions(layout),
        masks=masks,
        object_classes=layout.shapes,
        boxes=boxes(masks),
    )


def slot_masks(layout: Layout, size: int, device: torch.device = CPU) -> Tensor:
    """uint8 [N, size, size]: 0 background, k + 1 where the object in slot k is seen."""
    masks = torch.zeros(len(layout.shapes), size, size, dtype=torch.uint8, device=device)
    seen = coverage(layout, size, device) >= 0.5
    for slot in reversed(range(SLOTS)):
        masks.masked_fill_(seen[:, slot], slot + 1)
    return masks


def by_class(masks: Tensor, object_classes: Tensor) -> Tensor:
    """int64 [N, H, W] of masks by slots: 0 background, 1 + the class of the slot's object."""
    table = torch.nn.functional.pad(object_classes + 1, (1, 0))
    return table.gather(1, masks.flatten(1).long()).view(masks.shape)


def captions(layout: Layout) -> list[str]:
    """One sentence a scene, the main object first."""
    shapes, colours, textures = list(SHAPES), list(COLOURS), list(TEXTURES)
    sentences = []
    for kinds, hues, surfaces in zip(
        layout.shapes.tolist(), layout.colours.tolist(), layout.textures.tolist(), strict=True
    ):
        objects = [
            f"a {textures[surface]} {colours[hue]} {shapes[kind]}"
            for kind, hue, surface in zip(kinds, hues, surfaces, strict=False)
            if kind >= 0
        ]
        sentences.append(f"{listed(objects)} on a {BACKDROPS[surfaces[-1]]} background")
    return sentences


def boxes(masks: Tensor) -> Tensor:
    """float32 [N, SLOTS, 4]: tight around each slot's pixels of `masks`; zeros without any."""
    size = masks.shape[-1]
    slots = torch.arange(1, SLOTS + 1, dtype=torch.uint8, device=masks.device)
    mine = masks[:, None] == slots[:, None, None]
    index = torch.arange(size, device=masks.device)

    def extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
        low = torch.where(occupied, index, size).amin(-1)
        return low, torch.where(occupied, index + 1, 0).amax(-1)

    (x0, x1), (y0, y1) = extent(mine.any(-2)), extent(mine.any(-1))
    return torch.stack([x0, y0, x1, y1], -1) * (x1 > 0)[..., None].float()


def targets_drawn(layout: Layout, size: int, channels: int, device: torch.device) -> Tensor:
    """uint8 [N, channels, size, size]: the scenes in other textures."""
    return paint(retextured(layout), size, channels, device)


def labels_drawn(layout: Layout, size: int, channels: int, device: torch.device) -> Tensor:
    """int64 [N]: the class of the main object."""
    return to_device(layout.shapes[:, 0].clone(), device)


def masks_drawn(layout: Layout, size: int, channels: int, device: torch.device) -> Tensor:
    """uint8 [N, 1, size, size]: 0 background, 1 + the shape's class elsewhere."""
    kinds = to_device(layout.shapes, device)
    return by_class(slot_masks(layout, size, device), kinds)[:, None].to(torch.uint8)


def boxes_drawn(layout: Layout, size: int, channels: int, device: torch.device) -> Tensor:
    """float32 [N, BOXES, 5]: of the objects that are seen, each in the place of its slot."""
    return boxes_of(layout, layout.shapes, size, device)


def boxes_of(layout: Layout, kinds: Tensor, size: int, device: torch.device) -> Tensor:
    """As `boxes_drawn`, of classes int64 [N, SLOTS]."""
    corners = boxes(slot_masks(layout, size, device))
    seen = corners[..., 2] > corners[..., 0]
    kinds = torch.where(seen, to_device(kinds, device), -1)
    listed = torch.cat([kinds[..., None].float(), corners], dim=-1)
    none = torch.zeros(len(listed), BOXES - SLOTS, 5, device=device)
    none[..., 0] = -1
    return torch.cat([listed, none], dim=1)


def captions_drawn(layout: Layout, size: int, channels: int, device: torch.device) -> Tensor:
    """uint8 [N, T]: the sentences, as genimg.data.columns has texts."""
    return written(captions(layout), device)


def written(sentences: Iterable[str], device: torch.device) -> Tensor:
    """uint8 [N, T]: as genimg.data.columns has texts."""
    rows = [COLUMNS["text"].row(sentence) for sentence in sentences]
    return to_device(torch.from_numpy(np.stack(rows)), device)


def frames_drawn(layout: Layout, size: int, channels: int, device: torch.device) -> Tensor:
    """uint8 [N, FRAMES * channels, size, size]: as the scene moves on from its image."""
    frames = paint(moving(layout, FRAMES), size, channels, device)
    return frames.view(-1, FRAMES * channels, size, size)


Draw = Callable[[Layout, int, int, torch.device], Tensor]
"""(layout, size, channels, device) -> a column of scenes as it is stored."""

DRAWN: Mapping[str, Draw] = {
    "image": paint,
    "target": targets_drawn,
    "label": labels_drawn,
    "mask": masks_drawn,
    "boxes": boxes_drawn,
    "text": captions_drawn,
    "frames": frames_drawn,
}
"""How each column of scenes is drawn."""

WORDS = tuple(sorted({"a", "and", "background", "on", *SHAPES, *COLOURS, *TEXTURES, *BACKDROPS}))
"""Those of captions."""


class Scenes:
    """Scenes as a genimg.contracts.Dataset: image `index` is scene `start + index` of `seed`.

    Without a bound there is no end: `length` is then only what counts as an epoch, and every
    position is a new scene, whatever the training's seed. A bounded set repeats its `length`
    scenes in order. Images are drawn on the device of the keys given to `fetch`.

    Masks count the background and the shapes, boxes and labels (of the main object) the shapes.
    """

    classes: Mapping[str, tuple[str, ...]] = {
        "label": tuple(SHAPES),
        "mask": ("background", *SHAPES),
        "boxes": tuple(SHAPES),
        "text": WORDS,
    }
    drawn: ClassVar[Mapping[str, Draw]] = DRAWN
    device: torch.device | None = None

    def __init__(
        self,
        size: int,
        channels: int,
        columns: tuple[str, ...] = ("image",),
        *,
        seed: int = 0,
        start: int = 0,
        length: int = 60_000,
        bounded: bool = False,
        simple: bool = False,
    ) -> None:
        if size < 8:
            raise InputError(f"data.size={size}: scenes are at least 8 pixels wide")
        if channels not in (1, 3):
            raise InputError(f"data.channels={channels}: scenes have 1 (gray) or 3 (RGB)")
        refuse_missing("scenes", self.drawn, columns)
        self.size, self.channels, self.columns, self.seed = size, channels, columns, seed
        self.start, self.length, self.bounded, self.simple = start, length, bounded, simple

    @property
    def kind(self) -> str:
        """Which keys are what scenes, for the fingerprint."""
        return "simple scenes" if self.simple else "scenes"

    @property
    def fingerprint(self) -> str:
        length = self.length if self.bounded else "endless"
        what = (self.kind, VERSION, self.size, self.channels, self.seed, self.start, length)
        return hashlib.sha256(repr(what).encode()).hexdigest()

    def laid_out(self, keys: Tensor) -> Layout:
        """The scenes of keys int64 [N]."""
        return compose(keys, self.simple)

    def __len__(self) -> int:
        return self.length

    @property
    def at_hand(self) -> bool:
        return True

    def locate(self, positions: np.ndarray, seed: int, batch_size: int) -> np.ndarray:
        return positions % self.length if self.bounded else positions

    def scene_keys(self, indices: np.ndarray) -> Tensor:
        """int64 [N]: what `render` and `annotate` take for images of this set."""
        return rng.fold(self.seed, _SCENES, torch.from_numpy(indices + self.start))

    def fetch(self, indices: np.ndarray, keys: Tensor) -> Stored:
        return self._drawn(self.laid_out(self.scene_keys(indices)), keys.device)

    def name(self, index: int) -> str:
        return f"{index:06d}"

    def whole(self, index: int) -> Stored:
        scene = self._drawn(self.laid_out(self.scene_keys(np.array([index]))), CPU)
        return {name: column[0] for name, column in scene.items()}

    def _drawn(self, layout: Layout, device: torch.device) -> Stored:
        return {
            name: self.drawn[name](layout, self.size, self.channels, device)
            for name in self.columns
        }

    def choose(self, count: int) -> np.ndarray:
        """int64 indices, ascending, of `count` scenes of the set: see balanced_choice.

        From the first few times as many, which are as good as all; laying them out is cheap.
        """
        few = min(self.length, CHOSEN_FROM * count)
        keys = self.scene_keys(np.arange(few)).split(4096)
        labels = torch.cat([self.laid_out(part).shapes[:, 0] for part in keys])
        return balanced_choice(min(count, few), few, labels.numpy())

    def hold_out(self, count: int) -> tuple[Self, Self]:
        """(what is left to train on, the first `count` scenes), which have no index in common."""
        if self.bounded and not count < self.length:
            raise InputError(f"data.holdout={count}: must be below {self.length}, all there are")
        rest, held = copy.copy(self), copy.copy(self)
        rest.start += count
        if self.bounded:
            rest.length -= count
        held.length, held.bounded = count, True
        return rest, held
