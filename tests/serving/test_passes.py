"""Every work is answered once and by its own rows, in whatever passes they ride, and in turn."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import ApiError
from serving.passes import UNFINISHED, Passes


@dataclass(eq=False)
class Rows:
    """A work of some rows, each of which has to be computed once."""

    value: int
    count: int = 1
    key: Hashable = None
    most: int = 4
    made: list[int] = field(default_factory=list)
    every: int = 0  # so many rows have a key of their own

    def lap(self, row: int) -> tuple[Hashable, int]:
        if not self.every:
            return self.key, self.count
        number = row // self.every
        return (self.key, number), min((number + 1) * self.every, self.count)


class Gate:
    """Computes passes once it is let through, and remembers them: (value, start, stop) of each."""

    def __init__(self, open: bool = False) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self.passes: list[list[tuple[int, int, int]]] = []
        if open:
            self.open.set()

    def __call__(self, parts: list[tuple[Rows, int, int]]) -> None:
        self.passes.append([(work.value, start, stop) for work, start, stop in parts])
        self.entered.set()
        assert self.open.wait(30)
        assert sum(stop - start for _, start, stop in parts) <= parts[0][0].most
        assert len({work.lap(start)[0] for work, start, _ in parts}) == 1
        assert all(stop <= work.lap(start)[1] for work, start, stop in parts)
        if any(work.value < 0 for work, _, _ in parts):
            raise ValueError(f"negative: {[work.value for work, _, _ in parts]}")
        for work, start, stop in parts:
            work.made += range(start, stop)


def doubled(work: Rows) -> int:
    assert work.made == list(range(work.count))
    return 2 * work.value


class Queue(Passes[Rows, int]):
    def __init__(self, compute, max_queue: int = 10_000, finish=doubled) -> None:
        self.pool = ThreadPoolExecutor(1)
        super().__init__(compute, finish, self.pool, max_queue)

    def ask(self, *work, owner: str = "", **more) -> asyncio.Future[int]:
        made = Rows(*work, **more)
        return asyncio.ensure_future(self.submit(lambda: made, made.count, owner))

    def close(self) -> None:
        super().close()
        self.pool.shutdown()


async def entered(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.entered.wait, 30)


async def queued(queue: Queue, weight: int) -> None:
    """Until so much waits."""
    for _ in range(3000):
        if queue.waiting == weight:
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"{queue.waiting} wait")


WORKS = st.lists(
    st.tuples(
        st.integers(-3, 20), st.integers(1, 9), st.sampled_from("ab"), st.sampled_from([0, 1, 3])
    ),
    max_size=25,
)


@given(works=WORKS, most=st.integers(1, 6))
def test_every_work_gets_its_own_result_in_passes_of_bounded_size(works, most):
    async def all_at_once() -> list[object]:
        queue = Queue(Gate(open=True))
        try:
            calls = [
                queue.ask(value, count, key, most, every=every)
                for value, count, key, every in works
            ]
            return await asyncio.gather(*calls, return_exceptions=True)
        finally:
            await asyncio.to_thread(queue.close)

    for (value, *_), result in zip(works, asyncio.run(all_at_once()), strict=True):
        if value < 0:
            assert isinstance(result, ValueError)
        else:
            assert result == 2 * value


def test_who_asks_is_told_after_each_pass_how_much_is_done():
    async def scenario() -> list[float]:
        queue, shares = Queue(Gate(open=True)), []
        try:
            work = Rows(1, 10, most=4)
            assert await queue.submit(lambda: work, work.count, tell=shares.append) == 2
        finally:
            await asyncio.to_thread(queue.close)
        return shares

    assert asyncio.run(scenario()) == [0.4, 0.8, 1.0]


def test_what_is_held_has_its_share_until_the_result_is_there():
    async def run() -> None:
        queue = Queue(gate := Gate())
        first, second = queue.ask(1, 8), queue.ask(2, 2)
        await entered(gate)
        assert sorted((share, weight) for share, weight, _ in queue.held()) == [(1, 2), (1, 8)]
        gate.open.set()
        assert await asyncio.gather(first, second) == [2, 4]
        assert queue.held() == []
        queue.close()

    asyncio.run(run())


def test_rows_of_several_share_a_pass_and_a_large_work_lets_the_others_in():
    async def scenario() -> None:
        gate = Gate()
        queue = Queue(gate)
        calls = [queue.ask(0, key="a")]
        await entered(gate)
        assert gate.passes == [[(0, 0, 1)]]  # idle, it did not wait for company
        for value, count, key in ((1, 10, "a"), (2, 1, "b"), (3, 1, "a"), (4, 2, "b")):
            calls.append(queue.ask(value, count, key))
            await asyncio.sleep(0)
        gate.open.set()
        assert await asyncio.gather(*calls) == [0, 2, 4, 6, 8]
        assert gate.passes[1:] == [
            [(1, 0, 4)],  # a whole pass, and then it is the others' turn
            [(2, 0, 1), (4, 0, 2)],
            [(3, 0, 1), (1, 4, 7)],
            [(1, 7, 10)],
        ]
        await asyncio.to_thread(queue.close)

    asyncio.run(scenario())


def test_a_bad_work_does_not_fail_its_neighbours():
    async def scenario() -> None:
        gate = Gate()
        queue = Queue(gate)
        calls = [queue.ask(0)]
        await entered(gate)
        calls += [queue.ask(1), queue.ask(-2, 9), queue.ask(3)]
        await queued(queue, 11)
        gate.open.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results[:2] == [0, 2]
        assert isinstance(results[2], ValueError)
        assert results[3] == 6
        tried = [value for part in gate.passes for value, _, _ in part]
        assert tried.count(-2) == 2  # with the others, and alone: then it is given up
        await asyncio.to_thread(queue.close)

    asyncio.run(scenario())


def test_a_full_queue_refuses_until_there_is_room():
    async def scenario() -> None:
        gate = Gate()
        queue = Queue(gate, max_queue=3)
        calls = [queue.ask(0)]
        await entered(gate)
        calls.append(queue.ask(1, 50))  # the queue is empty
        await queued(queue, 50)
        with pytest.raises(ApiError) as caught:
            await queue.ask(2)
        assert (caught.value.status, caught.value.code) == (429, "queue_full")
        assert caught.value.headers == {"Retry-After": "1"}
        gate.open.set()
        assert await asyncio.gather(*calls) == [0, 2]
        assert await queue.ask(3) == 6
        await asyncio.to_thread(queue.close)

    asyncio.run(scenario())


def test_a_cancelled_work_is_computed_no_further_and_gives_back_its_place():
    async def scenario() -> None:
        gate = Gate()
        queue = Queue(gate, max_queue=100)
        large = queue.ask(0, 100)
        await entered(gate)
        second = queue.ask(1, 4)
        await queued(queue, 4)
        second.cancel()
        await queued(queue, 0)
        third = queue.ask(3)
        await queued(queue, 1)
        large.cancel()  # between two of its passes
        await asyncio.sleep(0)
        gate.open.set()
        assert await third == 6
        assert gate.passes == [[(0, 0, 4)], [(3, 0, 1)]]
        await asyncio.to_thread(queue.close)

    asyncio.run(scenario())


def test_preparation_has_a_place_in_the_queue_and_its_failure_gives_it_back():
    async def scenario() -> None:
        queue = Queue(Gate(open=True), max_queue=4)
        seen = []

        async def prepare(value: int) -> Rows:
            seen.append(queue.waiting)
            if value < 0:
                raise LookupError
            return Rows(value + 100)

        assert await queue.submit(lambda: prepare(1), 3) == 202
        with pytest.raises(LookupError):
            await queue.submit(lambda: prepare(-1), 2)
        assert seen == [3, 2]
        assert queue.waiting == 0
        await asyncio.to_thread(queue.close)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("fault", "arrives_as"),
    [
        (MemoryError, MemoryError),
        (StopIteration, RuntimeError),  # these three would hang or end the event loop
        (SystemExit, RuntimeError),
        (KeyboardInterrupt, RuntimeError),
    ],
)
@pytest.mark.parametrize("where", ["compute", "finish"])
def test_whatever_is_raised_is_answered_and_the_next_pass_runs(fault, arrives_as, where):
    def perhaps(work: Rows, here: str) -> None:
        if work.value < 0 and here == where:
            raise fault

    def finish(work: Rows) -> int:
        perhaps(work, "finish")
        return work.value

    async def scenario() -> None:
        queue = Queue(lambda parts: perhaps(parts[0][0], "compute"), finish=finish)
        with pytest.raises(arrives_as):
            await queue.ask(-1)
        assert await queue.ask(5) == 5
        await asyncio.to_thread(queue.close)

    asyncio.run(scenario())


def test_closing_ends_the_pass_that_runs_and_fails_what_waits():
    async def scenario() -> None:
        gate = Gate()
        queue = Queue(gate)
        first = queue.ask(1)
        await entered(gate)
        second = queue.ask(2, key="other")
        await queued(queue, 1)
        closing = asyncio.ensure_future(asyncio.to_thread(queue.close))
        with pytest.raises(ApiError) as caught:
            await second
        assert (caught.value.status, caught.value.code) == (503, "shutting_down")
        with pytest.raises(ApiError):
            await queue.ask(3)
        gate.open.set()
        await closing
        assert await first == 2

    asyncio.run(scenario())


def test_what_nobody_waits_for_any_more_is_not_finished():
    finished: list[int] = []

    def finish(work: Rows) -> int:
        finished.append(work.value)
        return 2 * work.value + 1

    async def scenario() -> None:
        gate = Gate()
        queue = Queue(gate, finish=finish)
        first = queue.ask(1)
        await entered(gate)
        first.cancel()
        second = queue.ask(2)
        await queued(queue, 1)
        gate.open.set()
        assert await second == 5
        await asyncio.to_thread(queue.close)

    asyncio.run(scenario())
    assert finished == [2]


def test_the_engine_waits_for_results_that_are_not_finished_yet():
    held = threading.Event()
    computed: list[int] = []

    def compute(parts: list[tuple[Rows, int, int]]) -> None:
        computed.extend(work.value for work, _, _ in parts)

    def finish(work: Rows) -> int:
        held.wait()
        return work.value + 1

    async def scenario() -> list[int]:
        queue = Queue(compute, max_queue=32, finish=finish)
        tasks = [queue.ask(value, most=1) for value in range(16)]
        await queued(queue, 16 - UNFINISHED - 1)  # the one that is computed waits as well
        await asyncio.sleep(0.05)
        assert computed == list(range(UNFINISHED + 1))
        held.set()
        made = await asyncio.gather(*tasks)
        await asyncio.to_thread(queue.close)
        return made

    assert asyncio.run(scenario()) == list(range(1, 17))


def test_of_several_owners_each_leads_a_pass_in_turn():
    async def scenario() -> None:
        gate = Gate()
        queue = Queue(gate)
        calls = [queue.ask(0, owner="greedy")]
        await entered(gate)
        for value in range(1, 41):  # each has to be computed by itself
            calls.append(queue.ask(value, key=value, owner="greedy"))
        await queued(queue, 40)
        for value in (50, 51):
            calls.append(queue.ask(value, key="alike", owner="other"))
        calls.append(queue.ask(60, key="alike", owner="third"))
        await queued(queue, 43)
        gate.open.set()
        await asyncio.gather(*calls)
        assert gate.passes[1:5] == [
            [(50, 0, 1), (60, 0, 1), (51, 0, 1)],  # the one that came along counts as not led yet
            [(1, 0, 1)],
            [(2, 0, 1)],
            [(3, 0, 1)],
        ]
        await asyncio.to_thread(queue.close)

    asyncio.run(scenario())


def test_what_fails_after_it_had_to_make_room_is_no_unseen_error():
    async def scenario() -> list[dict]:
        unseen: list[dict] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: unseen.append(told))
        gate = Gate()
        queue = Queue(gate, max_queue=2)
        first = queue.ask(0, owner="greedy")
        await entered(gate)
        slow = asyncio.Event()

        async def prepare() -> Rows:
            await slow.wait()
            raise LookupError

        held = [asyncio.ensure_future(queue.submit(prepare, 1, "greedy")) for _ in range(2)]
        await queued(queue, 2)
        other = queue.ask(1, owner="other")  # for which the second has to go
        await asyncio.sleep(0.01)
        slow.set()
        assert [type(each) for each in await asyncio.gather(*held, return_exceptions=True)] == [
            LookupError
        ] * 2
        gate.open.set()
        assert await asyncio.gather(first, other) == [0, 2]
        await asyncio.to_thread(queue.close)
        del held
        gc.collect()
        await asyncio.sleep(0)
        return unseen

    assert asyncio.run(scenario()) == []


def test_nothing_of_a_work_stays_behind_its_result():
    """It may hold a large image, and the next may come tomorrow."""

    async def scenario() -> None:
        queue = Queue(Gate(open=True))
        works = [Rows(1)]
        seen = weakref.ref(works[0])
        assert await queue.submit(works.pop, 1) == 2
        for _ in range(1000):
            if seen() is None:
                break
            await asyncio.sleep(0.005)
        assert seen() is None
        await asyncio.to_thread(queue.close)

    gc.disable()
    try:
        asyncio.run(scenario())
    finally:
        gc.enable()


def test_whoever_holds_most_of_a_full_queue_makes_room():
    """Also with what is being prepared; and what it then is, is never computed."""

    async def scenario() -> None:
        gate = Gate()
        queue = Queue(gate, max_queue=4)
        first = queue.ask(0, owner="greedy")
        await entered(gate)
        ready = [queue.ask(value, owner="greedy") for value in (1, 2)]
        slow = asyncio.Event()

        async def prepare(value: int) -> Rows:
            await slow.wait()
            return Rows(value)

        preparing = [
            asyncio.ensure_future(queue.submit(lambda value=value: prepare(value), 1, "greedy"))
            for value in (3, 4)
        ]
        await queued(queue, 4)
        with pytest.raises(ApiError):
            await queue.ask(5, owner="greedy")
        mine = [queue.ask(value, owner="other") for value in (10, 11)]
        await asyncio.sleep(0.01)
        with pytest.raises(ApiError):
            await queue.ask(12, owner="other")  # half of it is its own
        assert queue.waiting == 4
        slow.set()
        for refused in preparing:  # the last that came
            with pytest.raises(ApiError) as caught:
                await refused
            assert (caught.value.status, caught.value.code) == (429, "queue_full")
        gate.open.set()
        assert await asyncio.gather(first, *ready, *mine) == [0, 2, 4, 20, 22]
        computed = {value for part in gate.passes for value, _, _ in part}
        assert computed == {0, 1, 2, 10, 11}
        await asyncio.to_thread(queue.close)

    asyncio.run(scenario())
