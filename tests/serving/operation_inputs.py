"""Inputs of operations as requests carry them."""

import io

import numpy as np
from live_server import file_of

from genimg import moving
from genimg.operations import Kind


def sent(kind: Kind, given: np.ndarray) -> bytes:
    """An input as a file."""
    if kind in (Kind.PICTURE, Kind.MASK):
        return file_of(np.squeeze(given))
    if kind is Kind.FRAMES:
        return moving.encode(given)
    out = io.BytesIO()
    np.save(out, given)
    return out.getvalue()
