"""Jobs are never lost and never computed twice at once, whoever ends when, on disk and in S3."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cluster.places import open_storage
from cluster.storage import StorageError
from genimg.operations.drawing import Sample
from genimg.operations.restoring import Denoise
from serving.errors import ApiError
from serving.jobs.job import Job, new_id
from serving.jobs.runner import Runner
from serving.jobs.store import ALL, QUEUE, RUNNING, Full, Lost, Store, record
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

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo("m@1", "m", "ready", 1, ("sample", "denoise"))]

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
    job = Job.of(Request(Sample(seed=seed)), "", form="image", model="m@1", **more)
    store.accept(job, {})
    return job


def kill(runner: Runner) -> None:
    """Let a runner end as a process does that is killed: it does nothing more."""

    def dead(*_: object, **__: object) -> None:
        raise StorageError("dead")

    for name in ("beat", "end", "release", "claim", "queued", "underway", "sweep", "keep"):
        setattr(runner.store, name, dead)


def test_several_runners_compute_each_job_once(place):
    """Jobs are accepted by one and taken by all; some runners leave, others come."""

    async def scenario() -> None:
        backend = Computing(steps=3, step_s=0.02)
        jobs = [new(store_at(place), seed) for seed in range(6)]
        runners = [runner_of(store_at(place), backend, at_once=2, lease_s=8) for _ in range(3)]
        async with working(*runners) as tasks:
            await until(lambda: len(backend.begun) >= 2)
            tasks[0].cancel()  # what it held is released
            await until(lambda: all(store_at(place).load(job.id).over for job in jobs))
        assert backend.most == 1
        store = store_at(place)
        for seed, job in enumerate(jobs):
            found = store.load(job.id)
            assert (found.state, found.attempts, found.progress) == ("done", 1, 1.0)
            assert store.body(found) == b"image of %d " % seed
        assert store.queued() == store.underway() == []

    asyncio.run(scenario())


def test_what_a_dead_runner_held_is_begun_again_by_another_and_not_before(tmp_path):
    async def scenario() -> None:
        store = store_at(tmp_path)
        job = new(store, 5)
        slow, quick = Computing(steps=1000, step_s=0.01), Computing()
        first, second = runner_of(store_at(tmp_path), slow), runner_of(store, quick)
        async with working(first):
            await until(lambda: store.load(job.id).progress > 0)
            async with working(second):
                await asyncio.sleep(2 * LEASE_S)
                assert not quick.begun  # it lives
                kill(first)
                await until(lambda: store.load(job.id).over)
                assert slow.now[5] == 0  # without signs of life it has stopped by itself
        found = store.load(job.id)
        assert (found.state, found.attempts) == ("done", 2)
        assert store.body(found) == b"image of 5 "

    asyncio.run(scenario())


def test_a_job_that_ends_its_processes_is_told_as_failed(tmp_path):
    async def scenario() -> None:
        store = store_at(tmp_path, attempts=2)
        job = new(store, 1)
        for attempt in (1, 2):
            victim = runner_of(store_at(tmp_path, attempts=2), Computing(1000, 0.01))
            async with working(victim):
                await until(lambda attempt=attempt: store.load(job.id).attempts == attempt)
                kill(victim)
        other = new(store, 2)
        async with working(runner_of(store, Computing())):
            await until(lambda: store.load(job.id).over and store.load(other.id).over)
        found = store.load(job.id)
        assert found.state == "failed"
        assert "ended before it was done, 2 times" in found.failure.message
        assert store.load(other.id).state == "done"
        assert store.queued() == store.underway() == []

    asyncio.run(scenario())


def test_a_runner_that_comes_back_late_changes_nothing(tmp_path):
    store = store_at(tmp_path)
    job = new(store)
    late = store.claim(job.id, "late", lambda job: True)
    seen = late.sign
    assert store.claim(job.id, "other", lambda job: True).runner == "late"
    taken = store.claim(job.id, "other", lambda job: True, seen)
    assert (taken.runner, taken.attempts) == ("other", 2)
    key = store.keep(taken, b"other's")
    for change in (
        lambda: store.beat(job.id, "late"),
        lambda: store.end(job.id, "late", state="done", result=store.keep(late, b"late's")),
        lambda: store.release(job.id, "late", counted=True),
    ):
        with pytest.raises(Lost):
            change()
    assert store.body(store.end(job.id, "other", state="done", result=key)) == b"other's"


def test_cancelled_jobs_are_computed_no_further(tmp_path):
    async def scenario() -> None:
        store = store_at(tmp_path)
        backend = Computing(steps=1000, step_s=0.01)
        running, waiting = new(store, 1), new(store, 2)
        runner = runner_of(store_at(tmp_path), backend, lease_s=30)
        async with working(runner):
            await until(lambda: backend.now[1])
            assert store.cancel(waiting.id).state == "cancelled"
            assert store.queued() == []
            store.cancel(running.id)
            runner.wake(running.id)
            await until(lambda: not backend.now[1], patience=2)  # long before the lease's end
            job = new(store, 3)
            await until(lambda: backend.now[3])
            store.remove(job.id)  # by another server, of which the next sign of life tells
            runner_of(store, backend).wake(job.id)
            runner.wake(job.id)
            await until(lambda: not backend.now[3])
        assert backend.begun.keys() == {1, 3}
        assert store.load(running.id).state == "cancelled"
        assert store.underway() == []
        assert not store.storage.exists(record(job.id))

    asyncio.run(scenario())


def test_requests_of_people_come_first_and_lost_replicas_are_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr("serving.jobs.work._PAUSE_S", 0.01)

    async def scenario() -> None:
        store = store_at(tmp_path)
        backend = Computing()
        backend.refusals = [
            ApiError(429, "queue_full", "wait"),
            ApiError(503, "model_loading", "wait"),
            ApiError(503, "replica_lost", "gone"),
            ApiError(503, "shutting_down", "going"),
        ]
        job = new(store)
        async with working(runner_of(store, backend)):
            await until(lambda: store.load(job.id).over)
        found = store.load(job.id)
        assert (found.state, found.attempts, backend.begun[0]) == ("done", 2, 5)

    asyncio.run(scenario())


def test_faults_and_jobs_that_take_too_long_are_told(tmp_path):
    async def scenario() -> None:
        store = store_at(tmp_path)
        backend = Computing(steps=100, step_s=0.05)
        backend.refusals = [ZeroDivisionError("ours")]
        first, second = new(store, 1), new(store, 2)
        async with working(runner_of(store, backend, timeout_s=0.2)):
            await until(lambda: store.load(first.id).over and store.load(second.id).over)
        assert store.load(first.id).failure.code == "internal_error"
        failure = store.load(second.id).failure
        assert (failure.status, failure.code) == (504, "timeout")
        assert backend.now[2] == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'{"id": "job-1"}', b"\xff\xfe"])
def test_a_damaged_record_is_told_and_holds_nobody_up(tmp_path, damage):
    async def scenario() -> None:
        store = store_at(tmp_path)
        queued, running, good = new(store, 1), new(store, 2), new(store, 3)
        store.claim(running.id, "token", lambda job: True)
        for job in (queued, running):
            store.storage.write(record(job.id), damage)
        async with working(runner_of(store, Computing())):
            await until(lambda: store.load(good.id).over)
            await until(lambda: store.queued() == store.underway() == [])
        for job in (queued, running):
            found = store.load(job.id)
            assert (found.state, found.failure.code) == ("failed", "job_damaged")
            assert found.created == pytest.approx(job.created, abs=0.01)
        assert len(store.page("", 10, None)[0]) == 3

    asyncio.run(scenario())


def test_an_input_that_is_gone_is_told(tmp_path):
    async def scenario() -> None:
        store = store_at(tmp_path)
        job = Job.of(Request(Denoise(), {"image": b"x"}), "", form="image", model="m@1")
        store.accept(job, {"image": b"x"})
        store.storage.delete(f"{ALL}/{job.id}/inputs")
        async with working(runner_of(store, Computing())):
            await until(lambda: store.load(job.id).over)
        assert store.load(job.id).failure.code == "job_input_lost"

    asyncio.run(scenario())


def test_jobs_of_models_that_are_served_elsewhere_are_left_to_others(tmp_path):
    async def scenario() -> None:
        store, backend = store_at(tmp_path), Computing()
        other = Job.of(Request(Sample(seed=1)), "", form="image", model="other@1")
        store.accept(other, {})
        ours = new(store, 2)
        async with working(runner_of(store, backend)):
            await until(lambda: store.load(ours.id).over)
        assert store.load(other.id).state == "queued"
        assert store.queued() == [other.id]
        assert backend.begun.keys() == {2}

    asyncio.run(scenario())


def test_the_queue_is_bounded_and_what_failed_to_come_in_leaves_nothing(tmp_path, monkeypatch):
    store = store_at(tmp_path, max_queued=2)
    new(store)
    new(store)
    with pytest.raises(Full):
        new(store)
    store = store_at(tmp_path, max_queued=3)

    def full(*_: object) -> None:
        raise StorageError("full disk")

    monkeypatch.setattr(store.storage, "create", full)
    with pytest.raises(StorageError, match="full disk"):
        new(store)
    assert len(store.queued()) == 2
    assert len(store.storage.children(ALL)) == 2


def test_what_ended_long_ago_is_swept_and_what_no_marker_leads_to_is_found(tmp_path):
    store = store_at(tmp_path, keep_s=0.3)
    old, lost, foreign = new(store, 1), new(store, 2), new(store, 3)
    for job in (old, lost):
        store.claim(job.id, "t", lambda job: True)
    done = store.end(old.id, "t", state="done", result=store.keep(old, b"made"))
    store.storage.delete(f"{RUNNING}/{lost.id}")  # as two writers at the same instant might
    unborn = new_id("")
    store.storage.write(f"{QUEUE}/{unborn}", b"")  # somebody who is accepting a job
    store.sweep()
    assert store.body(done) == b"made"
    assert store.underway() == [lost.id]
    time.sleep(0.35)
    store.sweep()
    assert not store.storage.list(f"{ALL}/{old.id}")
    assert store.load(lost.id).state == "running"  # however old
    assert store.load(foreign.id).failure.code == "job_not_taken_up"
    assert store.queued() == [unborn]


def test_owners_see_their_own_and_ids_are_not_guessed(tmp_path):
    store = store_at(tmp_path)
    mine = Job.of(Request(Sample()), "me", model="m@1")
    theirs = Job.of(Request(Sample()), "them", model="m@1")
    for job in (mine, theirs):
        store.accept(job, {})
    assert [job.id for job in store.page("me", 10, None)[0]] == [mine.id]
    assert store.page("", 10, None) == ([], False)
    ids = {new_id("") for _ in range(1000)}
    assert len({id.rpartition("-")[2] for id in ids}) == 1000


def test_a_job_of_another_version_of_genimg_is_told(tmp_path):
    async def scenario() -> None:
        store = store_at(tmp_path)
        job = Job.of(Request(Sample(seed=1)), "", model="m@1").model_copy(
            update={"options": {"unheard_of": 1}}
        )
        store.accept(job, {})
        async with working(runner_of(store, Computing())):
            await until(lambda: store.load(job.id).over)
        assert store.load(job.id).failure.code == "job_of_another_version"

    asyncio.run(scenario())
