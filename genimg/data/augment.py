"""Symmetries of images, each image its own, decided by its key and applied to the whole batch."""

from typing import Literal

import torch
from torch import Tensor

from genimg.errors import InputError
from genimg.rng import fold, integers

_AUGMENT = int.from_bytes(b"augment")


def augment(images: Tensor, keys: Tensor, kind: Literal["none", "flip", "dihedral"]) -> Tensor:
    """Images of any dtype [N, C, H, W], each turned as its key (int64 [N]) says.

    flip: mirrored left to right or not; dihedral: one of the eight symmetries of the square, all
    equally likely. The images given are not changed. Raises InputError for dihedral on images
    that are not square.
    """
    if kind == "none":
        return images
    symmetry = integers(fold(keys, _AUGMENT), 8)[:, None, None, None]
    mirrored = torch.where(symmetry & 1 > 0, images.flip(-1), images)
    if kind == "flip":
        return mirrored
    height, width = images.shape[-2:]
    if height != width:
        raise InputError(
            f"data.augment=dihedral: images of {width}x{height} are not square; "
            "use data.augment=flip"
        )
    # two mirrors and a transposition: their eight combinations are the symmetries of the square
    mirrored = torch.where(symmetry & 2 > 0, mirrored.flip(-2), mirrored)
    return torch.where(symmetry & 4 > 0, mirrored.transpose(-1, -2), mirrored)
