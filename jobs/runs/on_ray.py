"""The workers of a training placed on a cluster by Ray Train."""

from __future__ import annotations

import tempfile
import threading
import time
import uuid
from collections.abc import Callable

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.train import WorkerGroupError
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig

from genimg.errors import InputError
from jobs.runs.board import News
from jobs.runs.board_actor import BoardActor, place_board, remove_board
from jobs.runs.ray_privates import Trainer, prepare_environment
from jobs.runs.ray_worker import worker
from jobs.runs.worker import Job, Lost

RESIZE_EVERY = 60.0  # seconds at least between two considerations of an elastic group's size
_POLL = 0.2  # seconds between looks at the board
_ANSWER = 5.0  # seconds in which the board should answer; while it is restarted it does not
_END = 60.0  # seconds in which the trainer should end; longer than a group may take to start


def train_on_ray(
    job: Job,
    *,
    workers: tuple[int, int],
    cpus_per_worker: int,
    use_gpu: bool,
    max_failures: int,
    progress: Callable[[int, dict[str, float]], None] = lambda seen, values: None,
    evaluated: Callable[[int, dict[str, float]], None] = lambda seen, metrics: None,
    warn: Callable[[str], None],
    note: Callable[[str], None] = lambda text: None,
    stop: threading.Event,
    discard: bool = False,
) -> None:
    """Train a job on the connected cluster.

    workers: (fewest, most); where they differ, the group follows what the cluster has.
    progress(seen, values) follows the log, evaluated(seen, metrics) the checkpoints.
    stop: when set, the workers save a checkpoint (unless `discard`) and end.
    Raises Diverged or InputError as a worker does, and Lost when more workers failed than
    `max_failures`.
    """
    prepare_environment()
    board = place_board()
    low, high = workers
    # Ray keeps notes on its own attempt here; checkpoints are the run folder's affair, so that
    # they are the same with and without Ray, and no key to a store is pickled.
    notes = tempfile.TemporaryDirectory(prefix="genimg-", ignore_cleanup_errors=True)
    trainer = Trainer(
        worker,
        train_loop_config={"job": job.plain(), "board": board, "cpus": cpus_per_worker},
        scaling_config=ScalingConfig(
            num_workers=low if low == high else workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": cpus_per_worker} | ({"GPU": 1} if use_gpu else {}),
            elastic_resize_monitor_interval_s=RESIZE_EVERY,
        ),
        run_config=RunConfig(
            name=uuid.uuid4().hex[:12],
            storage_path=notes.name,
            failure_config=FailureConfig(max_failures=max_failures),
        ),
        board=board,
    )
    errors: list[BaseException] = []

    def fit() -> None:  # not on the main thread, where Ray would take over Ctrl-C
        try:
            trainer.fit()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=fit, name="train", daemon=True)
    failure: Exception | None = None
    shown: tuple[int, dict[str, float]] | None = None
    asked: float | None = None  # when the workers were first asked to stop
    told: set[int | str] = set()  # a board that was restarted tells again what it told before
    try:
        thread.start()
        alive = True
        while alive:
            alive = thread.is_alive()  # read the board once more after the end
            if stop.is_set():
                board.ask_to_stop.remote(discard)  # again each time, should it have forgotten
                asked = asked or time.monotonic()
                if discard and time.monotonic() - asked > _END:  # workers that are not there, say
                    return
            news = read_board(board, patience=0 if alive else _END)
            failure = news.failure or failure
            for texts, tell in ((news.warnings, warn), (news.notes, note)):
                for text in texts:
                    if text not in told:
                        told.add(text)
                        tell(text)
            for seen, metrics in news.evaluations:
                if seen not in told:
                    told.add(seen)
                    evaluated(seen, metrics)
            if news.latest and news.latest != shown:
                progress(*news.latest)
                shown = news.latest
            if alive:
                time.sleep(_POLL)
    finally:  # whatever happened here, no worker is left behind with what it holds
        if thread.is_alive():
            trainer.end(_END)
            thread.join(_END)
        remove_board(board)
        notes.cleanup()
    if failure:
        raise failure
    if errors and isinstance(errors[0], WorkerGroupError):
        raise Lost(describe_failures(errors[0], warn)) from errors[0]
    if errors:
        raise errors[0]


def read_board(board: BoardActor, patience: float) -> News:
    """What the board tells; nothing while it does not answer, for at most so many seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return ray.get(board.read.remote(), timeout=_ANSWER)
        except (RayActorError, GetTimeoutError):
            if time.monotonic() >= deadline:
                return News()
            time.sleep(_POLL)


def room(cpus_per_worker: int, use_gpu: bool) -> int:
    """How many workers the connected cluster, as it is, has room for when nothing else runs."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(
        int(min(n.get("CPU", 0) // cpus_per_worker, n.get("GPU", 0) if use_gpu else 1e9))
        for n in nodes
    )


def refuse_infeasible(workers: int, cpus_per_worker: int, use_gpu: bool) -> None:
    """InputError where the connected cluster, as it is, could never start that many workers."""
    most = room(cpus_per_worker, use_gpu)
    if workers <= most:
        return
    nodes = sum(node["Alive"] for node in ray.nodes())
    has = ray.cluster_resources()
    each = f"{cpus_per_worker} CPU" + (" and 1 GPU" if use_gpu else "")
    raise InputError(
        f"--workers {workers} of {each} each: the cluster has {has.get('CPU', 0):g} CPUs and "
        f"{has.get('GPU', 0):g} GPUs on {nodes} node{'s' * (nodes != 1)}, "
        f"room for {most} workers; ask for fewer, or give --autoscale if the cluster will grow"
    )


def describe_failures(error: WorkerGroupError, warn: Callable[[str], None]) -> str:
    """In one line, what became of which workers; `warn` gets the traceback, where there is one."""
    fates: dict[str, list[int]] = {}
    for rank, failure in error.worker_failures.items():
        lines = str(getattr(failure, "health_check_failure", failure)).strip().splitlines()
        raised = lines[0].startswith("Traceback")
        fate = lines[-1 if raised else 0].rstrip(".")
        if raised and fate not in fates:
            warn("\n".join(lines))
        fates.setdefault(fate, []).append(rank)
    return "; ".join(f"worker {', '.join(map(str, at))}: {fate}" for fate, at in fates.items())
