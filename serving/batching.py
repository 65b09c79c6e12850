"""Dynamic batching that never waits: whatever has queued while the last batch ran is the next."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from serving.errors import ApiError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Entry(Generic[Item, Result]):
    rows: int
    key: Hashable
    items: list[Item] = field(default_factory=list)  # one, once it is prepared
    future: Future[Result] = field(default_factory=Future)
    waiting: bool = True  # counts in the queue


class Batcher(Generic[Item, Result]):
    """One thread runs `function(items) -> results, in order`; any event loop may submit.

    A batch holds items of one key and at most `max_rows` rows, or a single item with more. Items of
    one key start in the order of their submission, and the oldest of all is always in the next
    batch, so that nothing starves.

    Where a batch of several fails, each of its items runs again by itself: only the bad one fails.
    """

    def __init__(
        self,
        function: Callable[[list[Item]], Sequence[Result]],
        max_rows: int,
        max_queue: int,
        name: str = "batcher",
        observe: Callable[[int], None] = lambda rows: None,
        sized: Callable[[int], int] = lambda rows: rows,
    ) -> None:
        """max_queue: rows that may wait; observe: told the rows of each batch as it starts.

        sized: of so many rows that could be a batch, how many should be; the others wait on.
        """
        self.function = function
        self.max_rows = max_rows
        self.max_queue = max_queue
        self.observe = observe
        self.sized = sized
        self._waiting = 0
        self._closed = False
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
        entry = _Entry[Item, Result](rows, key)
        self._enter(entry)
        try:
            entry.items.append(await prepare(item) if prepare else item)
            self._enqueue(entry)
            return await asyncio.wrap_future(entry.future)
        finally:
            self._leave(entry)

    def close(self) -> None:
        """End the thread after its present batch; all that waits fails."""
        with self._changed:
            self._closed = True
            pending = list(self._ready)
            self._ready.clear()
            self._changed.notify_all()
        for entry in pending:
            if entry.future.set_running_or_notify_cancel():
                entry.future.set_exception(closed())
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
        most = self._most()
        for entry in list(self._ready):
            if batch and entry.key != batch[0].key:
                continue
            if batch and rows + entry.rows > most:
                break
            self._ready.remove(entry)
            if not entry.future.set_running_or_notify_cancel():
                continue  # cancelled an instant ago; its caller's _leave gives back its place
            entry.waiting = False
            self._waiting -= entry.rows
            batch.append(entry)
            rows += entry.rows
        return batch

    def _most(self) -> int:
        """Rows of the next batch at most."""
        key = self._ready[0].key if self._ready else None
        rows = sum(entry.rows for entry in self._ready if entry.key == key)
        return self.sized(min(rows, self.max_rows))

    def _run(self, batch: list[_Entry[Item, Result]]) -> None:
        try:
            results = self.function([entry.items[0] for entry in batch])
            assert len(results) == len(batch), "a batch's function gives a result for each item"
        except BaseException as error:  # whatever it is, somebody waits for an answer
            if len(batch) > 1:
                for entry in batch:
                    self._run([entry])
                return
            if isinstance(error, StopIteration) or not isinstance(error, Exception):
                error = RuntimeError(repr(error))  # an event loop would not deliver these
            batch[0].future.set_exception(error)
        else:
            for entry, result in zip(batch, results, strict=True):
                entry.future.set_result(result)


def closed() -> ApiError:
    return ApiError(503, "shutting_down", "this server is stopping", headers={"Retry-After": "1"})
