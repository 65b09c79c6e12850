"""What the rooms of the library promise one another: batches, datasets, synchronisation."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

UNKNOWN = 255  # the value of a mask's pixels of which nobody knows, as in PASCAL VOC


class Rows(TypedDict, total=False):
    """N things of named kinds: a batch of training, the input of a network's pass, its output."""

    image: Tensor  # float32 [N, C, H, W] in [-1, 1]
    target: Tensor  # likewise: what `image` should become
    other: Tensor  # likewise: an image of another kind, no pair of it
    mask: Tensor  # int64 [N, H, W]: a class a pixel, UNKNOWN where nobody knows; 1: to be filled
    label: Tensor  # int64 [N]; of mixed images float32 [N, classes], the share of each
    text: Tensor  # int64 [N, T] tokens: UTF-8 bytes + 1, 0 behind the last
    boxes: Tensor  # float32 [N, K, 5]: class (-1: none), x0, y0, x1, y1 in pixels
    frames: Tensor  # float32 [N, T, C, H, W] in [-1, 1]
    seed: Tensor  # int64 [N], of which an engine makes latents, of a whole pass at once
    truncation: Tensor  # float32 [N], factors on these
    latent: Tensor  # float32 [N, D]
    classes: Tensor  # float32 [N, K], how much of each class is wanted; zeros: none in particular
    second: Tensor  # float32 [N, D]: latents whose styles some layers take
    second_classes: Tensor  # float32 [N, K], of these
    layers: Tensor  # float32 [N, layers]: 1 for those that do, 0 for the others
    steps: Tensor  # int64 [N], of the way from latents to images; alike in a pass
    guidance: Tensor  # float32 [N], how strongly a class is insisted on; alike in a pass
    iterations: Tensor  # int64 [N], of a search for latents; alike in a pass
    begun: Tensor  # int64 [N], iterations or steps that are done already; alike in a pass
    moments: Tensor  # float32 [N, 2, D]: of the gradients, with which a search goes on; or means
    # and variances of features' channels
    weight: Tensor  # float32 [N, H, W], 0 to 1: how much pixels count where images are looked at
    change: Tensor  # float32 [N, 2, D]: factors on channels of features, and what is added to them
    back: Tensor  # int64 [N]: 1 for the way back, of networks that go both ways
    sigma: Tensor  # float32 [N], 0 to 255
    quality: Tensor  # float32 [N], 1 to 100, of JPEG
    scores: Tensor  # float32 [N, classes], probabilities; beside boxes [N, K]


@dataclass(frozen=True)
class Ability:
    """How a recipe's networks do one operation, a pass of rows at a time.

    compute: one pass: rows on the networks' device -> rows, row by row
    channels: of the images that go in or come out, 1 or 3
    conditions: options that it honours, of those that an operation offers some models only
    takes: the columns of a pass's input
    latent: dimensions of the latents that go in or come out
    side: pixels that images must have; None: any, so that large ones are computed in tiles
    fit: how an image of another size is brought to `side`
    margin: pixels of context that a pixel depends on, which tiles overlap by
    stride: sides and places of tiles are multiples of it
    scale: pixels out for a pixel in
    held: bytes in memory at once for each pixel of a tile, about; 0: untold, and tiles are small
    classes: names of what `scores` are of, or that may be asked for by `classes`
    masked: it takes masks in the colours of genimg.masks, of so many classes; 0: any image
    shares: how likely each of these is where none is asked for; empty: all alike
    vocabulary: words of texts that may be asked for, of which `words` are read at most
    grammar: of the texts that it has learnt from, where they have one
    read: what a text of it says; None for any other
    directions: what latents are moved by, float32 [D], for each step in a direction of a name
    layers: that take a style of their own, two at each resolution from 4 pixels on; 0: none do
    steps: of the way from latents to images, unless asked for; 1 where there are none
    frames: how many it goes by, and how many that follow it makes of them in a pass
    begins: whether frames may also be made of none
    alone: a pass takes long, so that it has rows of one plan only, and none is made to try it out
    """

    compute: Callable[[Rows], Rows]
    channels: Literal[1, 3]
    takes: tuple[str, ...] = ("image",)
    conditions: frozenset[str] = frozenset()
    latent: int = 0
    side: int | None = None
    fit: Literal["resize", "pad", "crop"] = "resize"
    margin: int = 0
    stride: int = 1
    scale: int = 1
    held: int = 0
    classes: tuple[str, ...] = ()
    masked: int = 0
    shares: tuple[float, ...] = ()
    vocabulary: tuple[str, ...] = ()
    words: int = 0
    grammar: str = ""
    read: Callable[[str], object] | None = None
    directions: Mapping[str, Tensor] = field(default_factory=dict)
    layers: int = 0
    steps: int = 1
    frames: tuple[int, int] = (0, 0)
    begins: bool = False
    alone: bool = False


