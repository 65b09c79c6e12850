"""A trial's process: trains the trial itself, or places the workers that do, and passes on news."""

from __future__ import annotations

import gc
import logging
import math
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from ray import tune

from genimg import recipes
from genimg.data.loader import refuse_small_batch
from genimg.errors import InputError
from genimg.training.loop import Diverged
from genimg.training.sync import Alone
from jobs.runs.folder import RunFolder
from jobs.runs.on_ray import train_on_ray
from jobs.runs.worker import Job, Lost, work
from jobs.sweeps.records import State, Trial
from jobs.sweeps.searchers import OBJECTIVE, worst

IMAGES = "images"
Evaluated = Callable[[int, dict[str, float]], None]


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
    """A trial: a step of it lasts until the next evaluation.

    One worker trains in this very process, which has what the worker needs; several are placed
    elsewhere by Ray Train. When the scheduler stops the trial, `cleanup` ends the training before
    it returns, so that the next trial finds what it held.
    """

    def setup(self, config: dict[str, Any], task: Task | None = None) -> None:
        assert task is not None, "tune.with_parameters gives it"
        self.task = task
        self.begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The process serves one trial after another: PyTorch takes seconds to import."""
        self.cleanup()
        self.begin(new_config)
        return True

    def begin(self, values: dict[str, Any]) -> None:
        recipe = recipes.from_json(self.task.recipe)
        self.metric, direction = recipe.chosen_by
        self.worst = worst(direction)
        self.last: dict[str, Any] = {IMAGES: 0, OBJECTIVE: self.worst, "metrics": {}}
        self.final: dict[str, Any] = {}
        self.seen: set[int] = set()
        self.reports: queue.Queue[dict[str, Any] | Exception] = queue.Queue()
        self.ending = threading.Event()
        trial = Trial.of(values)
        self.thread = threading.Thread(target=self.work, args=(trial,), name=trial.name)
        self.thread.start()

    def step(self) -> dict[str, Any]:
        """Raises what should be tried again in a new process, as if this one had been lost."""
        report = self.reports.get()
        if isinstance(report, Exception):
            raise report
        self.last |= report
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
        except Exception as error:
            self.reports.put(error)
            return
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
        refuse_small_batch(recipe.train.batch_size, task.workers, recipe.together)
        folder = RunFolder(task.storage, trial.name)
        folder.start(recipe)
        for seen, metrics in folder.history():  # from before an interruption
            self.evaluated(seen, metrics)
        if folder.complete(recipe):
            return
        train = train_in_this_process if task.workers == 1 else train_as_a_group
        train(
            Job(recipe.model_dump_json(), folder.name, folder.url),
            task,
            self.evaluated,
            self.ending,
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


def train_as_a_group(job: Job, task: Task, evaluated: Evaluated, stop: threading.Event) -> None:
    """Train on workers that Ray Train places, and starts again when some are lost."""
    train_on_ray(
        job,
        workers=(task.workers, task.workers),
        cpus_per_worker=task.cpus_per_worker,
        use_gpu=task.use_gpu,
        max_failures=task.max_failures,
        evaluated=evaluated,
        warn=logging.getLogger(__name__).warning,
        stop=stop,
        discard=True,
    )


def train_in_this_process(
    job: Job, task: Task, evaluated: Evaluated, stop: threading.Event
) -> None:
    """Train as the only worker, in the calling thread; the process is then as it was before."""

    def saved(seen: int, metrics: dict[str, float]) -> None:
        if metrics:
            evaluated(seen, metrics)

    cuda = task.use_gpu and torch.cuda.is_available()  # Ray hands out pretended GPUs as well
    with keep_settings(), free_memory():
        torch.set_num_threads(task.cpus_per_worker)
        work(
            job,
            Alone(),
            torch.device("cuda" if cuda else "cpu"),
            saved=saved,
            warn=logging.getLogger(__name__).warning,
            should_stop=stop.is_set,
            discard=stop.is_set,
        )


@contextmanager
def keep_settings() -> Iterator[None]:
    """What a training may have set for its whole process must not decide the next one's bits."""
    threads = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    precision = torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn
    flags = cudnn.benchmark, cudnn.deterministic
    state = torch.default_generator.get_state()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict, warn_only=lenient)
        torch.set_float32_matmul_precision(precision)
        cudnn.benchmark, cudnn.deterministic = flags
        torch.default_generator.set_state(state)


@contextmanager
def free_memory() -> Iterator[None]:
    """What a training held, networks in circles of references included, is free behind it."""
    try:
        yield
    finally:
        if "torch._dynamo" in sys.modules:  # it takes seconds to import
            torch.compiler.reset()  # or compiled code of all trials stays, up to a limit
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
