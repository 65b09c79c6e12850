"""Checkpoints written and published in a thread, while training goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from jobs.runs.folder import RunFolder


class BackgroundSaver:
    """Saves one checkpoint at a time.

    Whoever takes snapshots waits for the last one to be saved (`wait`) before taking the next, so
    that never more than one is in memory. A run that cannot save must not go on for hours: look at
    `failed` often.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.error: BaseException | None = None
        self.thread: threading.Thread | None = None

    @property
    def failed(self) -> bool:
        """Whether something could not be saved; `wait` raises what happened."""
        return self.error is not None

    def save(self, seen: int, fill: Callable[[Path], object], keep: set[int]) -> None:
        """Begin to save; fill(folder) writes the files. Then others than `keep` are deleted."""
        self.wait()

        def work() -> None:
            try:
                self.folder.publish(seen, fill)
                self.folder.prune(keep)
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=work, name="saver", daemon=True)
        self.thread.start()

    def wait(self) -> None:
        """Until everything is published; raises what could not be."""
        if self.thread:
            self.thread.join()
            self.thread = None  # and with it the snapshot
        if self.error is not None:
            raise self.error
