"""Who sees to jobs: takes those that wait, watches those of others, and tells of their ends.

A runner holds a job by signs of life in its record. Who sees the same sign for `lease_s` takes the
job over; a runner that could give none for most of that time stops its work after the pass that it
is in, so that no job is computed twice at once. No clock is compared with another machine's.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from cluster.storage import NotFound, StorageError
from serving.backend import Backend
from serving.jobs import webhooks
from serving.jobs.job import Job
from serving.jobs.store import Lost, Store
from serving.jobs.work import Again, Work
from serving.metrics import Meters
from serving.settings import JobSettings

logger = logging.getLogger(__name__)

BEATS = 10  # signs of life in the time of a lease
RESTS = 0.3  # of a lease, for which a job that has shown a sign of life is not looked at
FENCE = 0.7  # of a lease, after which a runner without a sign stops its work
SWEEP_S = 300.0  # between two looks at all that is kept


class Runner:
    """Computes jobs of a store by a backend, `at_once` at a time, beside all other requests."""

    def __init__(
        self, store: Store, backend: Backend, settings: JobSettings, poll_s: float, meters: Meters
    ) -> None:
        self.store = store
        self.backend = backend
        self.settings = settings
        self.poll_s = poll_s
        self.meters = meters
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._computing: dict[str, asyncio.Event] = {}  # set: look at the record now
        self._seen: dict[str, tuple[tuple[str, int], float]] = {}  # signs of life, and since when
        self._rest: dict[str, float] = {}  # until when those that give some are not looked at
        self._ours: set[str] = set()  # models
        self._foreign: set[str] = set()  # jobs that none of them can do
        self._woken = asyncio.Event()
        self._watch_at = 0.0
        self._reachable = True
        self.left = 0  # jobs that are not over, but for those that none of our models can do

    def wake(self, id: str = "") -> None:
        """Look at once: for what waits, or whether a job of ours was cancelled."""
        self._woken.set()
        if id in self._computing:
            self._computing[id].set()

    async def run(self) -> None:
        """See to jobs until cancelled; what is not done then waits for another runner."""
        sweeping = asyncio.create_task(self._sweep())
        try:
            while True:
                self._woken.clear()
                try:
                    await self._look()
                    self._reachable = True
                except StorageError as error:
                    if self._reachable:  # said once, not at every look
                        logger.warning("jobs cannot be looked for: %s", error)
                    self._reachable = False
                except Exception:  # a fault of ours, of which all other jobs are to hear nothing
                    logger.exception("jobs could not be looked for")
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.poll_s):
                        await self._woken.wait()
        finally:
            tasks = [sweeping, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _sweep(self) -> None:
        pause = min(SWEEP_S, max(1.0, self.settings.keep_s / 10))
        while True:
            with suppress(StorageError):  # of which `run` warns
                await asyncio.to_thread(self.store.sweep)
            await asyncio.sleep(pause)

    async def _look(self) -> None:
        watches = time.monotonic() >= self._watch_at
        if not (watches or self._has_room()):
            return
        waiting, underway = await asyncio.to_thread(self.store.open)
        if watches:
            self._watch_at = time.monotonic() + self.settings.lease_s / BEATS
            await self._watch(underway)
        self._foreign &= set(waiting)
        if self._foreign and self._ours != await self._served():  # some may have come since
            self._foreign.clear()
        for id in waiting:
            if id not in self._foreign and id not in self._tasks and self._has_room():
                await self._take(id)
        if self.settings.at_once:
            self.left = len({*waiting, *underway} - self._foreign)

    async def _served(self) -> set[str]:
        return {model.id for model in await self.backend.models()}

    def _has_room(self) -> bool:
        return len(self._computing) < self.settings.at_once

    async def _watch(self, ids: list[str]) -> None:
        """Look after jobs that somebody is, or was, at work on."""
        self._seen = {id: seen for id, seen in self._seen.items() if id in ids}
        self._rest = {id: until for id, until in self._rest.items() if id in ids}
        for id in ids:
            if id in self._tasks or time.monotonic() < self._rest.get(id, 0.0):
                continue
            with suppress(NotFound):
                job = await asyncio.to_thread(self.store.load, id)
                if self._seen.get(id, (None,))[0] != job.sign:
                    if id in self._seen:
                        self._rest[id] = time.monotonic() + RESTS * self.settings.lease_s
                    self._seen[id] = job.sign, time.monotonic()
                idle = time.monotonic() - self._seen[id][1]
                free = not job.runner or idle >= self.settings.lease_s
                if job.state == "running":
                    if free and self._has_room():
                        await self._take(id, job.sign)
                elif not job.untold:
                    await asyncio.to_thread(self.store.mark, job)
                elif free:
                    token = secrets.token_hex(8)
                    if await asyncio.to_thread(self.store.claim_telling, id, token, job.sign):
                        self._start(id, self._tell(job, token))

    async def _take(self, id: str, seen: tuple[str, int] | None = None) -> None:
        """Begin a job, if nobody else does."""
        token = secrets.token_hex(8)
        ours = self._ours = await self._served()

        def able(job: Job) -> bool:
            return job.model is None or job.model in ours

        claim = asyncio.ensure_future(asyncio.to_thread(self.store.claim, id, token, able, seen))
        try:
            job = await asyncio.shield(claim)
        except asyncio.CancelledError:  # this process ends, and may have taken it
            with suppress(StorageError):
                if (await claim).runner == token:
                    await self._release(id, token, counted=False)
            raise
        except NotFound:  # deleted, or not whole yet
            return
        if job.runner == token:
            self._computing[id] = asyncio.Event()
            self._start(id, self._carry_out(job, token))
        elif not able(job):
            self._foreign.add(id)
        elif job.state == "failed":  # begun too often
            self._ended(job)

    def _start(self, id: str, work: Coroutine[Any, Any, None]) -> None:
        def forget(task: asyncio.Task[None]) -> None:
            del self._tasks[id]
            self._computing.pop(id, None)
            self._watch_at = 0.0  # its webhook may be to tell
            self._woken.set()
            if not task.cancelled() and (error := task.exception()):
                logger.error("%s: given up by its runner", id, exc_info=error)

        self._tasks[id] = asyncio.create_task(work)
        self._tasks[id].add_done_callback(forget)

    async def _carry_out(self, job: Job, token: str) -> None:
        """Compute a job of ours to its end, as long as it is ours."""
        work = Work(job, self.store, self.backend, self.settings.timeout_s)
        computing = asyncio.create_task(work.done())
        try:
            await self._hold(job.id, token, work, computing)
            changes = computing.result()
            self._ended(await asyncio.to_thread(self.store.end, job.id, token, **changes))
        except Lost as reason:
            logger.info("%s", reason)
        except Again as again:
            await self._release(job.id, token, again.counted)
        except StorageError as error:  # the lease runs out, and somebody takes it over
            logger.warning("%s: %s", job.id, error)
        except asyncio.CancelledError:  # this process ends
            computing.cancel()
            await self._release(job.id, token, counted=False)
            raise
        finally:
            computing.cancel()
            await asyncio.gather(computing, return_exceptions=True)

    async def _hold(
        self, id: str, token: str, work: Work, computing: asyncio.Task[dict[str, Any]]
    ) -> None:
        """Give signs of life until a job is computed. Raises Lost."""
        lease = self.settings.lease_s
        last = time.monotonic()
        look = self._computing[id]
        while True:
            looking = asyncio.create_task(look.wait())
            try:
                await asyncio.wait(
                    [computing, looking], timeout=lease / BEATS, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                looking.cancel()
            if computing.done():
                return
            look.clear()
            began = time.monotonic()
            try:
                async with asyncio.timeout(max(0.0, last + FENCE * lease - began)):
                    await asyncio.to_thread(self.store.beat, id, token, work.progress)
                last = began
            except TimeoutError:
                raise Lost(f"{id}: no sign of life could be given; another may go on") from None
            except StorageError as error:
                logger.warning("%s: %s", id, error)

    async def _release(self, id: str, token: str, counted: bool) -> None:
        try:
            await asyncio.to_thread(self.store.release, id, token, counted)
        except Lost as reason:
            logger.info("%s", reason)
        except StorageError as error:  # the lease runs out, and somebody takes it over
            logger.warning("%s: %s", id, error)

    async def _tell(self, job: Job, token: str) -> None:
        """Tell a job's webhook that it has ended."""
        well = False
        with suppress(Lost):
            for pause in webhooks.PAUSES:
                await asyncio.sleep(pause)
                await asyncio.to_thread(self.store.beat, job.id, token)
                well = await asyncio.to_thread(webhooks.tell, job, self.settings.keep_s)
                if well:
                    break
            await asyncio.to_thread(self.store.told, job.id, token, well)

    def _ended(self, job: Job) -> None:
        self.meters.jobs.labels(job.operation, job.state).inc()
