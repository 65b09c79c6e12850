"""One order for any number of workers, each of which reads a part of the row groups of its own."""

from itertools import pairwise
from math import gcd

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genimg.data.order import STREAMS, WINDOW_BYTES, StreamedOrder
from genimg.data.row_groups import GroupCache
from genimg.data.shard_files import RowGroup
from genimg.data.shard_writing import GROUP_ROWS

KB, MB = 1 << 10, 1 << 20

group_rows = st.lists(st.integers(0, 900), min_size=1, max_size=150).filter(any)
row_bytes = st.sampled_from([1, 10 * KB, 100 * KB, MB, 300 * MB])


@given(group_rows, st.integers(0, 2**40), st.integers(0, 3), row_bytes, st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_each_epoch_is_a_permutation_however_it_is_asked_for(
    rows, seed, epoch, row_bytes, batch_size
):
    rows = np.array(rows)
    order = StreamedOrder(rows, rows * row_bytes)
    positions = np.arange(epoch * order.total, (epoch + 1) * order.total)
    indices = order.locate(positions, seed, batch_size)
    assert np.array_equal(np.sort(indices), np.arange(order.total))

    fresh = StreamedOrder(rows, rows * row_bytes)  # resumed: nothing was asked before
    chosen = np.random.default_rng(seed).permutation(len(positions))[:50]
    assert np.array_equal(fresh.locate(positions[chosen], seed, batch_size), indices[chosen])


@given(group_rows, row_bytes, st.integers(1, 100), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_what_is_read_ahead_is_what_comes(rows, row_bytes, batch_size, seen):
    rows = np.array(rows)
    order = StreamedOrder(rows, rows * row_bytes)
    group_of = np.repeat(np.arange(len(rows)), rows)
    seen -= seen % batch_size
    ahead: set[int] = set()
    previous: set[int] = set()
    for start in range(seen, seen + 5 * batch_size, batch_size):
        positions = np.arange(start, start + batch_size)
        windows = order.windows(positions, 1, batch_size)
        open_groups = set(order.groups(windows).tolist())
        used = set(group_of[order.locate(positions, 1, batch_size)].tolist())
        assert used <= open_groups
        one_by_one = all(np.diff(order.epoch(1, w.epoch, batch_size).starts)[w.number] >= batch_size
                         for w in windows)  # fmt: skip
        if start > seen and one_by_one and batch_size < order.total // 4:
            assert used <= previous | ahead
        previous, ahead = open_groups, set(order.groups(order.following(windows)).tolist())


def test_epochs_seeds_and_batch_sizes_differ():
    rows = np.full(20, 100)
    order = StreamedOrder(rows, rows)
    first = order.locate(np.arange(4000), 1, 64)
    assert not np.array_equal(first[:2000], first[2000:])
    assert not np.array_equal(first[:2000], order.locate(np.arange(2000), 2, 64))


def groups_read(order: StreamedOrder, world: int, batch_size: int, epochs: int = 1) -> list[int]:
    """How many row groups each worker reads, counting one again that it comes back to."""
    group_of = np.repeat(np.arange(len(order.rows)), order.rows)
    total = epochs * order.total // batch_size * batch_size
    located = group_of[order.locate(np.arange(total), 7, batch_size)].reshape(-1, batch_size)
    bounds = np.arange(world + 1) * batch_size // world
    return [len(np.unique(located[:, low:high])) for low, high in pairwise(bounds)]


@pytest.mark.parametrize("world", [1, 2, 8, 48, 64, 96])
def test_workers_read_row_groups_of_their_own(world):
    rows = np.full(640, 50)
    order = StreamedOrder(rows, rows * 100 * KB)
    assert order.streams == STREAMS
    read = groups_read(order, world, batch_size=192)
    shared = world - gcd(world, STREAMS)  # streams that are cut between two workers
    assert sum(read) <= 640 * (1 + shared / STREAMS) + STREAMS + world
    touched = STREAMS // world + (2 if shared else 0)  # streams of one worker
    assert max(read) <= touched * (640 // STREAMS + 1)


@given(group_rows, st.integers(1, 64), st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_workers_together_read_little_more_than_the_set(rows, world, batch_size):
    rows = np.array(rows)
    order = StreamedOrder(rows, rows * 10 * KB)
    batch_size = min(max(batch_size, world), int(rows.sum()))
    read = groups_read(order, world, batch_size)
    assert sum(read) <= np.count_nonzero(rows) + 2 * (world + order.streams)


def test_a_batch_is_of_many_row_groups_from_everywhere():
    rows = np.full(400, GROUP_ROWS)
    order = StreamedOrder(rows, rows * KB)
    groups = order.locate(np.arange(GROUP_ROWS * STREAMS), 0, 64) // GROUP_ROWS
    assert len(np.unique(groups[:64])) == STREAMS
    assert np.ptp(np.unique(groups[:64])) > 300  # not neighbours
    assert len(np.unique(groups)) <= 2 * STREAMS  # and few are open at a time


def test_many_tiny_row_groups_are_shuffled_together():
    order = StreamedOrder(np.full(6000, 10), np.full(6000, 10 * KB))
    groups = order.locate(np.arange(0, 64 * 500, 64), 0, 64) // 10  # of the first stream
    assert len(np.unique(groups[:50])) > 30


@pytest.mark.parametrize(("row_bytes", "world"), [(12_000, 1), (100_000, 4), (1_000_000, 1)])
def test_streaming_an_epoch_reads_each_row_group_about_once_within_bounds(row_bytes, world):
    group_rows = max(1, min(GROUP_ROWS, 6 * MB // row_bytes))
    rows = np.full(600, group_rows)
    order = StreamedOrder(rows, rows * row_bytes)
    assert order.streams == STREAMS
    group_bytes = group_rows * row_bytes
    capacity = 2 * WINDOW_BYTES
    reads = 0
    for rank in range(world):
        cache = GroupCache(lambda g: RowGroup(g, {}, group_bytes), capacity)
        places = slice(256 * rank // world, 256 * (rank + 1) // world)
        for seen in range(0, order.total - 255, 256):
            positions = np.arange(seen, seen + 256)[places]
            used = order.groups(order.windows(positions, 0, 256))
            assert (
                len(used) * group_bytes <= capacity
            )  # a batch may end one window and begin another
            for group in np.unique(order.locate(positions, 0, 256) // group_rows).tolist():
                assert cache.get(group).number == group
                assert cache.bytes <= capacity
        reads += cache.reads
    assert reads <= 600 + STREAMS


def test_large_row_groups_of_other_programs_are_few_at_a_time():
    rows = np.full(40, 1000)
    order = StreamedOrder(rows, rows * 100 * KB)
    assert order.streams == 4
    positions = np.arange(4000)
    groups = np.unique(order.locate(positions, 0, 100) // 1000)
    assert len(groups) * 100_000 * KB <= 2 * WINDOW_BYTES


def test_a_resumed_training_gets_the_rows_that_it_would_have_got():
    """Known values: what a run that has begun must find again with any later version."""
    order = StreamedOrder(np.array([3, 0, 5, 4]), np.full(4, 1000))
    assert order.locate(np.arange(24), 7, 5).tolist() == [
        5, 7, 9, 11, 2, 4, 8, 10, 0, 1, 3, 6,
        5, 7, 11, 1, 3, 4, 9, 10, 0, 2, 6, 8,
    ]  # fmt: skip
