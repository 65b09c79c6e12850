"""Every item is answered once and by its own result, in whatever batches it rides."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.batching import UNFINISHED, Batcher
from serving.errors import ApiError


class Gate:
    """A function for batches that waits until it is let through, and remembers them."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.entered.set()
        assert self.open.wait(30)
        if any(item < 0 for item in items):
            raise ValueError(f"negative: {items}")
        return [2 * item for item in items]


async def entered(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.entered.wait, 30)


async def queued(batcher: Batcher, rows: int) -> None:
    """Until so many rows wait."""
    for _ in range(3000):
        if batcher.waiting == rows:
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"{batcher.waiting} rows wait")


ITEMS = st.lists(
    st.tuples(st.integers(-3, 20), st.integers(1, 9), st.sampled_from("ab")), max_size=25
)


@given(items=ITEMS, max_rows=st.integers(1, 6))
def test_every_item_gets_its_own_result_and_no_batch_is_too_large(items, max_rows):
    gate = Gate()
    rows = {index: item[1] for index, item in enumerate(items)}

    def function(batch: list[tuple[int, int, str]]) -> list[int]:
        if len(batch) > 1:
            assert sum(rows[index] for index, _, _ in batch) <= max_rows
        assert len({key for _, _, key in batch}) == 1
        gate.batches.append([index for index, _, _ in batch])
        if any(value < 0 for _, value, _ in batch):
            raise ValueError("negative")
        return [2 * value for _, value, _ in batch]

    async def all_at_once() -> list[object]:
        batcher = Batcher(function, max_rows, max_queue=10_000)
        try:
            return await asyncio.gather(
                *(
                    batcher.submit((index, value, key), size, key)
                    for index, (value, size, key) in enumerate(items)
                ),
                return_exceptions=True,
            )
        finally:
            batcher.close()

    results = asyncio.run(all_at_once())
    for (value, _, _), result in zip(items, results, strict=True):
        if value < 0:
            assert isinstance(result, ValueError)
        else:
            assert result == 2 * value
    for key in "ab":  # those of a key started in the order in which they came
        first_run = list(dict.fromkeys(index for batch in gate.batches for index in batch))
        of_key = [index for index in first_run if items[index][2] == key]
        assert of_key == sorted(of_key)


@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=12))
def test_what_queued_during_a_batch_is_taken_at_once_as_far_as_it_fits(sizes):
    async def scenario() -> list[list[int]]:
        gate = Gate()
        batcher = Batcher(gate, max_rows=8, max_queue=1000)
        first = asyncio.ensure_future(batcher.submit(0))
        await entered(gate)
        assert gate.batches == [[0]]  # an idle batcher did not wait for company
        rest = [
            asyncio.ensure_future(batcher.submit(index, size))
            for index, size in enumerate(sizes, start=1)
        ]
        await queued(batcher, sum(sizes))
        gate.open.set()
        assert await asyncio.gather(first, *rest) == [2 * i for i in range(len(sizes) + 1)]
        batcher.close()
        return gate.batches[1:]

    expected: list[list[int]] = []
    rows = 0
    for index, size in enumerate(sizes, start=1):
        if expected and rows + size <= 8:
            expected[-1].append(index)
            rows += size
        else:
            expected.append([index])
            rows = size
    assert asyncio.run(scenario()) == expected


def test_other_keys_do_not_starve_an_item_and_a_large_one_runs_alone():
    async def scenario() -> None:
        gate = Gate()
        batcher = Batcher(gate, max_rows=4, max_queue=100)
        calls = [asyncio.ensure_future(batcher.submit(0, key="a"))]
        await entered(gate)
        for item, rows, key in ((1, 1, "a"), (2, 9, "b"), (3, 1, "a"), (4, 1, "b"), (5, 1, "a")):
            calls.append(asyncio.ensure_future(batcher.submit(item, rows, key)))
            await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(*calls)
        assert gate.batches == [[0], [1, 3, 5], [2], [4]]
        batcher.close()

    asyncio.run(scenario())


def test_a_bad_item_does_not_fail_its_neighbours():
    async def scenario() -> None:
        gate = Gate()
        batcher = Batcher(gate, max_rows=8, max_queue=100)
        calls = [asyncio.ensure_future(batcher.submit(0))]
        await entered(gate)
        calls += [asyncio.ensure_future(batcher.submit(item)) for item in (1, -2, 3)]
        await queued(batcher, 3)
        gate.open.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results[:2] == [0, 2]
        assert isinstance(results[2], ValueError)
        assert results[3] == 6
        assert gate.batches == [[0], [1, -2, 3], [1], [-2], [3]]
        batcher.close()

    asyncio.run(scenario())


