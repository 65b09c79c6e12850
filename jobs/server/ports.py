"""Ports of this machine: which are taken, and where there is room for a server's."""

from __future__ import annotations

import random
import socket

BLOCK = 100  # ports of a server: three that are always used, the others for replicas
# Ray gives none anew before 150 s, and passes over what others listen on: many replicas, or those
# that end again and again, go on in the next blocks.
MOST = 10 * BLOCK


def free_block() -> int:
    """The first of a hundred ports, on the first three of which nobody listens.

    They, and MOST from there on, are between those of Ray's workers and those that the kernel gives
    to clients.
    """
    starts = list(range(20_000, 32_000 - MOST, BLOCK))
    random.shuffle(starts)
    return next(start for start in starts if not any(refusal_at("", start + i) for i in range(3)))


def refusal_at(host: str, port: int) -> str | None:
    """Why an address cannot be listened on; None if it can."""
    try:
        with socket.create_server((host, port)):
            return None
    except OSError as error:
        return (error.strerror or str(error)).partition(" (while")[0]
