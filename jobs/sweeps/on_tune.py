"""The trials of a sweep run by Ray Tune: where each is placed, what stops it, what is recorded."""

from __future__ import annotations

import math
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from cluster.storage import StorageError
from jobs.sweeps.ray_privates import prepare_environment
from jobs.sweeps.records import Sweep, Trial
from jobs.sweeps.searchers import OBJECTIVE, LearningSearch, RandomSearch, worst
from jobs.sweeps.trial_run import IMAGES, Task, TrialRun

# Bytes of memory that a trial takes where its process runs. Measured: with one worker 0.5 GB and
# what the training itself needs; with several 1.1 GB, for the process and those of Ray Train
# that stand by it (controller, board, cleaner, ...), besides the workers.
_TRIAL_MEMORY = 1.0e9
_GROUP_MEMORY = 1.25e9
_ON_HEAD = {"node:__internal_head__": 0.001}  # for a process that asks for nothing else


class TrialRecorder(tune.Callback):
    """Writes down what becomes of each trial as it happens, and tells the command."""

    def __init__(self, sweep: Sweep, known: list[Trial], changed: Callable[[Trial], None]) -> None:
        self.sweep = sweep
        self.trials = {trial.name: trial for trial in known}
        self.changed = changed
        self.error: StorageError | None = None

    def update(self, trial: Any, change: Callable[[Trial], Trial]) -> None:
        ours = Trial.of(trial.config)
        before = self.trials.get(ours.name, ours)
        after = self.trials[ours.name] = change(before)
        try:
            self.sweep.save(after)
        except StorageError as error:  # Ray Tune would wrap it
            self.error = error
            raise
        self.changed(after)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self.update(trial, lambda ours: replace(ours, state="running", reason=""))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        if result["metrics"]:
            self.update(trial, lambda ours: ours.evaluated(result[IMAGES], result["metrics"]))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        last = trial.last_result
        state, reason = last.get("state", "stopped"), last.get("reason", "")
        self.update(trial, lambda ours: replace(ours, state=state, reason=reason))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        reason = describe_error(trial.get_error() or "")
        self.update(trial, lambda ours: replace(ours, state="failed", reason=reason))


def describe_error(text: str) -> str:
    """One line of what Ray Tune says of a trial's failures; of several, the last counts."""
    last = text.rpartition("Failure # ")[2].strip()
    if "low on memory" in last:
        return "its process was ended, as its node was short of memory"
    if "Traceback" not in last:  # nothing was raised: Ray says at length what may have been
        return "its process died: killed, out of memory, or lost with its node"
    return last.splitlines()[-1]


def placement(task: Task, nodes: Sequence[Mapping[str, float]]) -> tuple[int, dict[str, float]]:
    """(how many trials nodes of these resources have room for, what each one's process demands).

    Memory is part of both, or trials on a machine of many CPUs would fill it. Nodes that have not
    enough for one are not asked for memory: there a trial at a time is tried all the same.
    """
    worker = {"CPU": float(task.cpus_per_worker)} | ({"GPU": 1.0} if task.use_gpu else {})
    if task.workers == 1:
        needs = {"memory": _TRIAL_MEMORY} | worker
        most = sum(room_for(node, needs) for node in nodes)
    else:
        needs = {"memory": _GROUP_MEMORY}
        workers = sum(room_for(node, worker) for node in nodes)
        most = min(sum(room_for(node, needs) for node in nodes), workers // task.workers)
    if not any(room_for(node, {"memory": needs["memory"]}) for node in nodes):
        del needs["memory"]
    return max(1, most), needs or _ON_HEAD


def room_for(node: Mapping[str, float], needs: Mapping[str, float]) -> int:
    """How often a node has what is needed."""
    return int(min(node.get(name, 0) // amount for name, amount in needs.items()))


def search(
    sweep: Sweep,
    task: Task,
    *,
    trials: int,
    scheduler: str,
    searcher: str,
    concurrent: int | None,
    changed: Callable[[Trial], None],
) -> bool:
    """Run the trials that are missing on the connected cluster; whether none is missing now.

    concurrent: trials at once; None for as many as the cluster has room for.
    """
    prepare_environment()
    known = sweep.trials()
    again = ("running", "failed")  # interrupted; or failed, for which its values are not to blame
    over = [trial for trial in known if trial.state not in again]
    pending = [trial.values for trial in known if trial.state in again]
    recorder = TrialRecorder(sweep, known, changed)
    left = trials - len(over)
    if left <= 0:
        return True
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    at_once, needs = placement(task, alive)
    searchers: dict[str, type[RandomSearch] | type[LearningSearch]]
    searchers = {"random": RandomSearch, "optuna": LearningSearch}
    suggest = searchers[searcher](sweep, over, pending)
    with tempfile.TemporaryDirectory(prefix="genimg-", ignore_cleanup_errors=True) as scratch:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(TrialRun, task=task),
                tune.PlacementGroupFactory([needs]),
            ),
            tune_config=tune.TuneConfig(
                num_samples=left,
                max_concurrent_trials=min(concurrent or at_once, left),
                scheduler=trial_scheduler(sweep, scheduler, over),
                search_alg=suggest,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=sweep.name,
                storage_path=scratch,
                # a trial whose process is lost goes on in another, from its last checkpoint
                failure_config=tune.FailureConfig(max_failures=task.max_failures),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[recorder],
                verbose=0,
            ),
        )
        try:
            with keep_handlers():
                tuner.fit()
        except Exception:
            if recorder.error:
                raise recorder.error from None
            raise
    over = [trial for trial in recorder.trials.values() if trial.over]
    return len(over) >= trials or (suggest.exhausted and len(over) == len(recorder.trials))


@contextmanager
def keep_handlers() -> Iterator[None]:
    """Ray Tune takes over Ctrl-C and keeps it when it has ended."""
    here = threading.current_thread() is threading.main_thread()
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGUSR1)} if here else {}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def trial_scheduler(sweep: Sweep, scheduler: str, over: list[Trial]) -> TrialScheduler:
    """What stops trials early: knows the evaluations of the trials that are over."""
    if scheduler == "none":
        return FIFOScheduler()
    train = sweep.base.train
    longest, first = train.images, train.checkpoint_every
    if "train.images" in sweep.space:
        longest = max(sweep.space["train.images"].ends())
    if "train.checkpoint_every" in sweep.space:
        first = min(sweep.space["train.checkpoint_every"].ends())
    grace = min(first, longest)
    asha = ASHAScheduler(
        time_attr=IMAGES,
        metric=OBJECTIVE,
        mode=sweep.direction,
        grace_period=grace,
        max_t=longest,
        reduction_factor=3,
    )
    results = [(seen, sweep.value(m), t) for t in over for seen, m in t.results]
    # It looks at nothing but the trial's id, and not at Ray Tune's controller.
    controller: Any = None
    stand_ins: dict[str, Any] = {t.name: SimpleNamespace(trial_id=t.name) for t in over}
    for stand_in in stand_ins.values():
        asha.on_trial_add(controller, stand_in)
    for seen, value, trial in sorted(results, key=lambda each: each[0]):
        known = worst(sweep.direction) if math.isnan(value) else value
        asha.on_trial_result(controller, stand_ins[trial.name], {IMAGES: seen, OBJECTIVE: known})
    return asha
