"""Lines that other processes of this machine write, on this command's standard output."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHUNK = 65_536
_END = b"\0"  # which no line has
_STDOUT = 1


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
        end = os.open(path, os.O_WRONLY | os.O_NONBLOCK)

        def relay() -> None:
            chunk = b""
            while not chunk.endswith(_END):
                chunk = os.read(pipe, _CHUNK)
                left = memoryview(chunk.removesuffix(_END))
                with suppress(OSError):  # our reader has gone: those who write are not to notice
                    while left:
                        left = left[os.write(_STDOUT, left) :]

        thread = threading.Thread(target=relay, name="relay", daemon=True)
        thread.start()
        yield path
        with suppress(BlockingIOError):  # nobody reads what comes out here
            os.write(end, _END)
            thread.join(timeout=1)
