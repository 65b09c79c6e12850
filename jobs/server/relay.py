"""Lines that other processes of this machine write, on this command's standard output."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHUNK = 65_536


@contextmanager
def relayed() -> Iterator[str]:
    """The path of a pipe, of which all that is written to it within the block comes out here.

    Ray gives its processes no output that is ours. Nobody waits for whoever reads ours: what the
    pipe has no room for is lost.
    """
    with tempfile.TemporaryDirectory(prefix="gl") as folder:
        path = f"{folder}/lines"
        os.mkfifo(path, 0o600)
        pipe = os.open(path, os.O_RDWR)  # so that it does not end with those who write

        def relay() -> None:
            with suppress(OSError):  # our reader has gone, or the block is over
                while chunk := os.read(pipe, _CHUNK):
                    sys.stdout.buffer.write(chunk)
                    sys.stdout.buffer.flush()

        threading.Thread(target=relay, name="relay", daemon=True).start()
        yield path
