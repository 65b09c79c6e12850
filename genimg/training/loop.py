"""The training loop: counts in images, logs, saves; its surroundings are plain callables."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genimg import rng
from genimg.contracts import Batch, Sync
from genimg.training.method import Method

if TYPE_CHECKING:
    from genimg.recipe import Train


class Diverged(RuntimeError):
    """A loss or a weight is no longer a finite number."""


def fit(
    method: Method,
    batches: Iterator[Batch],
    train: Train,
    *,
    sync: Sync,
    log: Callable[[int, dict[str, float]], None],
    save: Callable[[Method], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train until `train.images` have been seen, or until a worker is asked to stop.

    log(seen, values) is called on every worker with the workers' mean of each loss, and
    `images_per_second` over all of them; save(method) on every worker at each checkpoint and at
    the end. Nothing is saved that is not finite: Diverged is raised instead.
    """
    window = Window(method.seen)
    while method.seen < train.images:
        before = method.seen
        # Networks that draw from torch's own generator (dropout) depend on the position alone.
        seed_generators(rng.seed_from(train.seed, before, sync.rank), method.device)
        batch = next(batches)
        losses = method.update(batch, sync)
        window.add(losses, batch.share)

        done = method.seen >= train.images
        at_log = done or crossed(train.log_every, before, method.seen)
        at_save = done or crossed(train.checkpoint_every, before, method.seen)
        if at_log or at_save:
            stop, values = window.close(method, sync, should_stop())
            log(method.seen, values)
            if at_save or stop:
                refuse_non_finite(method)
                save(method)
            if stop:
                return
            window = Window(method.seen)


def seed_generators(seed: int, device: torch.device) -> None:
    """As torch.manual_seed, which spends a third of a millisecond on devices not in use."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def crossed(every: int, before: int, after: int) -> bool:
    return before // every != after // every


def refuse_non_finite(method: Method) -> None:
    """Raise Diverged where anything of a snapshot is NaN or infinite (alike on all workers)."""
    for name, network in method.networks.items():
        moments = [t for state in method.optimizers[name].state.values() for t in state.values()]
        tensors = [*network.parameters(), *network.buffers(), *moments]
        largest = torch._foreach_norm([t for t in tensors if t.is_floating_point()], ord=math.inf)
        if not all(bool(value.isfinite()) for value in largest):
            raise Diverged(f"the weights of the {name} are not finite at {method.seen:,} images")


class Window:
    """Losses and time since the last line of the log, kept on the device until it is written."""

    def __init__(self, seen: int) -> None:
        self.seen = seen
        self.started = time.perf_counter()
        self.sums: dict[str, Tensor] = {}
        self.steps = 0
        self.share = 1.0

    def add(self, losses: dict[str, Tensor], share: float) -> None:
        for name, value in losses.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.steps += 1
        self.share = share

    def close(self, method: Method, sync: Sync, stop: bool) -> tuple[bool, dict[str, float]]:
        """(whether any worker wants to stop, mean values); raises Diverged on all workers."""
        local = torch.stack([value.float() / self.steps for value in self.sums.values()])
        wish = torch.tensor([float(stop)], device=local.device)
        *means, stopping = sync.mean(torch.cat([local, wish]), self.share).tolist()
        values = dict(zip(self.sums, means, strict=True))
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise Diverged(f"{bad[0]} is {values[bad[0]]} at {method.seen:,} images")
        elapsed = time.perf_counter() - self.started
        values["images_per_second"] = (method.seen - self.seen) / elapsed
        return stopping > 0, values
