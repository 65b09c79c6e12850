"""Which side of a canary a request falls on."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace

from serving.requests import Request

LAST = 1.0  # the lot that no canary answers
_EDGE = 4096  # bytes at either end of a file that tell it from others


def lot_of(request: Request) -> float:
    """In [0, 1): below its share a canary answers. By what is asked for, where that says what comes
    of it, so that it is the same when it is asked for again; where a seed is drawn, by chance."""
    if request.lot is not None:
        return request.lot
    operation = request.operation
    seed = operation.option("seed", 0)
    if seed is not None and seed < 0 and not operation.option("seeds"):
        return random.random()
    asked = hashlib.sha256(f"{operation.name} {operation.model_dump_json()}".encode())
    for name, data in sorted(request.files.items()):
        asked.update(f" {name} {len(data)} ".encode())
        asked.update(data[:_EDGE] + data[-_EDGE:])
    return int.from_bytes(asked.digest()[:6]) / 2**48


def of_one_lot(requests: Sequence[Request], lot: float | None = None) -> list[Request]:
    """Requests that are answered together, and so by one side; lot: None: that of the first."""
    lot = lot_of(requests[0]) if lot is None else lot
    return [replace(request, lot=lot) for request in requests]
