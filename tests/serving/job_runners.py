"""Runners of jobs over a backend that computes nothing, and notes what it was asked for."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from cluster.places import open_storage
from cluster.storage import StorageError
from genimg.operations.drawing import Sample
from serving.jobs.job import Job
from serving.jobs.runner import Runner
from serving.jobs.store import Store
from serving.metrics import Meters
from serving.requests import Answer, ModelInfo, Request, Timings
from serving.settings import JobSettings

LEASE_S = 0.5  # the shortest that may be asked for


class Computing:
    """A backend that computes in steps, and notes what it computes at a time."""

    def __init__(self, steps: int = 1, step_s: float = 0.0) -> None:
        self.steps, self.step_s = steps, step_s
        self.now: Counter[int] = Counter()  # by seeds
        self.begun: Counter[int] = Counter()
        self.most = 0  # of one seed at once
        self.refusals: list[Exception] = []
        self.served = (ModelInfo("m@1", "m", "ready", 1, ("sample", "denoise")),)

    async def models(self) -> list[ModelInfo]:
        return list(self.served)

    def ready(self) -> bool:
        return True

    async def call(self, model, request, tell=lambda share: None) -> Answer:
        seed = getattr(request.operation, "seed", -1)
        self.begun[seed] += 1
        self.now[seed] += 1
        self.most = max(self.most, self.now[seed])
        try:
            if self.refusals:
                raise self.refusals.pop(0)
            for step in range(self.steps):
                await asyncio.sleep(self.step_s)
                tell((step + 1) / self.steps)
            body = b"image of %d %s" % (seed, b"".join(request.files.values()))
            return Answer((body,), "png", "1x1", (seed,), "m@1", 1, Timings(0, 0, 0), "float32")
        finally:
            self.now[seed] -= 1


def store_at(place: str | Path, **more) -> Store:
    return Store(
        open_storage(str(place)), **{"max_queued": 100, "keep_s": 60, "attempts": 3} | more
    )


def runner_of(store: Store, backend: Computing, **more) -> Runner:
    settings = JobSettings(**{"lease_s": LEASE_S} | more)
    return Runner(store, backend, settings, poll_s=0.1, meters=Meters())


@asynccontextmanager
async def working(*runners: Runner) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(runner.run()) for runner in runners]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(happened: Callable[[], object], patience: float = 60) -> None:
    end = time.monotonic() + patience
    while not await asyncio.to_thread(happened):
        assert time.monotonic() < end, "it never happened"
        await asyncio.sleep(0.02)


def new(store: Store, seed: int = 0, **more) -> Job:
    job = Job.of(Request(Sample(seed=seed)), form="image", model="m@1", **more)
    store.accept(job, {})
    return job


def kill(runner: Runner) -> None:
    """Let a runner end as a process does that is killed: it does nothing more."""

    def dead(*_: object, **__: object) -> None:
        raise StorageError("dead")

    for name in ("beat", "end", "release", "claim", "open", "sweep", "keep"):
        setattr(runner.store, name, dead)
