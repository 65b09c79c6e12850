"""A job from its claim to its end: what is left of it is done, here or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from genimg.errors import InputError
from jobs.console import Meter, say
from jobs.offline.job import Chunk, Item, Job, Outcome, chunks_of
from jobs.offline.record import done_before, forget

if TYPE_CHECKING:
    from jobs.offline.making import Maker
    from jobs.offline.worker import Tick


def perform(
    job: Job,
    items: Sequence[Item],
    count: int,
    *,
    here: Callable[[Job], Maker],
    workers: int | None = None,
) -> list[list[str]]:
    """[what, why] of what failed of a job that was claimed. Raises InputError.

    items: what is to be read; none where `count` images are drawn
    here: what makes results for this process; used without `workers`
    """
    chunks = list(left(job, items, count))
    done = count - sum(len(chunk) for chunk in chunks)
    if done:
        say(f"{done:,} of {count:,} are done already")
    failed: list[list[str]] = []
    broken = 0
    with Meter(job.operation, count) as meter:

        def tick(more: int, failures: int = 0) -> None:
            nonlocal done, broken
            done += more
            broken += failures
            meter.update(done, {"failed": broken} if broken else {})

        with closing(outcomes_of(job, chunks, here, workers, tick)) as outcomes:
            for outcome in outcomes:
                if outcome.refused:
                    forget(job)
                    raise InputError(outcome.refused)
                failed += outcome.failed
                if workers is not None:
                    tick(outcome.count + len(outcome.failed), len(outcome.failed))
    return failed


def outcomes_of(
    job: Job,
    chunks: Sequence[Chunk],
    here: Callable[[Job], Maker],
    workers: int | None,
    tick: Tick,
) -> Generator[Outcome, None, None]:
    if not chunks:
        return
    if workers is not None:
        from jobs.offline.on_data import do_on_ray

        yield from do_on_ray(job, chunks, workers)
        return
    from jobs.offline.worker import Worker

    worker = Worker(job, here(job))
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
        missing = [item for item in items if job.picture(item) not in done]
        yield from chunks_of(job, missing, len(missing))
        return
    for chunk in chunks_of(job, items, count):
        keys = [chunk.key] if chunk.key else [job.key(n) for n in range(chunk.start, chunk.stop)]
        if not all(key in done for key in keys):
            yield chunk
