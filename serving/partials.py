"""What is shown of an image that is being restored: itself, with the tiles that are done."""

from __future__ import annotations

import logging
import threading
from collections import deque
from concurrent.futures import Executor
from contextlib import suppress

import numpy as np

from genimg.tiled import Tiled
from serving.requests import Partial, Request, Show
from serving.work import Work, written

logger = logging.getLogger(__name__)


def watched(work: Work, count: int, show: Show, coder: Executor) -> Work:
    """A work of which `count` partial images are shown, if it is one of tiles."""
    if isinstance(work.plan, Tiled):
        work.plan.show_through()
        work.watch = _Watch(work.request, work.plan, count, show, coder)
    return work


class _Watch:
    """Shows the image of a work up to `count` times while it is computed, at even shares of it.

    It does not hold the work, which holds it: both would stay, with their image, until Python looks
    for cycles.

    coder: encodes what is shown, while passes go on
    """

    def __init__(
        self, request: Request, plan: Tiled, count: int, show: Show, coder: Executor
    ) -> None:
        self.request, self.plan, self.count = request, plan, count
        self.show, self.coder = show, coder
        self._shown = 0
        self._coming: deque[np.ndarray] = deque()
        self._one_by_one = threading.Lock()  # or a later image could be encoded first

    def __call__(self, stop: int) -> None:
        """Told in the thread of the passes up to which row all is computed, but for the last."""
        due = stop * (self.count + 1) // self.plan.count
        if due > self._shown:
            self._shown = due
            with suppress(RuntimeError):  # the server is stopping
                self._coming.append(self.plan.so_far())
                self.coder.submit(self._encode)

    def _encode(self) -> None:
        try:
            with self._one_by_one:
                image = self._coming.popleft()
                format, (file,) = written(self.request, image[None])
                self.show(Partial(file, format, f"{image.shape[1]}x{image.shape[0]}"))
        except Exception:  # the image itself may yet come
            logger.exception("a partial image cannot be shown")