def test_a_full_queue_refuses_until_there_is_room():
    async def scenario() -> None:
        gate = Gate()
        batcher = Batcher(gate, max_rows=1, max_queue=3)
        calls = [asyncio.ensure_future(batcher.submit(0))]
        await entered(gate)
        calls.append(asyncio.ensure_future(batcher.submit(1, rows=50)))  # the queue is empty
        await queued(batcher, 50)
        with pytest.raises(ApiError) as caught:
            await batcher.submit(2)
        assert (caught.value.status, caught.value.code) == (429, "queue_full")
        assert caught.value.headers == {"Retry-After": "1"}
        gate.open.set()
        assert await asyncio.gather(*calls) == [0, 2]
        assert await batcher.submit(3) == 6
        batcher.close()

    asyncio.run(scenario())


def test_a_cancelled_item_is_never_run_and_gives_back_its_place():
    async def scenario() -> None:
        gate = Gate()
        batcher = Batcher(gate, max_rows=4, max_queue=4)
        first = asyncio.ensure_future(batcher.submit(0))
        await entered(gate)
        second = asyncio.ensure_future(batcher.submit(1, rows=4))
        await queued(batcher, 4)
        second.cancel()
        await queued(batcher, 0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batcher.submit(2), 0.01)
        third = asyncio.ensure_future(batcher.submit(3))
        await queued(batcher, 1)
        gate.open.set()
        assert await asyncio.gather(first, third) == [0, 6]
        assert gate.batches == [[0], [3]]
        batcher.close()

    asyncio.run(scenario())


def test_preparation_has_a_place_in_the_queue_and_its_failure_gives_it_back():
    async def scenario() -> None:
        gate = Gate()
        gate.open.set()
        batcher = Batcher(gate, max_rows=4, max_queue=4)
        seen = []

        async def prepare(item: int) -> int:
            seen.append(batcher.waiting)
            if item < 0:
                raise LookupError
            return item + 100

        assert await batcher.submit(1, 3, None, prepare) == 202
        with pytest.raises(LookupError):
            await batcher.submit(-1, 2, None, prepare)
        assert seen == [3, 2]
        assert batcher.waiting == 0
        batcher.close()

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
def test_whatever_a_batch_raises_is_answered_and_the_next_one_runs(fault, arrives_as):
    def function(items: list[int]) -> list[int]:
        if items[0] < 0:
            raise fault
        return items

    async def scenario() -> None:
        batcher = Batcher(function, max_rows=1, max_queue=4)
        with pytest.raises(arrives_as):
            await batcher.submit(-1)
        assert await batcher.submit(5) == 5
        batcher.close()

    asyncio.run(scenario())


def test_closing_ends_the_batch_that_runs_and_fails_what_waits():
    async def scenario() -> None:
        gate = Gate()
        batcher = Batcher(gate, max_rows=1, max_queue=4)
        first = asyncio.ensure_future(batcher.submit(1))
        await entered(gate)
        second = asyncio.ensure_future(batcher.submit(2))
        await queued(batcher, 1)
        closing = asyncio.ensure_future(asyncio.to_thread(batcher.close))
        with pytest.raises(ApiError) as caught:
            await second
        assert (caught.value.status, caught.value.code) == (503, "shutting_down")
        with pytest.raises(ApiError):
            await batcher.submit(3)
        gate.open.set()
        await closing
        assert await first == 2

    asyncio.run(scenario())


def test_what_nobody_waits_for_any_more_is_not_finished():
    finished: list[int] = []

    def finish(item: int, result: int) -> int:
        finished.append(item)
        return result + 1

    async def scenario() -> None:
        gate = Gate()
        with ThreadPoolExecutor(1) as coder:
            batcher = Batcher(gate, 4, max_queue=4, finish=finish, finisher=coder)
            first = asyncio.ensure_future(batcher.submit(1))
            await entered(gate)
            first.cancel()
            second = asyncio.ensure_future(batcher.submit(2))
            await queued(batcher, 1)
            gate.open.set()
            assert await second == 5
            batcher.close()

    asyncio.run(scenario())
    assert finished == [2]


def test_the_engine_waits_for_results_that_are_not_finished_yet():
    held = threading.Event()
    computed: list[int] = []

    def compute(items: list[int]) -> list[int]:
        computed.extend(items)
        return items

    def finish(item: int, result: int) -> int:
        held.wait()
        return result + 1

    async def scenario() -> list[int]:
        with ThreadPoolExecutor(1) as coder:
            batcher = Batcher(compute, 1, max_queue=32, finish=finish, finisher=coder)
            tasks = [asyncio.ensure_future(batcher.submit(item)) for item in range(16)]
            await queued(batcher, 16 - UNFINISHED - 1)  # the one that is computed waits as well
            await asyncio.sleep(0.05)
            assert computed == list(range(UNFINISHED + 1))
            held.set()
            made = await asyncio.gather(*tasks)
            batcher.close()
            return made

    assert asyncio.run(scenario()) == list(range(1, 17))
