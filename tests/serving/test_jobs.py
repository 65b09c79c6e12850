"""Jobs are never lost and never computed twice at once, whoever ends when, on disk and in S3."""

import asyncio
import time

import pytest
from job_runners import LEASE_S, Computing, kill, new, runner_of, store_at, until, working

from cluster.storage import StorageError
from genimg.operations.drawing import Sample
from genimg.operations.restoring import Denoise
from serving.errors import ApiError
from serving.jobs import once
from serving.jobs.job import Job, new_id
from serving.jobs.once import Once
from serving.jobs.store import ALL, OPEN, RUNNING, Full, Lost, record
from serving.requests import Answer, Caller, ModelInfo, Request


def test_several_runners_compute_each_job_once(place):
    """Jobs are accepted by one and taken by all; some runners leave, others come."""

    async def scenario() -> None:
        backend = Computing(steps=3, step_s=0.02)
        jobs = [new(store_at(place), seed) for seed in range(4)]
        runners = [runner_of(store_at(place), backend, at_once=2, lease_s=8) for _ in range(3)]
        async with working(*runners) as tasks:
            await until(lambda: len(backend.begun) >= 2)
            tasks[0].cancel()  # what it held is released
            store = store_at(place)
            await until(lambda: all(store.load(job.id).over for job in jobs))
            await until(lambda: store.open() == ([], []))
        assert backend.most == 1
        for seed, job in enumerate(jobs):
            found = store.load(job.id)
            assert (found.state, found.attempts, found.progress) == ("done", 1, 1.0)
            assert store.body(found) == b"image of %d " % seed

    asyncio.run(scenario())


def test_a_runner_tells_how_many_jobs_are_left_of_those_that_it_can_do(tmp_path):
    async def scenario() -> None:
        store, backend = store_at(tmp_path), Computing(steps=1000, step_s=0.01)
        runner, taker = runner_of(store, backend), runner_of(store_at(tmp_path), backend, at_once=0)
        foreign = Job.of(Request(Sample(seed=9)), form="image", model="other@1")
        store.accept(foreign, {})
        jobs = [new(store, seed) for seed in range(2)]
        async with working(runner, taker):
            await until(lambda: len(backend.begun) == 1 and runner.left == 2)
            store.cancel(jobs[1].id)
            await until(lambda: runner.left == 1)
            store.cancel(jobs[0].id)
            await until(lambda: runner.left == 0)
            assert store.open()[0] == [foreign.id]
            assert taker.left == 0  # which takes jobs, and does none

    asyncio.run(scenario())


def test_what_a_dead_runner_held_is_begun_again_by_another_and_not_before(tmp_path):
    async def scenario() -> None:
        store = store_at(tmp_path)
        job = new(store, 5)
        slow = Computing(steps=1000, step_s=0.01)

        class Afterwards(Computing):
            async def call(self, *args) -> Answer:
                assert slow.now[5] == 0  # without signs of life the other has stopped by itself
                return await super().call(*args)

        quick = Afterwards()
        first, second = runner_of(store_at(tmp_path), slow), runner_of(store, quick)
        async with working(first):
            await until(lambda: store.load(job.id).progress > 0)
            async with working(second):
                await asyncio.sleep(2 * LEASE_S)
                assert not quick.begun  # it lives
                kill(first)
                await until(lambda: store.load(job.id).over)
        found = store.load(job.id)
        assert (found.state, found.attempts) == ("done", 2)
        assert store.body(found) == b"image of 5 "

    asyncio.run(scenario())


