"""Where jobs are kept: any number of servers and replicas may share a storage.

    jobs/all/ID/job.json         its record: what is true of it, changed by conditional writes only
    jobs/all/ID/inputs/NAME      what it is done on, until it has ended
    jobs/all/ID/result-TOKEN     the answer's body, of the attempt that the record names
    jobs/open/ID                 that it has not ended, or its webhook is still to be told
    jobs/keys/...                see serving.jobs.once
    jobs/running/ID              a hint, perhaps wrong: that somebody is at work on it

A job is in `open` before it has a record, and as long as there is something to be done about it, so
that none is lost whoever ends when. Those with the hint are watched, the others are to be taken up;
a wrong hint does no harm, since both look at the record.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from cluster.storage import Changed, NotFound, Storage, StorageError
from serving.jobs import once
from serving.jobs.job import Failure, Job, belongs, is_id, time_of

ALL, OPEN, RUNNING = "jobs/all", "jobs/open", "jobs/running"
UNFINISHED_S = 3600.0  # after which what has no record is no job that is being accepted any more


class Full(Exception):
    """So many jobs wait that no other is taken."""


class Lost(Exception):
    """A job is no longer that of the runner that holds it: cancelled, deleted, or another's."""


class Store:
    """Jobs in a storage. All methods may take long, raise StorageError, and run in any thread."""

    def __init__(self, storage: Storage, max_queued: int, keep_s: float, attempts: int) -> None:
        self.storage = storage
        self.max_queued = max_queued
        self.keep_s = keep_s
        self.attempts = attempts
        self._accepting = threading.Lock()
        self._over: dict[str, float] = {}  # when jobs ended that are looked at no more
        self._keyed: dict[str, str] = {}  # jobs, by keys that they were asked for with

    def accept(self, job: Job, files: Mapping[str, bytes]) -> int:
        """Keep a new job and its inputs; its place in the queue. Raises Full."""
        with self._accepting:
            waiting = len(self.open()[0])
            if waiting >= self.max_queued:
                raise Full
            self.storage.write(f"{OPEN}/{job.id}", b"")
        try:
            for name, data in files.items():
                self.storage.write(f"{ALL}/{job.id}/inputs/{name}", data)
            self.storage.create(record(job.id), encoded(job))
        except BaseException:
            with suppress(StorageError):
                self._delete(job.id)
            raise
        return waiting + 1

    def load(self, id: str) -> Job:
        """Raises NotFound."""
        return Job.read(id, self.storage.read(record(id))[0])

    def open(self) -> tuple[list[str], list[str]]:
        """Ids of those that wait, the next one first, and of those that somebody is, or was, at
        work on."""
        running = set(self.storage.children(RUNNING))  # first: what is taken now may be in both
        ids = [id for id in self.storage.children(OPEN) if is_id(id)]
        return [id for id in ids if id not in running], [id for id in ids if id in running]

    def position(self, job: Job) -> int | None:
        if job.state != "queued":
            return None
        ids = self.open()[0]
        return ids.index(job.id) + 1 if job.id in ids else 1

    def page(self, owner: str, limit: int, after: str | None) -> tuple[list[Job], bool]:
        """(an owner's jobs, newest first, from behind one of them; whether there are more)"""
        ids = [id for id in self.storage.children(ALL) if belongs(id, owner)]
        ids = [id for id in reversed(ids) if after is None or id < after]
        found: list[Job] = []
        for id in ids:
            with suppress(NotFound):  # deleted meanwhile, or being accepted
                if len(found) == limit:
                    return found, True
                found.append(self.load(id))
        return found, False

    def inputs(self, job: Job) -> dict[str, bytes]:
        return {name: self.storage.read(f"{ALL}/{job.id}/inputs/{name}")[0] for name in job.files}

    def keep(self, job: Job, body: bytes) -> str:
        """Store a result; its key, which no other attempt has."""
        key = f"{ALL}/{job.id}/result-{secrets.token_hex(4)}"
        self.storage.write(key, body)
        return key

    def body(self, job: Job) -> bytes:
        """Of the result. Raises NotFound."""
        assert job.result is not None, "what is done has a result"
        return self.storage.read(job.result)[0]

    def claim(
        self, id: str, token: str, able: Callable[[Job], bool], seen: tuple[str, int] | None = None
    ) -> Job:
        """Take a job that waits, or one whose runner has shown no other sign of life than `seen`.

        It is ours where the record that is given back names our token. One whose runners have
        ended too often has failed then. Raises NotFound.
        """

        def decide(job: Job) -> Job | None:
            if not able(job) or not (
                job.state == "queued" or (job.state == "running" and job.sign == seen)
            ):
                return None
            if job.attempts >= self.attempts:
                message = (
                    f"the process that computed it has ended before it was done, {job.attempts} "
                    "times; it is not begun again"
                )
                return failed(job, Failure(status=500, code="job_attempts", message=message))
            return job.model_copy(
                update={
                    "state": "running",
                    "runner": token,
                    "beat": job.beat + 1,
                    "attempts": job.attempts + 1,
                    "started": time.time(),
                    "progress": 0.0,
                }
            )

        job = self.load(id)
        if decide(job) is not None:
            self.storage.write(f"{RUNNING}/{id}", b"")
            job = self._change(id, decide)
        if job.state != "queued" and job.runner != token:
            self.mark(job)
        return job

    def claim_telling(self, id: str, token: str, seen: tuple[str, int]) -> bool:
        """Take a job that has ended, to tell its webhook; whether it is ours."""

        def decide(job: Job) -> Job | None:
            taken = job.untold and job.sign == seen
            return beaten(job.model_copy(update={"runner": token})) if taken else None

        return self._change(id, decide).runner == token

    def beat(self, id: str, token: str, progress: float | None = None) -> Job:
        """A sign of life of a job that is ours. Raises Lost."""

        def decide(job: Job) -> Job:
            refuse_lost(job, token)
            return beaten(
                job if progress is None else job.model_copy(update={"progress": progress})
            )

        return self._ours(id, decide)

    def end(self, id: str, token: str, **changes: object) -> Job:
        """A job of ours is done, or has failed. Raises Lost."""

        def decide(job: Job) -> Job:
            refuse_lost(job, token)
            return over(job, **changes)

        job = self._ours(id, decide)
        self.mark(job)
        return job

    def release(self, id: str, token: str, counted: bool) -> None:
        """A job of ours waits again. counted: whether this was one of its attempts. Raises Lost."""

        def decide(job: Job) -> Job:
            refuse_lost(job, token)
            attempts = job.attempts if counted else job.attempts - 1
            changes = {"state": "queued", "runner": "", "attempts": attempts, "progress": 0.0}
            return beaten(job.model_copy(update=changes))

        self.mark(self._ours(id, decide))

    def told(self, id: str, token: str, well: bool) -> None:
        """The webhook of a job of ours was told, or could not be. Raises Lost."""

        def decide(job: Job) -> Job:
            refuse_lost(job, token)
            state = "told" if well else "failed"
            return beaten(job.model_copy(update={"runner": "", "telling": state}))

        self.mark(self._ours(id, decide))

    def cancel(self, id: str) -> Job:
        """The job as it is then: cancelled, unless it had ended. Raises NotFound."""
        job = self._change(id, lambda job: None if job.over else over(job, state="cancelled"))
        self.mark(job)
        return job

    def remove(self, id: str) -> None:
        """Delete a job and all that belongs to it, cancelling it first. Raises NotFound."""
        self.cancel(id)
        self._delete(id)

    def mark(self, job: Job) -> None:
        """Let the markers say what the record says, as far as that is final."""
        if job.state == "running" or job.untold:
            self.storage.write(f"{RUNNING}/{job.id}", b"")
        else:
            self.storage.delete(f"{RUNNING}/{job.id}")
        if job.over:
            self.storage.delete(f"{ALL}/{job.id}/inputs")
            if not job.untold:
                self.storage.delete(f"{OPEN}/{job.id}")

    def sweep(self) -> None:
        """Delete what was kept long enough, and what is left of jobs that never came to be."""
        now = time.time()
        every, opened = self.storage.children(ALL), self.storage.children(OPEN)
        self._over = {id: ended for id, ended in self._over.items() if id in every}
        for id in every:
            if is_id(id) and now - time_of(id) > min(self.keep_s, UNFINISHED_S):
                self._sweep(id, now)
        for id in {*opened, *self.storage.children(RUNNING)}.difference(every):
            if now - time_of(id) > UNFINISHED_S:
                self._delete(id)
        self._keyed = once.sweep(self.storage, self._keyed, frozenset(every))

    def _sweep(self, id: str, now: float) -> None:
        if id not in self._over:
            try:
                job = self.load(id)
            except NotFound:  # of one that is being accepted, or that was deleted
                if now - time_of(id) > UNFINISHED_S:
                    self._delete(id)
                return
            if job.state == "queued" and now - job.created > self.keep_s:
                message = "no server that shares this storage has taken it up: none has its model"
                failure = Failure(status=503, code="job_not_taken_up", message=message)
                job = self._change(
                    id, lambda job: failed(job, failure) if job.state == "queued" else None
                )
                self.mark(job)
            if not job.over or job.untold:
                return
            self._over[id] = job.ended or job.created
        if now - self._over[id] > self.keep_s:
            self._delete(id)

    def _delete(self, id: str) -> None:
        self.storage.delete(record(id))  # first, so that no reader sees half a job
        for place in (ALL, RUNNING, OPEN):
            self.storage.delete(f"{place}/{id}")

    def _change(self, id: str, decide: Callable[[Job], Job | None]) -> Job:
        """The record as `decide` wants it, of whatever it is at that moment; None: as it is."""
        while True:
            data, etag = self.storage.read(record(id))
            job = Job.read(id, data)
            changed = decide(job)
            if changed is None:
                return job
            with suppress(Changed):
                self.storage.replace(record(id), encoded(changed), etag)
                return changed

    def _ours(self, id: str, decide: Callable[[Job], Job | None]) -> Job:
        try:
            return self._change(id, decide)
        except NotFound:
            raise Lost(f"{id} was deleted") from None


def record(id: str) -> str:
    return f"{ALL}/{id}/job.json"


def encoded(job: Job) -> bytes:
    return job.model_dump_json(indent=1).encode()


def beaten(job: Job) -> Job:
    return job.model_copy(update={"beat": job.beat + 1})


def over(job: Job, **changes: object) -> Job:
    """One that has ended, and whose webhook is still to be told."""
    telling = "none" if job.webhook is None else "waiting"
    ended = {"ended": time.time(), "runner": "", "telling": telling}
    return beaten(job.model_copy(update=ended | changes))


def failed(job: Job, failure: Failure) -> Job:
    return over(job, state="failed", failure=failure)


def refuse_lost(job: Job, token: str) -> None:
    if job.runner != token:
        raise Lost(f"{job.id} is {job.state}, and not ours")
