"""Columns: the kinds of things that a set has of each image, and how each follows its image.

To add one: a class in genimg.data.grids or genimg.data.beside, a line in COLUMNS, and a way for
sources of files to carry it (genimg.data.listing; in Parquet it is the column of its name, and
genimg.data.scenes may draw it). Nothing in between names it.

A value goes through these forms:

    stored     as a shard, a folder or a JSON file has it: bytes of a file, a number, a text, a list
    value      decoded: an array of any size, an int, a string
    fitted     the value after its image was resized, padded, or left whole for crops
    row        the fitted value as an array whose size the recipe's data section decides
    Stored     rows in a tensor: what datasets keep, crop and turn, still small
    Rows       what networks take
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from torch import Tensor

from genimg.augmentations import Mix, Warp
from genimg.contracts import Stored
from genimg.data.beside import Boxes, Number, Words
from genimg.data.fitting import Fit, Place, placed, too_small
from genimg.data.grids import Classes, Clip, Encode, Pixels
from genimg.errors import InputError, listed, nearest
from genimg.images import BrokenImage, Channels


class Column(Protocol):
    """One kind of thing.

    stored:  type of a Parquet column
    kind:    type of a row
    on_grid: whether it has a value a pixel: then a value is uint8 [H, W, C] with its image's sides,
             a row uint8 [C, H, W], and crops are cut out of it
    classed: whether it counts classes
    remedy:  how a set comes by it, for messages
    """

    stored: pa.DataType
    kind: type[np.generic]
    on_grid: bool
    classed: bool
    remedy: str

    def accepts(self, kind: pa.DataType) -> bool:
        """Whether a Parquet column of that type can be read."""
        ...

    def decoded(self, stored: Any, channels: Channels | None = None) -> Any:
        """The value. channels: of pictures; None leaves theirs. Raises BrokenImage."""
        ...

    def encoded(self, value: Any, encode: Encode) -> Any:
        """What a shard stores of a value."""
        ...

    def highest(self, value: Any) -> int:
        """The highest class in a value, -1 without any."""
        ...

    def fitted(self, value: Any, place: Place) -> Any:
        """The value beside an image that was laid so."""
        ...

    def row(self, fitted: Any) -> np.ndarray:
        """The fitted value as `shape` and `kind` say, but for images that are yet to be cropped."""
        ...

    def shape(self, size: int, channels: int) -> tuple[int, ...]:
        """Of a row beside an image that networks see as channels x size x size."""
        ...

    def cropped(self, values: Tensor, corners: Tensor, size: int) -> Tensor:
        """Of Stored beside images of which size x size is cropped, at int64 corners [N, 2] (top,
        left). Those on a grid are cut as images are, see genimg.data.storage."""
        ...

    def turned(self, values: Tensor, symmetry: Tensor, size: tuple[int, int]) -> Tensor:
        """Stored, each with its image of (height, width) by a symmetry of the square, int64 [N].

        Its bits: 1 mirrored left to right, then 2 top to bottom, then 4 transposed.
        """
        ...

    def warped(self, values: Tensor, warp: Warp) -> Tensor:
        """Stored, each with its square image that is warped."""
        ...

    def mixed(self, values: Tensor, others: Tensor, mix: Mix) -> Tensor:
        """Stored, each with its image that is mixed with a partner, whose are the others. Only of
        columns that the augmentation does not refuse."""
        ...

    def ready(self, values: Tensor) -> Tensor:
        """Rows of Stored, on the same device."""
        ...


COLUMNS: dict[str, Column] = {
    "image": Pixels("put images into it"),
    "target": Pixels(
        "put the images into a folder input/ and what they should become, of equal names, into"
        " target/ beside it"
    ),
    "other": Pixels("put the images of each kind into a folder of its own, two in all"),
    "mask": Classes(),
    "label": Number(),
    "text": Words(),
    "boxes": Boxes(),
    "frames": Clip(),
}


def decoded(column: str, stored: Any, channels: Channels | None = None) -> Any:
    """The value of what a shard or a source has. Raises BrokenImage, also for nothing."""
    if stored is None:
        raise BrokenImage(f"has no {column}")
    return COLUMNS[column].decoded(stored, channels)


def agreed(values: Mapping[str, Any], classes: Mapping[str, tuple[str, ...]]) -> tuple[int, int]:
    """(height, width) of an image's values.

    Raises BrokenImage, without a name, where one has other sides than the image, or a class
    without a name where `classes` names that column's.
    """
    height, width = values["image"].shape[:2]
    for column, value in values.items():
        if COLUMNS[column].on_grid and value.shape[:2] != (height, width):
            high, wide = value.shape[:2]
            raise BrokenImage(f"its {column} is {wide}x{high}, but the image {width}x{height}")
        names = classes.get(column)
        if names is not None and (highest := COLUMNS[column].highest(value)) >= len(names):
            raise BrokenImage(f"its {column} has class {highest}, but only {len(names)} are named")
    return height, width


def fit_values(
    values: Mapping[str, Any],
    size: int,
    fit: Fit,
    name: Callable[[], str],
    classes: Mapping[str, tuple[str, ...]],
) -> dict[str, Any]:
    """An image's values as they lie beside it once it was fitted; crops are yet to be taken.

    Raises what `agreed` does, and InputError, naming the image, where it is too small to be
    cropped from.
    """
    height, width = agreed(values, classes)
    if fit == "crop" and min(height, width) < size:
        raise too_small((height, width), size, name())
    return follow(values, placed((height, width), size, fit))


def follow(values: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """An image's values, as they follow it to a place."""
    return {column: COLUMNS[column].fitted(value, place) for column, value in values.items()}


def refuse_missing(
    where: str, has: Iterable[str], wants: Iterable[str], remedy: str | None = None
) -> None:
    """InputError that says what a set has, what is wanted of it, and how to supply that, or the
    remedy where that cannot be."""
    missing = [column for column in wants if column not in has]
    if missing:
        there = [column for column in COLUMNS if column in has]
        ways = "; ".join(f"for {column}, {COLUMNS[column].remedy}" for column in missing)
        remedy = remedy or f"{ways}; or write a Parquet column of that name"
        raise InputError(f"{where}: has {listed(there)}, but wanted are {listed(wants)}; {remedy}")


def read_columns(text: str) -> tuple[str, ...]:
    """Columns by their names between commas, in our order; InputError for one that is not known.

    >>> read_columns("text, mask")
    ('image', 'mask', 'text')
    """
    names = {name.strip() for name in text.split(",")} | {"image"}
    for name in sorted(names - COLUMNS.keys()):
        raise InputError(f"column {name!r} is not known; {nearest(name, COLUMNS)}")
    return tuple(name for name in COLUMNS if name in names)


def ready(stored: Stored) -> dict[str, Tensor]:
    """Rows of Stored, on the same device."""
    return {column: COLUMNS[column].ready(values) for column, values in stored.items()}
