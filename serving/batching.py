"""Dynamic batching that never waits: whatever has queued while the last batch ran is the next."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from serving.errors import ApiError

Item = TypeVar("Item")
Result = TypeVar("Result")

UNFINISHED = 4  # batches whose results may be finished at a time, or wait for it


@dataclass(eq=False)
class _Entry(Generic[Item, Result]):
    rows: int
    key: Hashable
    future: asyncio.Future[Result]
    items: list[Item] = field(default_factory=list)  # one, once it is prepared
    waiting: bool = True  # counts in the queue


class Batcher(Generic[Item, Result]):
    """One thread runs `function(items) -> results, in order`; any event loop may submit.

    A batch holds items of one key and at most `max_rows` rows, or a single item with more. Items of
    one key start in the order of their submission, and the oldest of all is always in the next
    batch, so that nothing starves.

    Where a batch of several fails, each of its items runs again by itself: only the bad one fails.

    What is left to do for each result (`finish`) is done elsewhere while the next batch runs, for
    a whole batch in one go, and its results wake the event loop once: a thread that is woken for
    every item costs more than the item. Where that falls behind, the thread waits for it: results
    that pile up are memory which no queue counts.
    """

    def __init__(
        self,
        function: Callable[[list[Item]], Sequence[Result]],
        max_rows: int,
        max_queue: int,
        name: str = "batcher",
        observe: Callable[[int], None] = lambda rows: None,
        finish: Callable[[Item, Result], Result] | None = None,
        finisher: Executor | None = None,
    ) -> None:
        """max_queue: rows that may wait; observe: told the rows of each batch as it starts.

        finish: gives the item's result in the end, and runs on `finisher`.
        """
        assert (finish is None) == (finisher is None)
        self.finish = finish
        self.finisher = finisher
        self.function = function
        self.max_rows = max_rows
        self.max_queue = max_queue
        self.observe = observe
        self._waiting = 0
        self._closed = False
        self._unfinished = threading.Semaphore(UNFINISHED)
        self._ready: deque[_Entry[Item, Result]] = deque()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether items are still taken up."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Rows submitted whose batch has not started."""
        return self._waiting

    async def submit(
        self,
        item: Item,
        rows: int = 1,
        key: Hashable = None,
        prepare: Callable[[Item], Awaitable[Item]] | None = None,
    ) -> Result:
        """The result of an item, or what the function raised for it.

        prepare: run on the item once it has its place in the queue, so that what it makes (say,
            decoded images) is bounded by the queue. The place may be given to nobody else.

        Raises ApiError: 429 where the queue is full (an empty one takes an item of any size), 503
        when this is closed. Cancelled, an item that has not started is dropped.
        """
        entry = _Entry[Item, Result](rows, key, asyncio.get_running_loop().create_future())
        self._enter(entry)
        try:
            entry.items.append(await prepare(item) if prepare else item)
            self._enqueue(entry)
            return await entry.future
        finally:
            self._leave(entry)

    def close(self) -> None:
        """End the thread after its present batch; all that waits fails."""
        with self._changed:
            self._closed = True
            pending = list(self._ready)
            self._ready.clear()
            self._changed.notify_all()
        _deliver(pending, [closed()] * len(pending))
        self._thread.join()

    def _enter(self, entry: _Entry[Item, Result]) -> None:
        with self._changed:
            if self._closed:
                raise closed()
            if self._waiting and self._waiting + entry.rows > self.max_queue:
                message = f"{self._waiting} images wait already; try again in a second"
                raise ApiError(429, "queue_full", message, headers={"Retry-After": "1"})
            self._waiting += entry.rows

    def _enqueue(self, entry: _Entry[Item, Result]) -> None:
        with self._changed:
            if self._closed:
                raise closed()
            self._ready.append(entry)
            self._changed.notify_all()

    def _leave(self, entry: _Entry[Item, Result]) -> None:
        """Forget an entry that did not start; its caller has gone."""
        with self._changed:
            if entry.waiting:
                entry.waiting = False
                self._waiting -= entry.rows
                if entry in self._ready:
                    self._ready.remove(entry)

    def _work(self) -> None:
        while batch := self._next():
            self.observe(sum(entry.rows for entry in batch))
            self._run(batch)

    def _next(self) -> list[_Entry[Item, Result]]:
        """The next batch, waited for; none once this is closed."""
        with self._changed:
            while not self._closed:
                if batch := self._take():
                    return batch
                self._changed.wait()
        return []

    def _take(self) -> list[_Entry[Item, Result]]:
        batch: list[_Entry[Item, Result]] = []
        rows = 0
        for entry in list(self._ready):
            if batch and entry.key != batch[0].key:
                continue
            if batch and rows + entry.rows > self.max_rows:
                break
            self._ready.remove(entry)
            if entry.future.cancelled():
                continue  # an instant ago; its caller's _leave gives back its place
            entry.waiting = False
            self._waiting -= entry.rows
            batch.append(entry)
            rows += entry.rows
        return batch

    def _run(self, batch: list[_Entry[Item, Result]]) -> None:
        try:
            results = self.function([entry.items[0] for entry in batch])
            assert len(results) == len(batch), "a batch's function gives a result for each item"
        except BaseException as error:  # whatever it is, somebody waits for an answer
            if len(batch) > 1:
                for entry in batch:
                    self._run([entry])
                return
            _deliver(batch, [deliverable(error)])
            return
        if self.finisher is None:
            _deliver(batch, results)
            return
        self._unfinished.acquire()
        try:
            task = self.finisher.submit(self._finish, batch, results)
            task.add_done_callback(lambda _: self._unfinished.release())
        except RuntimeError:  # it has been shut down
            self._unfinished.release()
            _deliver(batch, [closed()] * len(batch))

    def _finish(self, batch: list[_Entry[Item, Result]], results: Sequence[Result]) -> None:
        assert self.finish is not None
        outcomes: list[Result | Exception] = []
        for entry, result in zip(batch, results, strict=True):
            if entry.future.cancelled():  # nobody waits: the others come first
                outcomes.append(closed())
                continue
            try:
                outcomes.append(self.finish(entry.items[0], result))
            except BaseException as error:
                outcomes.append(deliverable(error))
        _deliver(batch, outcomes)


def _deliver(batch: Sequence[_Entry[Any, Any]], outcomes: Sequence[Any]) -> None:
    """Give each waiting caller its result or exception, each event loop woken once."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for entry, outcome in zip(batch, outcomes, strict=True):
        loops.setdefault(entry.future.get_loop(), []).append((entry.future, outcome))
    for loop, pairs in loops.items():
        with suppress(RuntimeError):  # a loop that has ended: nobody waits
            loop.call_soon_threadsafe(_settle, pairs)


def _settle(pairs: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, outcome in pairs:
        if future.done():  # cancelled meanwhile
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def deliverable(error: BaseException) -> Exception:
    """An exception that an event loop can pass on."""
    if isinstance(error, StopIteration) or not isinstance(error, Exception):
        return RuntimeError(repr(error))
    return error


def closed() -> ApiError:
    return ApiError(503, "shutting_down", "this server is stopping", headers={"Retry-After": "1"})
