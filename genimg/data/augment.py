"""Symmetries of images, each image its own, decided by its key and applied to the whole batch."""

from typing import Literal

from torch import Tensor

from genimg.contracts import Stored
from genimg.data.columns import COLUMNS
from genimg.errors import InputError
from genimg.rng import fold, integers

_AUGMENT = int.from_bytes(b"augment")


def augment(stored: Stored, keys: Tensor, kind: Literal["none", "flip", "dihedral"]) -> Stored:
    """Images and what is beside them, each image turned as its key (int64 [N]) says.

    flip: mirrored left to right or not; dihedral: one of the eight symmetries of the square, all
    equally likely. What is given is not changed. Raises InputError for dihedral on images that
    are not square.
    """
    if kind == "none":
        return stored
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
