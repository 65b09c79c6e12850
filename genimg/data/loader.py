"""The loader: an endless, seeded, sharded, resumable stream of batches on the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from genimg import rng
from genimg.contracts import Batch, Dataset
from genimg.errors import InputError

_KEYS, _CROPS, _AUGMENTATION = 11, 12, 13  # tags that keep the uses of a key apart


class Loader:
    """Iterating yields Batch after Batch, without end.

    The global batch of step s holds positions [seen, seen + batch_size) of the dataset's endless
    order, and worker `rank` of `world` takes its contiguous part: so the sequence of global
    batches is the same for any number of workers, and resuming is starting at another `seen`.

    augment: (images uint8 [N, C, H, W], keys [N]) -> images, on the device
    prefetch: batches prepared ahead by a background thread
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        augment: Callable[[Tensor, Tensor], Tensor],
        rank: int = 0,
        world: int = 1,
        seen: int = 0,
        prefetch: int = 2,
    ) -> None:
        refuse_small_batch(batch_size, world)
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self.augment = augment
        self.seen = seen
        self.prefetch = prefetch
        self.share = slice(batch_size * rank // world, batch_size * (rank + 1) // world)

    def __iter__(self) -> Iterator[Batch]:
        with ThreadPoolExecutor(1, thread_name_prefix="loader") as thread:
            pending: deque[Future[Batch]] = deque()
            try:
                while True:
                    while len(pending) <= self.prefetch:
                        pending.append(thread.submit(self.batch, self.seen))
                        self.seen += self.batch_size
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def batch(self, seen: int) -> Batch:
        """This worker's part of the global batch that starts at position `seen`."""
        positions = np.arange(seen, seen + self.batch_size, dtype=np.int64)[self.share]
        keys = rng.fold(self.seed, _KEYS, torch.from_numpy(positions)).to(self.device)
        indices = self.dataset.locate(positions, self.seed, self.batch_size)
        images, labels = self.dataset.fetch(indices, rng.fold(keys, _CROPS))
        images = self.augment(self.to_device(images), rng.fold(keys, _AUGMENTATION))
        floats = images.to(torch.float32, memory_format=torch.channels_last)
        return Batch(
            floats.mul_(2 / 255).sub_(1),
            None if labels is None else self.to_device(labels),
            keys,
            self.batch_size,
        )

    def to_device(self, tensor: Tensor) -> Tensor:
        if self.device.type == "cuda" and tensor.device.type == "cpu":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)


def refuse_small_batch(batch_size: int, workers: int) -> None:
    """InputError where there are more workers than images in a step."""
    if workers > batch_size:
        raise InputError(
            f"train.batch_size={batch_size} cannot be shared by {workers} workers; "
            f"use at most {batch_size} workers"
        )
