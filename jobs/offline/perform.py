"""A job from its claim to its end: what is left of it is done, here or on a cluster."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

from cluster.places import open_storage
from genimg.errors import InputError
from jobs.console import Meter, say
from jobs.offline.job import Chunk, Item, Job, Outcome, chunks_of
from jobs.offline.record import claim, done_before, release

if TYPE_CHECKING:
    from genimg.engine import Engine

_READERS = 16  # parts that are read at a time
_TOLD = 3  # failures that are told at the terminal


def perform(
    job: Job,
    items: Sequence[Item],
    count: int,
    *,
    engine: Engine | None = None,
    workers: int | None = None,
    overwrite: bool = False,
) -> tuple[Job, list[list[str]]]:
    """(the job as it was claimed, [what, why] of what failed). Raises InputError.

    items: what is to be read; none where `count` images are drawn
    engine: that of the job's model, in this process; None: on `workers` of a cluster
    """
    given = job.options.get("seed")
    job = claim(job, overwrite)
    if given == -1:
        say(f"drawn at random: --seed {job.options['seed']}")
    chunks = list(left(job, items, count))
    done = count - sum(len(chunk) for chunk in chunks)
    if done:
        say(f"{done:,} of {count:,} are done already")
    failed: list[list[str]] = []
    with Meter(job.operation, count) as meter:

        def tick(more: int) -> None:
            nonlocal done
            done += more
            meter.update(done, {"failed": len(failed)} if failed else {})

        with closing(outcomes_of(job, chunks, engine, workers, tick)) as outcomes:
            for outcome in outcomes:
                if outcome.refused:
                    raise InputError(outcome.refused)
                failed += outcome.failed
                tick(0 if engine else outcome.count + len(outcome.failed))
    release(job, failed)
    return job, failed


def outcomes_of(
    job: Job,
    chunks: Sequence[Chunk],
    engine: Engine | None,
    workers: int | None,
    tick: Any,
) -> Generator[Outcome, None, None]:
    if not chunks:
        return
    if engine is None:
        from jobs.offline.on_data import do_on_ray

        assert workers is not None, "either this process or a cluster"
        yield from do_on_ray(job, chunks, workers)
        return
    from jobs.offline.worker import Worker

    worker = Worker(job, engine)
    for chunk in chunks:
        yield worker(chunk, tick)


def left(job: Job, items: Sequence[Item], count: int) -> Iterator[Chunk]:
    """Chunks of what has no result yet. Where chunks have files of their own a worker looks into
    those, for what failed."""
    if job.form == "lines":
        yield from chunks_of(job, items, count)
        return
    done = done_before(job)
    if items:
        missing = [item for item in items if item.key not in done]
        yield from chunks_of(job, missing, len(missing))
        return
    for chunk in chunks_of(job, items, count):
        keys = [chunk.key] if chunk.key else [job.key(n) for n in range(chunk.start, chunk.stop)]
        if not all(key in done for key in keys):
            yield chunk


def tell(failed: Sequence[Sequence[str]], where: str) -> None:
    """Tell of what failed, at the terminal.

    where: the place of its list, or empty.
    """
    for what, why in failed[:_TOLD]:
        say(f"failed: {what}: {why}")
    if len(failed) > _TOLD or where:
        listed = f"; all are in {where}; the same command tries them again" if where else ""
        say(f"{len(failed):,} failed{listed}")


def lines_of(job: Job, items: Sequence[Item]) -> Iterator[dict[str, Any]]:
    """What a job has told of its items, in their order."""
    storage = open_storage(job.output)
    keys = [chunk.key for chunk in chunks_of(job, items, len(items))]
    with ThreadPoolExecutor(_READERS) as pool:
        for data, _ in pool.map(storage.read, keys):
            for line in data.splitlines():
                yield json.loads(line)
