"""A trial's process: trains as `genimg train` would, and is as new for the trial that follows."""

import threading
from pathlib import Path

import pytest
import torch
from tiny_recipes import tiny

from genimg.recipe import Recipe
from genimg.training.loop import Diverged
from genimg.training.sync import Alone
from jobs.runs.folder import RunFolder
from jobs.runs.worker import Job, work
from jobs.sweeps.on_tune import describe_error, placement
from jobs.sweeps.trial_run import Task, train_in_this_process

TASK = Task("", "", workers=1, cpus_per_worker=1, use_gpu=False, max_failures=0)


def job(recipe: Recipe, place: Path, name: str) -> Job:
    return Job(recipe.model_dump_json(), name, str(place))


def trained(recipe: Recipe, place: Path, name: str, stop: threading.Event | None = None) -> list:
    """The evaluations of a run in this process."""
    told: list[tuple[int, dict[str, float]]] = []
    train_in_this_process(
        job(recipe, place, name), TASK, lambda *news: told.append(news), stop or threading.Event()
    )
    return told


def state(place: Path, name: str, seen: int = 64) -> dict[str, bytes]:
    """All that decides how a run goes on, and what it was measured by."""
    folder = RunFolder(str(place), name).fetch(seen, place)
    files = ("weights.safetensors", "training.safetensors", "metrics.json", "training.json")
    return {each: (folder / each).read_bytes() for each in files}


def test_trials_in_one_process_are_the_runs_that_train_makes(tmp_path: Path):
    """Bit for bit, whatever the process did before, other trials that fail included."""
    recipe = tiny("dcgan", "train.precision=float32")
    work(job(recipe, tmp_path, "alone"), Alone(), torch.device("cpu"))
    threads = torch.get_num_threads()
    told = trained(recipe, tmp_path, "first")
    with pytest.raises(Diverged):
        trained(tiny("dcgan", "train.lr=1e30", "train.warmup=0"), tmp_path, "diverging")
    trained(tiny("dcgan", "train.seed=9", "train.precision=bfloat16"), tmp_path, "other")
    torch.randn(7)
    trained(recipe, tmp_path, "again")
    assert torch.get_num_threads() == threads
    assert state(tmp_path, "alone") == state(tmp_path, "first") == state(tmp_path, "again")
    history = RunFolder(str(tmp_path), "alone").history()
    assert told == history
    assert [seen for seen, _ in history] == [32, 64]


def test_a_trial_that_is_stopped_ends_soon_and_saves_nothing(tmp_path: Path):
    recipe = tiny("dcgan", "train.images=100000", "train.checkpoint_every=100000")
    stop = threading.Event()
    thread = threading.Thread(target=trained, args=(recipe, tmp_path, "stopped", stop))
    thread.start()
    stop.set()
    thread.join()
    assert RunFolder(str(tmp_path), "stopped").checkpoints() == []


def test_what_a_training_sets_for_its_process_is_put_back(tmp_path: Path, monkeypatch):
    def meddle(*_, **__) -> None:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("medium")
        torch.manual_seed(3)
        raise RuntimeError("no disk")

    generator = torch.default_generator.get_state()
    monkeypatch.setattr("jobs.sweeps.trial_run.work", meddle)
    with pytest.raises(RuntimeError, match="no disk"):
        trained(tiny("dcgan"), tmp_path, "meddling")
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.equal(torch.default_generator.get_state(), generator)


def task(workers: int, cpus: int = 1, gpu: bool = False) -> Task:
    return Task("", "", workers, cpus, gpu, 0)


HEAD = {"CPU": 0.0, "memory": 11e9}  # of 16 GiB
NODE = {"CPU": 8.0, "GPU": 8.0, "memory": 100e9}


@pytest.mark.parametrize(
    ("task", "nodes", "at_once"),
    [
        (task(1), [{"CPU": 2.0, "memory": 8e9}], 2),
        (task(1), [{"CPU": 64.0, "memory": 11e9}], 11),  # memory, not CPUs
        (task(1), [HEAD, {"CPU": 64.0, "memory": 40e9}], 40),  # none of it on the head
        (task(1, 4, gpu=True), [HEAD, NODE, NODE], 4),
        (task(8, gpu=True), 20 * [NODE], 20),
        (task(2, gpu=True), [HEAD, *(12 * [NODE])], 48),
        (task(2), [{"CPU": 64.0, "memory": 11e9}], 8),  # their drivers' memory
        (task(1), [{"CPU": 2.0, "memory": 0.5e9}], 1),
        (task(2), [{"CPU": 2.0}], 1),
    ],
)
def test_as_many_trials_run_as_there_is_room_for(task: Task, nodes, at_once: int):
    most, needs = placement(task, nodes)
    assert most == at_once
    assert any(all(n.get(k, 0) >= v for k, v in needs.items()) for n in nodes) or len(needs) == 1
    assert ("CPU" in needs) == (task.workers == 1)


def test_what_ray_says_of_a_lost_process_is_one_line():
    died = "Failure # 1 (occurred at x)\nThe actor died unexpectedly before finishing this task.\n"
    died += "\tclass_name: TrialRun\nThe actor is dead because its worker process has died.\n"
    assert describe_error(died).startswith("its process died")
    short = "Failure # 1 (x)\nTask was killed due to the node running low on memory.\nMemory ..."
    assert "short of memory" in describe_error(short)
    raised = f"{died}Failure # 2 (y)\nTraceback (most recent call last):\n ...\nOSError: no space"
    assert describe_error(raised) == "OSError: no space"