class Plan(Protocol):
    """An operation on given inputs, cut into rows that may ride in any batch."""

    count: int  # rows
    pixels: int  # of an image in a row: bounds the rows of a pass
    steps: int  # in a pass, each of which takes its networks' time: others may not wait for many

    def lap(self, row: int) -> tuple[Hashable, int]:
        """(key, stop): rows from this one up to `stop` may share a pass, also with rows of other
        plans whose key is equal."""
        ...

    def rows(self, start: int, stop: int) -> Rows:
        """What goes into a pass, on the CPU."""
        ...

    def converted(self, made: Rows) -> Rows:
        """What a pass has made, as plans of its key keep it: once for all rows of the pass."""
        ...

    def put(self, start: int, made: Rows) -> None:
        """Keep what a pass has made of the rows from `start` on, converted; on any device."""
        ...

    def result(self) -> Any:
        """Once all rows are made: one of genimg.results."""
        ...


@dataclass(frozen=True)
class Batch:
    """One worker's part of a global batch, on the training device.

    rows:  the columns that the recipe wants
    keys:  int64 [N], one random key an image (see genimg.rng)
    total: images in the global batch, over all workers together
    """

    rows: Rows
    keys: Tensor
    total: int

    @property
    def share(self) -> float:
        """This worker's part of the global batch; those of all workers add up to 1."""
        return len(self.keys) / self.total


@dataclass(frozen=True)
class Division:
    """How a layer that computes with the whole of a global batch sees past its worker's share.

    A module with an attribute `division` is given one for each step that several workers share.

    share: this worker's part; those of all workers add up to 1
    mean:  values -> their share-weighted mean over the workers, without gradients
    """

    share: float
    mean: Callable[[Tensor], Tensor]


Stored = dict[str, Tensor]
"""N things as data, column by column: small, and not yet what networks take.

image, target, other: uint8 [N, C, H, W]; mask: uint8 [N, 1, H, W]; label: int64 [N] (of mixed
images float32 [N, classes]); text: uint8 [N, T]; boxes: float32 [N, K, 5];
frames: uint8 [N, T * C, H, W]. genimg.data.columns makes Rows of it.
"""


class Dataset(Protocol):
    """Images addressed by index, and the order in which an endless training asks for them.

    Every image comes out as `channels` x `size` x `size`, however it is stored, except from
    `whole`, which gives it as it is; what it has beside it follows.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        """What `fetch` gives of each image: the columns that it was opened with."""
        ...

    @property
    def channels(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def device(self) -> torch.device | None:
        """Where its pixels are, and `fetch` wants its keys; None: it draws where the keys are."""
        ...

    @property
    def at_hand(self) -> bool:
        """Whether `fetch` reads and decodes nothing: pixels are in memory, or drawn."""
        ...

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the classes that label, mask and boxes count, by column, where they are known.

        With labels those of `label`, whether or not `fetch` gives them.
        """
        ...

    @property
    def fingerprint(self) -> str:
        """Changes when the content does, or the rule by which images are held out."""
        ...

    def __len__(self) -> int: ...

    def locate(self, positions: np.ndarray, seed: int, batch_size: int) -> np.ndarray:
        """int64 indices of the images at int64 `positions` of the endless seeded order.

        Within each epoch (len(self) positions) every index comes once. A set that is streamed
        lets neighbouring places of a batch, which one worker takes, read from the same place.
        """
        ...

    def fetch(self, indices: np.ndarray, keys: Tensor) -> Stored:
        """`columns` of the images at int64 `indices`, size x size.

        `keys` (int64 [N]) decide random crops, where the data is cropped.
        """
        ...

    def whole(self, index: int) -> Stored:
        """`columns` of one image before any crop to `size`; image uint8 [C, H, W] and so on."""
        ...

    def name(self, index: int) -> str:
        """What a person calls an image: its file's name, or its number."""
        ...

    def choose(self, count: int) -> np.ndarray:
        """int64 indices, ascending, of `count` images that stand for all; all if there are fewer.

        Seeded, each class by its share; the same in every process. What evaluations look at.
        """
        ...


class Splittable(Dataset, Protocol):
    """A dataset that can keep some images out of training."""

    def hold_out(self, count: int) -> tuple[Self, Self]:
        """(what is left, the `count` held-out images), the same ones for every training."""
        ...


class Sync(Protocol):
    """How the workers of one training agree. Every call is made by all workers, in step."""

    rank: int
    world: int

    def gradients(self, parameters: Iterable[nn.Parameter], share: float) -> None:
        """Replace each .grad by the workers' sum, weighted by their shares of the batch."""
        ...

    def mean(self, values: Tensor, share: float) -> Tensor:
        """The share-weighted mean of `values` over the workers (without gradients)."""
        ...

    def gather(self, rows: Tensor) -> Tensor:
        """The workers' rows [N, ...] one after the other, by rank; their numbers may differ."""
        ...

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor, in place, by that of rank 0, bit for bit."""
        ...