def test_a_job_that_another_computes_is_read_less_often_than_it_shows_signs_of_life(tmp_path):
    async def scenario() -> None:
        store, reads = store_at(tmp_path), []
        job = new(store)
        load = store.load
        watching = runner_of(store, Computing())
        async with working(runner_of(store_at(tmp_path), Computing(1000, 0.01))):
            await until(lambda: load(job.id).state == "running")
            store.load = lambda id: reads.append(id) or load(id)
            async with working(watching):
                await until(lambda: len(reads) >= 2)  # from when on it is known to live
                before, seen = load(job.id).beat, len(reads)
                await until(lambda: load(job.id).beat >= before + 20)
                assert 1 <= len(reads) - seen <= 10

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
            await until(lambda: store.open() == ([], []))
        found = store.load(job.id)
        assert found.state == "failed"
        assert "ended before it was done, 2 times" in found.failure.message
        assert store.load(other.id).state == "done"

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
        runner = runner_of(store_at(tmp_path), backend, lease_s=8)
        async with working(runner):
            await until(lambda: backend.now[1])
            assert store.cancel(waiting.id).state == "cancelled"
            assert store.open()[0] == []
            store.cancel(running.id)
            runner.wake(running.id)
            await until(lambda: not backend.now[1], patience=4)  # long before the lease's end
            job = new(store, 3)
            await until(lambda: backend.now[3])
            store.remove(job.id)  # by another server, as the next sign of life finds out
            await until(lambda: not backend.now[3])
            await until(lambda: store.open() == ([], []))
        assert backend.begun.keys() == {1, 3}
        assert store.load(running.id).state == "cancelled"
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


def test_a_webhook_that_was_not_told_by_one_is_told_by_another(tmp_path, monkeypatch):
    told: list[str] = []
    monkeypatch.setattr("serving.jobs.webhooks.tell", lambda job, _: not told.append(job.state))

    async def scenario() -> None:
        store = store_at(tmp_path)
        dead = new(store, 1, webhook="https://example.org/")
        waiting = new(store, 2, webhook="https://example.org/")
        store.claim(dead.id, "t", lambda job: True)
        ended = store.end(dead.id, "t", state="failed")
        assert store.claim_telling(dead.id, "somebody who dies", ended.sign)
        store.cancel(waiting.id)
        assert store.open()[0] == []
        async with working(runner_of(store, Computing())):
            await until(lambda: store.load(waiting.id).telling == "told")
            assert store.load(dead.id).telling == "waiting"  # somebody may be about to tell it
            await until(lambda: store.load(dead.id).telling == "told")
            await until(lambda: store.open() == ([], []))

    asyncio.run(scenario())
    assert told == ["cancelled", "failed"]


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
            await until(lambda: store.open() == ([], []))
        for job in (queued, running):
            found = store.load(job.id)
            assert (found.state, found.failure.code) == ("failed", "job_damaged")
            assert found.created == pytest.approx(job.created, abs=10)
        assert len(store.page("", 10, None)[0]) == 3

    asyncio.run(scenario())


def test_an_input_that_is_gone_is_told(tmp_path):
    async def scenario() -> None:
        store = store_at(tmp_path)
        job = Job.of(Request(Denoise(), {"image": b"x"}), form="image", model="m@1")
        store.accept(job, {"image": b"x"})
        store.storage.delete(f"{ALL}/{job.id}/inputs")
        async with working(runner_of(store, Computing())):
            await until(lambda: store.load(job.id).over)
        assert store.load(job.id).failure.code == "job_input_lost"

    asyncio.run(scenario())


def test_jobs_of_models_that_are_served_elsewhere_are_left_to_others(tmp_path):
    async def scenario() -> None:
        store, backend = store_at(tmp_path), Computing()
        other = Job.of(Request(Sample(seed=1)), form="image", model="other@1")
        store.accept(other, {})
        ours = new(store, 2)
        async with working(runner_of(store, backend)):
            await until(lambda: store.load(ours.id).over)
            await until(lambda: store.open() == ([other.id], []))
        assert store.load(other.id).state == "queued"
        assert backend.begun.keys() == {2}

    asyncio.run(scenario())


def test_jobs_of_a_model_that_comes_later_are_done_then(tmp_path):
    async def scenario() -> None:
        store, backend = store_at(tmp_path), Computing()
        job = Job.of(Request(Sample(seed=1)), form="image", model="other@1")
        store.accept(job, {})
        runner = runner_of(store, backend)
        async with working(runner):
            await until(lambda: runner._foreign)
            backend.served += (ModelInfo("other@1", "other", "ready", 1, ("sample",)),)
            await until(lambda: store.load(job.id).over)
        assert backend.begun.keys() == {1}

    asyncio.run(scenario())


