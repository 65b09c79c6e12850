"""What Ctrl-C does while a command begins: some imports, and Ray's start, are no time for it."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ctrl_c_ends() -> Iterator[None]:
    """Within the block Ctrl-C ends the process at once: a KeyboardInterrupt would be forgotten
    where it comes in a callback of an import, or in a library that catches all."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def ctrl_c_waits() -> Iterator[None]:
    """Ctrl-C within the block takes effect after it, and is answered at once."""
    asked: list[int] = []

    def wait(number: int, frame: object) -> None:
        if not asked:
            os.write(2, b"stopping, once what has begun to start can be ended\n")
        asked.append(number)

    previous = signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if asked:
        raise KeyboardInterrupt
