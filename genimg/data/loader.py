"""The loader: an endless, seeded, sharded, resumable stream of batches on the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import cast

import numpy as np
import torch
from torch import Tensor

from genimg import rng
from genimg.contracts import Batch, Dataset, Rows, Stored
from genimg.data.columns import ready
from genimg.data.transfer import to_device
from genimg.errors import InputError

_KEYS, _CROPS, _AUGMENTATION = 11, 12, 13  # tags that keep the uses of a key apart

MOST_AT_ONCE = 8  # batches
VALUES_AT_ONCE = 2**22  # of images, float32: 16 MB


class Loader:
    """Iterating yields Batch after Batch, without end.

    The global batch of step s holds positions [seen, seen + batch_size) of the dataset's endless
    order, and worker `rank` of `world` takes its contiguous part: so the sequence of global
    batches is the same for any number of workers, and resuming is starting at another `seen`.

    together: neighbours in a batch that are not divided; the batch is a multiple of so many
    augment: (columns as they are stored, keys [N], positions int64 [N] in the training) -> the
        same, turned; on the device
    draw: keys [N] of images -> columns of random numbers that the method wants beside them
    prefetch: batches prepared ahead by a background thread, at least (some at once: see at_once);
        on a GPU in a stream of its own: it computes beside the training, and neither waits for the
        other
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        augment: Callable[[Stored, Tensor, Tensor], Stored],
        draw: Callable[[Tensor], Rows] = lambda keys: {},
        rank: int = 0,
        world: int = 1,
        together: int = 1,
        seen: int = 0,
        prefetch: int = 2,
    ) -> None:
        refuse_small_batch(batch_size, world, together)
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self.augment = augment
        self.draw = draw
        self.seen = seen
        self.prefetch = prefetch
        parts = batch_size // together
        self.share = slice(parts * rank // world * together, parts * (rank + 1) // world * together)

    def __iter__(self) -> Generator[Batch, None, None]:
        with ThreadPoolExecutor(1, thread_name_prefix="loader") as thread:
            prepare = Prefetch(self.batches, self.device)
            pending: deque[Future[Callable[[], Batch]]] = deque()
            at_once = self.at_once
            ahead = -(-self.prefetch // at_once)
            try:
                while True:
                    while len(pending) <= ahead:
                        pending.append(thread.submit(prepare, self.seen, at_once))
                        self.seen += at_once * self.batch_size
                    receive = pending.popleft().result()
                    yield from apart(receive(), at_once, self.batch_size)
            finally:
                for future in pending:
                    future.cancel()

    @property
    def at_once(self) -> int:
        """Batches that are prepared in one go: several, while they are small and at hand.

        A call into PyTorch costs as much for few numbers as for many, and there are some two
        hundred in a batch, each of which the thread that trains would have to wait for.
        """
        if not self.dataset.at_hand:
            return 1
        pixels = self.dataset.channels * self.dataset.size**2
        largest = max(1, (self.share.stop - self.share.start) * pixels)
        return max(1, min(MOST_AT_ONCE, VALUES_AT_ONCE // largest))

    def batch(self, seen: int) -> Batch:
        """This worker's part of the global batch that starts at position `seen`."""
        return self.batches(seen, 1)

    def batches(self, seen: int, count: int) -> Batch:
        """As batch(), of so many global batches, one after the other."""
        starts = seen + self.batch_size * np.arange(count, dtype=np.int64)
        inside = np.arange(self.batch_size, dtype=np.int64)[self.share]
        positions = (starts[:, None] + inside).reshape(-1)
        places = torch.from_numpy(positions)
        keys = rng.fold(self.seed, _KEYS, places)
        uses = torch.stack([keys, rng.fold(keys, _CROPS), rng.fold(keys, _AUGMENTATION), places])
        keys, crops, turns, places = to_device(uses, self.device)
        if self.dataset.device is not None and self.dataset.device.type == "cpu":
            crops = uses[1]  # not back from the device, for which one would have to wait
        indices = self.dataset.locate(positions, self.seed, self.batch_size)
        stored = self.dataset.fetch(indices, crops)
        stored = {name: to_device(column, self.device) for name, column in stored.items()}
        varied = ready(self.augment(stored, turns, places))
        rows = cast("Rows", varied | cast("Stored", self.draw(keys)))
        return Batch(rows, keys, count * self.batch_size)


def apart(batches: Batch, count: int, total: int) -> Iterator[Batch]:
    """`count` batches out of what was prepared in one go; each is `total` images over all workers.

    They share memory with it, and one another with none.
    """
    here = len(batches.keys) // count
    columns = cast("dict[str, Tensor]", batches.rows)
    for start in range(0, len(batches.keys), here):
        rows = {name: column[start : start + here] for name, column in columns.items()}
        yield Batch(cast("Rows", rows), batches.keys[start : start + here], total)


class Prefetch:
    """Prepares batches in another thread, and hands them over to the one that trains.

    On a GPU the work goes to a stream beside that of the training. What is handed over is a
    function that the training's thread calls: its stream, not the thread, waits for the batch.
    """

    def __init__(self, batches: Callable[[int, int], Batch], device: torch.device) -> None:
        self.batches = batches
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self.stream:  # for what was put on the device so far, as a data set's pixels
            self.stream.wait_stream(torch.cuda.current_stream(device))

    def __call__(self, seen: int, count: int) -> Callable[[], Batch]:
        """Prepare so many batches from a position on; called in the background."""
        if self.stream is None:
            batches = self.batches(seen, count)
            return lambda: batches
        with torch.cuda.stream(self.stream):
            batches = self.batches(seen, count)
            ready = self.stream.record_event()
        return lambda: received(batches, ready)


def received(batch: Batch, ready: torch.cuda.Event) -> Batch:
    """A batch of another stream, which the current one will not touch before it is there."""
    current = torch.cuda.current_stream(batch.keys.device)
    current.wait_event(ready)
    columns = cast("list[Tensor]", list(batch.rows.values()))
    for tensor in (*columns, batch.keys):
        tensor.record_stream(current)  # its memory is not given away before this one is done
    return batch


def refuse_small_batch(batch_size: int, workers: int, together: int) -> None:
    """InputError where there are more workers than images in a step, or parts of so many."""
    if workers > batch_size // together:
        raise InputError(
            f"train.batch_size={batch_size} cannot be shared by {workers} workers; "
            f"use at most {batch_size // together} workers"
        )
