"""The training loop: counts in images, logs, saves; its surroundings are plain callables."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from genimg import rng
from genimg.contracts import Batch, Sync
from genimg.schedule import Train
from genimg.training.method import Method
from genimg.training.transfer import agree

LATE = 8.0  # seconds, about, after which a line of the log comes before train.log_every images


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
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Train until `train.images` have been seen, or until a worker is asked to stop.

    log(seen, values) is called on every worker with the workers' mean of each loss, and
    `images_per_second` over all of them; save(method) on every worker at each checkpoint and at
    the end. Nothing is saved that is not finite: Diverged is raised instead.

    Only a line of the log makes the workers wait for their devices and for one another, so at
    most about one comes in `train.log_seconds`, and at least one in LATE. When the next one is due
    follows from the speed that the workers agreed on at the last one, the first of which comes
    after a step; between lines nothing needs to be said.
    should_stop() is asked at each line and must not block.
    """
    window = Window(method.seen, 0, clock, late=0 if train.log_seconds else math.inf)
    while method.seen < train.images:
        before = method.seen
        # Networks that draw from torch's own generator (dropout) depend on the position alone.
        seed_generators(rng.seed_from(train.seed, before, sync.rank), method.device)
        batch = next(batches)
        losses = method.update(batch, sync)
        window.add(losses, batch.share)

        done = method.seen >= train.images
        at_interval = crossed(train.log_every, before, method.seen)
        at_log = (
            done
            or window.is_late(method.seen)
            or (at_interval and window.is_long_enough(method.seen))
        )
        at_save = done or crossed(train.checkpoint_every, before, method.seen)
        if at_log or at_save:
            agree(method, sync)
            stop, values = window.close(method, sync, should_stop())
            log(method.seen, values)
            if at_save or stop:
                refuse_non_finite(method)
                save(method)
            if stop:
                return
            speed = values["images_per_second"]
            window = window.next(method.seen, speed, train.log_seconds)


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
        floats = [tensor for tensor in tensors if tensor.is_floating_point()]
        # the largest value takes fifteen times as long as the norm, which may overflow
        if not any(are_finite(torch._foreach_norm(floats, order)) for order in (2, math.inf)):
            raise Diverged(f"the weights of the {name} are not finite at {method.seen:,} images")


def are_finite(values: Sequence[Tensor]) -> bool:
    return bool(torch.stack([value.float() for value in values]).isfinite().all())


class Window:
    """Losses and time since the last line of the log, kept on the device until it is written.

    span: how many images the next line should be away, at least
    late: and at most, infinite where nobody minds
    """

    def __init__(
        self, seen: int, span: float, clock: Callable[[], float], late: float = math.inf
    ) -> None:
        self.seen = seen
        self.span = span
        self.late = late
        self.clock = clock
        self.started = clock()
        self.sums: dict[tuple[str, ...], list[Tensor]] = {}  # by what a step reported
        self.steps: Counter[tuple[str, ...]] = Counter()
        self.share = 1.0

    def add(self, losses: dict[str, Tensor], share: float) -> None:
        """losses: not every step has to report all."""
        names = tuple(losses)
        values = [value.detach().float() for value in losses.values()]
        if names in self.sums:
            torch._foreach_add_(self.sums[names], values)
        else:
            self.sums[names] = [value.clone() for value in values]
        self.steps[names] += 1
        self.share = share

    def is_long_enough(self, seen: int) -> bool:
        return seen - self.seen >= self.span

    def is_late(self, seen: int) -> bool:
        return seen - self.seen >= self.late

    def close(self, method: Method, sync: Sync, stop: bool) -> tuple[bool, dict[str, float]]:
        """(whether any worker wants to stop, mean values); raises Diverged on all workers.

        All of it, the time as well, is the workers' mean, so that they agree on what follows.
        """
        every = [value for values in self.sums.values() for value in values]
        totals = iter(torch.stack(every).tolist())  # waits for the device, and only then
        elapsed = self.clock() - self.started
        means: dict[str, float] = {}
        counts = {name: sum(n for names, n in self.steps.items() if name in names)
                  for names in self.sums for name in names}  # fmt: skip
        for names in self.sums:
            for name in names:
                means[name] = means.get(name, 0.0) + next(totals) / counts[name]
        mine = [*means.values(), float(stop), elapsed]
        told = torch.tensor(mine, dtype=torch.float64, device=method.device)
        *agreed, stopping, elapsed = sync.mean(told, self.share).tolist()
        values = dict(zip(means, agreed, strict=True))
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise Diverged(f"{bad[0]} is {values[bad[0]]} at {method.seen:,} images")
        values["images_per_second"] = (method.seen - self.seen) / max(elapsed, 1e-9)
        return stopping > 0, values

    def next(self, seen: int, images_per_second: float, seconds: float) -> Window:
        """A window that lasts about so many seconds.

        At most twice as long as this one, for what was measured may have been a short burst.
        """
        longest = 2 * max(seen - self.seen, self.span)
        late = images_per_second * max(seconds, LATE) if seconds else math.inf
        return Window(seen, min(images_per_second * seconds, longest), self.clock, late)
