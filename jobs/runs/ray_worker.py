"""What runs in each worker's process on Ray: the training, and its line to the board."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import ray
import ray.train
import torch
from ray import ObjectRef
from ray.exceptions import GetTimeoutError, RayActorError
from ray.train.torch import get_device

from cluster.storage import Refused
from genimg.errors import InputError
from genimg.training.loop import Diverged
from genimg.training.sync import Collective
from jobs.runs.board import News, Wishes
from jobs.runs.board_actor import Answer, BoardActor
from jobs.runs.resume import agree
from jobs.runs.worker import Job, Unsaved, work

_LOOK = 0.25  # seconds between looks at the wishes
_ANSWER = 5.0  # seconds in which the board should answer
_RESTART = 30.0  # seconds in which it should be back
_REST = 60.0  # seconds in which a resize should have begun


class Reporter:
    """Tells the board what happens, and never waits for it: its absence stops no training.

    All since the start is told each time, for a board that came back empty.
    """

    def __init__(self, board: BoardActor) -> None:
        self.board = board
        self.news = News()

    def progress(self, seen: int, values: dict[str, float]) -> None:
        self.news = self.news._replace(latest=(seen, values))
        self.board.post.remote(self.news)

    def evaluated(self, seen: int, metrics: dict[str, float]) -> None:
        self.news = self.news._replace(evaluations=(*self.news.evaluations, (seen, metrics)))
        self.board.post.remote(self.news)

    def warn(self, text: str) -> None:
        self.news = self.news._replace(warnings=(*self.news.warnings, text))
        self.board.post.remote(self.news)

    def note(self, text: str) -> None:
        self.news = self.news._replace(notes=(*self.news.notes, text))
        self.board.post.remote(self.news)


class WishReader:
    """Reads the wishes in the background; where the board does not answer, they stay the same."""

    def __init__(self, board: BoardActor) -> None:
        self.board = board
        self.now = Wishes()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._work, name="wishes", daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.over.set()
        self.thread.join()

    def _work(self) -> None:
        while not self.over.wait(_LOOK):
            self._look()

    def _look(self) -> None:
        with suppress(RayActorError, GetTimeoutError):
            self.now = ray.get(self.board.wishes.remote(), timeout=_ANSWER)


def worker(config: dict[str, Any]) -> None:
    """Train to the end, to where a stop was asked for, or until Ray ends this process."""
    board: BoardActor = config["board"]
    if ask(board.failed.remote):  # starting again would end the same way
        return
    torch.set_num_threads(config["cpus"])
    sync = Collective()
    # Ray hands out pretended GPUs as well; they are of no use without CUDA
    device = get_device() if torch.cuda.is_available() else torch.device("cpu")
    reporter = Reporter(board)
    first = sync.rank == 0

    def saved(seen: int, metrics: dict[str, float]) -> None:
        if metrics:
            reporter.evaluated(seen, metrics)
        ray.train.report({"seen": seen} | metrics)

    def train(wishes: WishReader | None) -> bool:
        """Whether to train on after a rest."""
        rests = False

        def should_stop() -> bool:
            nonlocal rests
            now = wishes.now if wishes else Wishes()
            rests = now.rest and not now.stop
            return now.stop or rests

        done = work(
            Job(**config["job"]),
            sync,
            device,
            progress=reporter.progress,
            saved=saved,
            warn=reporter.warn,
            note=reporter.note,
            should_stop=should_stop,
            discard=lambda: wishes is not None and wishes.now.discard,
        )
        return not done and agree(rests, sync, device)

    try:
        if not first:
            while train(None):
                rest(board, first)
            return
        board.go_on.remote()  # a rest has ended with the group that rested
        with WishReader(board) as wishes:
            while train(wishes):
                rest(board, first)
        # the last evaluation, should that have been lost
        ask(lambda: board.post.remote(reporter.news))
    except Unsaved:  # worker 0 says why
        return
    except Diverged as error:  # on all workers alike
        if first and not tell(board, error):
            raise
    except (InputError, Refused) as error:  # perhaps on this one alone; the others would wait
        tell(board, type(error)(str(error)))
        raise


def rest(board: BoardActor, first: bool) -> None:
    """Wait, with everything saved, to be ended by a resize; or until that is off again."""
    deadline = time.monotonic() + _REST
    with WishReader(board) as wishes:
        while wishes.now.rest and time.monotonic() < deadline:
            if first:
                board.rests.remote()
            time.sleep(_LOOK)
        if first and wishes.now.rest:  # no resize has come: what is trained now is not saved
            board.go_on.remote()


def ask(question: Callable[[], ObjectRef[Answer]]) -> Answer | None:
    """What the board answers; None where it does not, although given the time to come back."""
    deadline = time.monotonic() + _RESTART
    while time.monotonic() < deadline:
        try:
            return ray.get(question(), timeout=_ANSWER)
        except GetTimeoutError:
            continue
        except RayActorError:
            time.sleep(_LOOK)
    return None


def tell(board: BoardActor, failure: Exception) -> bool:
    """Tell why training cannot go on; whether the board has heard it."""
    ask(lambda: board.fail.remote(failure))
    heard = ask(board.failed.remote)
    return bool(heard)
