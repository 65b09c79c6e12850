"""The trials of a sweep run by Ray Tune, each a run of its own on Ray Train."""

from __future__ import annotations

import logging
import math
import os
import queue
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from cluster.storage import StorageError
from genimg import recipes
from genimg.data.loader import refuse_small_batch
from genimg.errors import InputError
from genimg.training.loop import Diverged
from jobs.on_ray import room, train_on_ray
from jobs.run_folder import RunFolder
from jobs.searchers import OBJECTIVE, LearningSearch, RandomSearch, worst
from jobs.sweep import State, Sweep, Trial
from jobs.worker import Job, Lost

IMAGES = "images"
_ON_HEAD = {"node:__internal_head__": 0.001}  # a CPU of its own would be one that workers lack


@dataclass(frozen=True)
class Task:
    """What all trials have in common, in plain values."""

    recipe: str  # JSON
    storage: str  # of the runs
    workers: int
    cpus_per_worker: int
    use_gpu: bool
    max_failures: int


class TrialRun(tune.Trainable):
    """A trial's process, which places its workers and passes on their evaluations.

    A step lasts until the next evaluation. When the scheduler stops the trial, `cleanup` ends the
    workers before it returns, so that the next trial finds what they held.
    """

    def setup(self, config: dict[str, Any], task: Task) -> None:
        self.task = task
        self.begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The process serves one trial after another: PyTorch takes seconds to import."""
        self.cleanup()
        self.begin(new_config)
        return True

    def begin(self, values: dict[str, Any]) -> None:
        recipe = recipes.from_json(self.task.recipe)
        self.metric, direction = recipe.objective
        self.worst = worst(direction)
        self.last: dict[str, Any] = {IMAGES: 0, OBJECTIVE: self.worst, "metrics": {}}
        self.final: dict[str, Any] = {}
        self.seen: set[int] = set()
        self.reports: queue.Queue[dict[str, Any]] = queue.Queue()
        self.ending = threading.Event()
        trial = Trial.of(values)
        self.thread = threading.Thread(target=self.work, args=(trial,), name=trial.name)
        self.thread.start()

    def step(self) -> dict[str, Any]:
        self.last |= self.reports.get()
        return dict(self.last)

    def cleanup(self) -> None:
        self.ending.set()
        self.thread.join()

    def work(self, trial: Trial) -> None:
        """Train to the end; whatever happens becomes the last report."""
        state: State = "finished"
        reason = ""
        try:
            self.run(trial)
            if self.last_value is not None and math.isnan(self.last_value):
                state, reason = "no number", f"{self.metric} came out as no finite number"
        except Diverged as error:
            state, reason = "diverged", str(error)
        except InputError as error:
            state, reason = "infeasible", str(error)
        except Lost as error:
            state, reason = "failed", str(error)
        except Exception as error:  # a trial that raises is a result as well
            state, reason = "failed", f"{type(error).__name__}: {error}"
        # The last evaluation comes with the end, when everything is saved: a scheduler that
        # takes it for a reason to stop would otherwise never learn how the trial ended.
        end = self.final | {"state": state, "reason": reason, "done": True}
        if state != "finished":
            end[OBJECTIVE] = self.worst
        self.reports.put(end)

    def run(self, trial: Trial) -> None:
        self.last_value: float | None = None
        task = self.task
        recipe = trial.recipe(recipes.from_json(task.recipe))
        self.images = recipe.train.images
        refuse_small_batch(recipe.train.batch_size, task.workers)
        folder = RunFolder(task.storage, trial.name)
        folder.start(recipe)
        for seen, metrics in folder.history():  # from before an interruption
            self.evaluated(seen, metrics)
        if folder.complete(recipe):
            return
        train_on_ray(
            Job(recipe.model_dump_json(), folder.name, folder.url),
            workers=(task.workers, task.workers),
            cpus_per_worker=task.cpus_per_worker,
            use_gpu=task.use_gpu,
            max_failures=task.max_failures,
            evaluated=self.evaluated,
            warn=logging.getLogger(__name__).warning,
            stop=self.ending,
            discard=True,
        )
        for seen, metrics in folder.history():  # should one have come too late to be told
            self.evaluated(seen, metrics)

    def evaluated(self, seen: int, metrics: dict[str, float]) -> None:
        if seen in self.seen:
            return
        self.seen.add(seen)
        self.last_value = value = metrics.get(self.metric, math.nan)
        objective = value if math.isfinite(value) else self.worst
        report = {IMAGES: seen, OBJECTIVE: objective, "metrics": metrics}
        if seen >= self.images:
            self.final = report
        else:
            self.reports.put(report)


class Recorder(tune.Callback):
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
        lines = str(trial.get_error() or "its process died").strip().splitlines()
        self.update(trial, lambda ours: replace(ours, state="failed", reason=lines[-1]))


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
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # the sweep's own records replace them
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # nor need it print anything
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    known = sweep.trials()
    again = ("running", "failed")  # interrupted; or failed, for which its values are not to blame
    over = [trial for trial in known if trial.state not in again]
    pending = [trial.values for trial in known if trial.state in again]
    recorder = Recorder(sweep, known, changed)
    left = trials - len(over)
    if left <= 0:
        return True
    at_once = concurrent or max(1, room(task.cpus_per_worker, task.use_gpu) // task.workers)
    searchers = {"random": RandomSearch, "optuna": LearningSearch}
    suggest = searchers[searcher](sweep, over, pending)
    with tempfile.TemporaryDirectory(prefix="genimg-", ignore_cleanup_errors=True) as scratch:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(TrialRun, task=task),
                tune.PlacementGroupFactory([_ON_HEAD]),
            ),
            tune_config=tune.TuneConfig(
                num_samples=left,
                max_concurrent_trials=min(at_once, left),
                scheduler=trial_scheduler(sweep, scheduler, over),
                search_alg=suggest,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=sweep.name,
                storage_path=scratch,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[recorder],
                verbose=0,
            ),
        )
        try:
            with handlers_restored():
                tuner.fit()
        except Exception:
            if recorder.error:
                raise recorder.error from None
            raise
    over = [trial for trial in recorder.trials.values() if trial.over]
    return len(over) >= trials or (suggest.exhausted and len(over) == len(recorder.trials))


@contextmanager
def handlers_restored() -> Iterator[None]:
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
    stand_ins = {trial.name: SimpleNamespace(trial_id=trial.name) for trial in over}
    for stand_in in stand_ins.values():
        asha.on_trial_add(None, stand_in)
    for seen, value, trial in sorted(results, key=lambda each: each[0]):
        known = worst(sweep.direction) if math.isnan(value) else value
        asha.on_trial_result(None, stand_ins[trial.name], {IMAGES: seen, OBJECTIVE: known})
    return asha
