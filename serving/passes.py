"""Passes that never wait: whatever rows are there when a pass is over make up the next, in turn."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from serving.errors import ApiError
from serving.shares import Full, Shares


class Work(Protocol):
    """Something of several rows, to be computed."""

    @property
    def count(self) -> int:
        """Rows."""
        ...

    def lap(self, row: int) -> tuple[Hashable, int]:
        """(key, stop): rows from this one up to `stop` may share a pass, also with those of other
        works whose key is equal."""
        ...

    @property
    def most(self) -> int:
        """Rows in a pass with it, at most."""
        ...


Item = TypeVar("Item", bound=Work)
Result = TypeVar("Result")
Part = tuple[Item, int, int]  # rows start to stop of a work
Tell = Callable[[float], None]  # told how much is done, 0 to 1, in any thread

FULL = "queue_full"  # code of an error
_REST_S = 1.0  # without anything to do, after which a thread rests
UNFINISHED = 4  # passes whose results may be finished at a time, or wait for it


@dataclass(eq=False)
class _Entry(Generic[Item, Result]):
    weight: int
    future: asyncio.Future[Result]
    owner: str
    item: Item | None = None  # once it is prepared
    taken: int = 0  # rows
    done: int = 0  # rows
    waiting: bool = True  # counts in the queue
    refused: bool = False  # had to go for another
    tell: Tell | None = None


class Passes(Generic[Item, Result]):
    """One thread runs `compute(parts)`, a pass at a time; any event loop may submit.

    The work that has waited longest is in the next pass, with others of its lap's key up to its
    `most` rows. What has rows left then goes behind the others, so that nothing waits for more than
    one pass of a work however large. Of several owners each is first in a pass in turn, and has
    its share of the queue (see serving.shares). Between passes a work is dropped where its caller
    has gone.

    Where a pass of several fails, each of them runs again by itself: only the bad one fails.

    What is left to do for each (`finish`) is done elsewhere while the next pass runs, for all that
    a pass has completed in one go, and wakes the event loop once: a thread that is woken for every
    item costs more than the item. Where that falls behind, the thread waits for it: results that
    pile up are memory which no queue counts.
    """

    def __init__(
        self,
        compute: Callable[[list[Part[Item]]], None],
        finish: Callable[[Item], Result],
        finisher: Executor,
        max_queue: int,
        name: str = "passes",
        observe: Callable[[int], None] = lambda rows: None,
        rest: Callable[[], None] = lambda: None,
    ) -> None:
        """max_queue: weight that may wait; observe: told the rows of each pass as it starts.

        finish: gives a work's result once all its rows are computed, and runs on `finisher`.
        rest: called by the thread that computes, once there is nothing more to do for a while.
        """
        self.compute = compute
        self.finish = finish
        self.finisher = finisher
        self.observe = observe
        self.rest = rest
        self._shares = Shares[_Entry[Item, Result]](max_queue)
        self._closed = False
        self._unfinished = threading.Semaphore(UNFINISHED)
        self._ready: deque[_Entry[Item, Result]] = deque()
        self._held: set[_Entry[Item, Result]] = set()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether works are still taken up."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Weight submitted of which no row was computed yet."""
        return self._shares.weight

    def pending(self) -> list[tuple[int, Item | None]]:
        """(weight, work, once it is prepared) of what is submitted and of which no row was
        computed yet."""
        with self._changed:
            return [(entry.weight, entry.item) for entry in self._shares]

    def held(self) -> list[tuple[float, int, Item | None]]:
        """(share that is not computed yet, weight, work, once it is prepared) of all that has no
        result yet."""
        with self._changed:
            return [
                (1 - each.done / each.item.count if each.item else 1.0, each.weight, each.item)
                for each in self._held
            ]

    async def submit(
        self,
        prepare: Callable[[], Awaitable[Item] | Item],
        weight: int,
        owner: str = "",
        tell: Tell | None = None,
    ) -> Result:
        """The result of a work, or what was raised for it.

        prepare: makes the work once it has its place in the queue, so that what it holds (say,
            decoded images) is bounded by the queue.
        owner: who asks for it.
        tell: told after each pass which share of the rows is computed, in the thread of the passes.

        Raises ApiError: 429 where the queue is full (an empty one takes anything), perhaps after a
        while, for an owner with less in it; 503 when this is closed. Cancelled, it is computed no
        further.
        """
        future = asyncio.get_running_loop().create_future()
        entry = _Entry[Item, Result](weight, future, owner, tell=tell)
        self._enter(entry)
        try:
            made = prepare()
            entry.item = await made if isinstance(made, Awaitable) else made
            self._enqueue(entry)
            return await entry.future
        finally:
            self._leave(entry)
            if not entry.future.cancel() and not entry.future.cancelled():
                entry.future.exception()  # seen, though another came first

    def close(self) -> None:
        """End the thread after its present pass; all that waits fails."""
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
            try:
                going = self._shares.enter(entry)
            except Full:
                raise full(f"{self.waiting} images wait already") from None
            self._held.add(entry)
            for each in going:
                each.waiting, each.refused = False, True
                if each in self._ready:
                    self._ready.remove(each)
        if going:
            _deliver(going, [full("so much of this key waits that others come first")] * len(going))

    def _enqueue(self, entry: _Entry[Item, Result]) -> None:
        with self._changed:
            if self._closed:
                raise closed()
            if entry.refused:  # as its future says, or will
                return
            self._ready.append(entry)
            self._changed.notify_all()

    def _leave(self, entry: _Entry[Item, Result]) -> None:
        """Forget an entry whose caller has gone, or has its result."""
        with self._changed:
            self._held.discard(entry)
            self._start(entry)
            if entry in self._ready:
                self._ready.remove(entry)

    def _start(self, entry: _Entry[Item, Result]) -> None:
        if entry.waiting:
            entry.waiting = False
            self._shares.leave(entry)

    def _work(self) -> None:
        while parts := self._next():
            self.observe(sum(stop - start for _, start, stop in parts))
            self._run(parts)
            del parts  # or what they hold would stay until the next pass

    def _next(self) -> list[tuple[_Entry[Item, Result], int, int]]:
        """The next pass, waited for; none once this is closed."""
        rests = False
        with self._changed:
            while not self._closed:
                if parts := self._take():
                    return parts
                if not self._changed.wait(None if rests else _REST_S):
                    rests = True
                    self.rest()
        return []

    def _take(self) -> list[tuple[_Entry[Item, Result], int, int]]:
        parts: list[tuple[_Entry[Item, Result], int, int]] = []
        key: Hashable = None
        room = 0
        for entry in self._shares.in_turn(list(self._ready)):
            assert entry.item is not None, "what is ready is prepared"
            own, end = entry.item.lap(entry.taken)
            if parts and own != key:
                continue
            self._ready.remove(entry)
            if entry.future.cancelled():
                continue
            if not parts:
                key, room = own, entry.item.most
                self._shares.serve(entry.owner)
            self._start(entry)
            stop = min(entry.taken + room, end)
            parts.append((entry, entry.taken, stop))
            room -= stop - entry.taken
            entry.taken = stop
            if stop < entry.item.count:
                self._ready.append(entry)
            if not room:
                break
        return parts

    def _run(self, parts: list[tuple[_Entry[Item, Result], int, int]]) -> None:
        try:
            self.compute([(entry.item, start, stop) for entry, start, stop in parts if entry.item])
        except BaseException as error:  # whatever it is, somebody waits for an answer
            if len(parts) > 1:
                for part in parts:
                    self._run([part])
                return
            entry = parts[0][0]
            with self._changed:
                if entry in self._ready:
                    self._ready.remove(entry)
            _deliver([entry], [deliverable(error)])
            return
        for entry, _, stop in parts:
            entry.done = stop
            if entry.tell and entry.item:
                entry.tell(stop / entry.item.count)
        done = [entry for entry, _, stop in parts if entry.item and stop == entry.item.count]
        if not done:
            return
        self._unfinished.acquire()
        try:
            task = self.finisher.submit(self._finish, done)
            task.add_done_callback(lambda _: self._unfinished.release())
        except RuntimeError:  # it has been shut down
            self._unfinished.release()
            _deliver(done, [closed()] * len(done))

    def _finish(self, done: list[_Entry[Item, Result]]) -> None:
        outcomes: list[Result | Exception] = []
        for entry in done:
            if entry.future.cancelled():  # nobody waits: the others come first
                outcomes.append(closed())
                continue
            try:
                assert entry.item is not None
                outcomes.append(self.finish(entry.item))
            except BaseException as error:
                outcomes.append(deliverable(error))
        _deliver(done, outcomes)


def _deliver(entries: Sequence[_Entry[Any, Any]], outcomes: Sequence[Any]) -> None:
    """Give each waiting caller its result or exception, each event loop woken once."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for entry, outcome in zip(entries, outcomes, strict=True):
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


def full(reason: str) -> ApiError:
    message = f"{reason}; try again in a second"
    return ApiError(429, FULL, message, headers={"Retry-After": "1"})