def test_a_key_is_that_of_one_job_for_as_long_as_that_is_there(tmp_path, monkeypatch):
    store = store_at(tmp_path, keep_s=0.3)

    def first(key: str = "k", seed: int = 1, owner: str = "alice") -> str:
        """The job of a key; one is accepted where it has none."""
        job = Job.of(Request(Sample(seed=seed)), form="image", model="m@1")
        found = Once(owner, key, {"seed": b"%d" % seed}).first(store.storage, job.id, store.load)
        if found is None:
            store.accept(job, {})
        return (found or job).id

    one = first()
    store.sweep()
    assert [first() for _ in range(3)] == [one] * 3
    others = {first("another"), first(owner="bob"), first("third", seed=2)}
    assert len({one, *others}) == 4
    with pytest.raises(ApiError) as caught:
        first(seed=2)
    assert (caught.value.status, caught.value.code) == (400, "idempotency_key_reused")
    store.remove(one)  # or it was never accepted
    with pytest.raises(ApiError) as caught:
        first()
    assert (caught.value.status, caught.value.code) == (409, "job_coming")
    monkeypatch.setattr(once, "COMING_S", 0)
    assert first() not in {one, *others}
    monkeypatch.setattr("serving.jobs.store.UNFINISHED_S", 0)
    for id in store.storage.children(ALL):
        store.cancel(id)
    time.sleep(0.4)
    store.sweep()
    store.sweep()
    assert store.storage.list("jobs") == []


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
    assert len(store.open()[0]) == 2
    assert len(store.storage.children(ALL)) == 2


def test_what_ended_long_ago_is_swept_and_what_has_not_ended_is_not(tmp_path):
    store = store_at(tmp_path, keep_s=0.3)
    old, slow, foreign = new(store, 1), new(store, 2), new(store, 3)
    for job in (old, slow):
        store.claim(job.id, "t", lambda job: True)
    done = store.end(old.id, "t", state="done", result=store.keep(old, b"made"))
    unborn = new_id("")
    store.storage.write(f"{OPEN}/{unborn}", b"")  # somebody who is accepting a job
    store.sweep()
    assert store.body(done) == b"made"
    time.sleep(0.35)
    store.sweep()
    assert not store.storage.list(f"{ALL}/{old.id}")
    assert store.load(slow.id).state == "running"
    assert store.load(foreign.id).failure.code == "job_not_taken_up"
    assert store.open() == ([unborn], [slow.id])


@pytest.mark.parametrize("state", ["queued", "running"])
@pytest.mark.parametrize("hint", [True, False])
def test_wrong_hints_hold_nobody_up(tmp_path, state, hint):
    """As two that write at the same instant may leave them."""

    async def scenario() -> None:
        store = store_at(tmp_path)
        job = new(store, 1)
        if state == "running":
            store.claim(job.id, "somebody who died", lambda job: True)
        marker = f"{RUNNING}/{job.id}"
        if hint:
            store.storage.write(marker, b"")
        else:
            store.storage.delete(marker)
        async with working(runner_of(store, Computing())):
            await until(lambda: store.load(job.id).state == "done")
            await until(lambda: store.open() == ([], []))

    asyncio.run(scenario())


def test_owners_see_their_own_and_ids_are_not_guessed(tmp_path):
    store = store_at(tmp_path)
    mine = Job.of(Request(Sample(), caller=Caller("me")), model="m@1")
    theirs = Job.of(Request(Sample(), caller=Caller("them")), model="m@1")
    for job in (mine, theirs):
        store.accept(job, {})
    assert [job.id for job in store.page("me", 10, None)[0]] == [mine.id]
    assert store.page("", 10, None) == ([], False)
    ids = {new_id("") for _ in range(1000)}
    assert len({id.rpartition("-")[2] for id in ids}) == 1000


def test_a_job_of_another_version_of_genimg_is_told(tmp_path):
    async def scenario() -> None:
        store = store_at(tmp_path)
        job = Job.of(Request(Sample(seed=1)), model="m@1").model_copy(
            update={"options": {"unheard_of": 1}}
        )
        store.accept(job, {})
        async with working(runner_of(store, Computing())):
            await until(lambda: store.load(job.id).over)
        assert store.load(job.id).failure.code == "job_of_another_version"

    asyncio.run(scenario())
