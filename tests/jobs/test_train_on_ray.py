"""Training on a real Ray cluster: the same weights whatever dies or stops on the way."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from watched_runs import FIRST, called, is_train_worker, newest, state

from genimg import checkpoint, images
from jobs.train import train

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def uninterrupted(ray_cluster: None, dcgan: list[str], tmp_path_factory: Any) -> Path:
    """The run of a dcgan on two workers to which nothing happened."""
    storage = tmp_path_factory.mktemp("uninterrupted")
    train("dcgan", dcgan, workers="2", storage=str(storage))
    return storage / "dcgan"


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(uninterrupted: Path, dcgan: list[str], tmp_path: Path):
    run = tmp_path / "dcgan"
    with once_under_way(run, kill_a_worker):
        train("dcgan", dcgan, workers="2", storage=str(tmp_path))
    assert starts(uninterrupted) == 1
    assert starts(run) == 2
    assert state(run) == state(uninterrupted)


def test_started_on_two_workers_stopped_and_finished_on_none(
    ray_cluster: None, alone: Path, classifier: list[str], tmp_path: Path
):
    run = tmp_path / "classifier"
    with once_under_way(run, interrupt), pytest.raises(SystemExit) as end:
        train("classifier", classifier, workers="2", storage=str(tmp_path))
    assert end.value.code == 130
    stopped = newest(run)
    assert 640 <= int(stopped.name) < 3840
    assert checkpoint.verify(stopped).lineage["workers"] == 2
    train("classifier", classifier, workers="0", storage=str(tmp_path))
    assert checkpoint.verify(newest(run)).lineage["workers"] == 1
    assert same_weights(run, alone)


@pytest.mark.slow
def test_one_worker_on_ray_trains_as_this_process_does(
    ray_cluster: None, alone: Path, classifier: list[str], tmp_path: Path
):
    train("classifier", classifier, workers="1", storage=str(tmp_path))
    assert state(tmp_path / "classifier") == state(alone)


def test_more_workers_than_the_cluster_has_are_refused_at_once(
    ray_cluster: None, command, tmp_path: Path
):
    for options, wanted in (
        ("--workers 64", "--workers 64 of 1 CPU each"),
        ("--workers 2..64 --cpus-per-worker 2", "--workers 2 of 2 CPU each"),
        ("--workers 1 --gpu", "--workers 1 of 1 CPU and 1 GPU each"),
    ):
        ended = command(f"train dcgan {options} --storage {tmp_path}")
        assert ended.code == 2
        [line] = ended.err.splitlines()
        assert line.startswith(f"error: {wanted}: the cluster has 2 CPUs and 0 GPUs on 1 node,")
        assert "--autoscale" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_that_diverges_is_not_tried_again(
    ray_cluster: None, command, classifier: list[str], tmp_path: Path
):
    frequent = "train.lr=1e30 train.log_every=32 train.checkpoint_every=32"
    ended = command(f"train classifier {' '.join(classifier)} {frequent} --storage {tmp_path}")
    assert ended.code == 1
    line = ended.err.splitlines()[-1]
    assert line.startswith("error: loss is nan at 64 images; the last good checkpoint is ")
    assert f"{tmp_path}/classifier/checkpoints/000000000032; try a lower train.lr" in line
    assert starts(tmp_path / "classifier") == 1


@pytest.mark.slow
def test_what_only_a_worker_finds_out_about_the_data_is_bad_input_as_well(
    ray_cluster: None, command, classifier: list[str], tmp_path: Path
):
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(20):
            images.save(np.zeros((16, 16, 3), np.uint8), tmp_path / f"data/{name}/{i}.png")
    (tmp_path / "data/dog/7.png").write_bytes(b"no image")
    ended = command(
        f"train classifier {' '.join(classifier)} --storage {tmp_path} --data {tmp_path}/data"
    )
    assert ended.code == 2
    [line] = ended.err.splitlines()
    assert line.startswith("error: data.tolerate_broken=0: ")
    assert "dog/7.png: not an image" in line


@pytest.mark.slow
def test_one_failure_more_than_allowed_ends_the_run(
    ray_cluster: None, command, dcgan: list[str], tmp_path: Path
):
    run = tmp_path / "dcgan"
    arguments = f"train dcgan {' '.join(dcgan)} --storage {tmp_path} --max-failures 0"
    with once_under_way(run, kill_a_worker):
        ended = command(arguments)
    assert ended.code == 1
    line = ended.err.splitlines()[-1]
    assert line.startswith("error: worker 0: The actor died unexpectedly")
    assert f"the last good checkpoint is {run}/checkpoints/" in line
    assert "the same command goes on from there" in line


@pytest.mark.slow
def test_a_killed_board_changes_nothing(uninterrupted: Path, dcgan: list[str], tmp_path: Path):
    run = tmp_path / "dcgan"
    with once_under_way(run, kill_the_board):
        train("dcgan", dcgan, workers="2", storage=str(tmp_path))
    assert starts(run) == 1
    assert state(run) == state(uninterrupted)


@pytest.mark.slow
def test_a_stop_reaches_the_workers_although_the_board_was_killed(
    ray_cluster: None, dcgan: list[str], tmp_path: Path
):
    def act() -> None:
        kill_the_board()
        interrupt()

    run = tmp_path / "dcgan"
    long = [*dcgan, "train.images=64000"]
    with once_under_way(run, act), pytest.raises(SystemExit) as end:
        train("dcgan", long, workers="2", storage=str(tmp_path))
    assert end.value.code == 130
    assert 640 <= int(newest(run).name) < 64000


@pytest.mark.slow
def test_a_command_that_fails_leaves_no_workers_behind(
    ray_cluster: None, dcgan: list[str], tmp_path: Path
):
    import psutil
    import ray

    from genimg import recipes
    from jobs.runs.on_ray import train_on_ray
    from jobs.runs.worker import Job

    def fail(seen: int, values: dict[str, float]) -> None:
        raise ZeroDivisionError

    recipe = recipes.named("dcgan").override([*dcgan, "train.images=64000"])
    with pytest.raises(ZeroDivisionError):
        train_on_ray(
            Job(recipe.model_dump_json(), "run", str(tmp_path)),
            workers=(2, 2),
            cpus_per_worker=1,
            use_gpu=False,
            max_failures=3,
            progress=fail,
            warn=print,
            stop=threading.Event(),
        )
    deadline = time.monotonic() + 60
    while left := [p for p in psutil.Process().children(recursive=True) if is_train_worker(p)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    while ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.1)


def test_a_traceback_is_shown_once_and_summed_up_in_its_last_line():
    from ray.train import WorkerGroupError

    from jobs.runs.on_ray import describe_failures

    bug = Exception("Traceback (most recent call last):\n  File ...\nKeyError: 'x'")
    shown: list[str] = []
    assert describe_failures(WorkerGroupError("", {0: bug, 3: bug}), shown.append) == (
        "worker 0, 3: KeyError: 'x'"
    )
    assert shown == [str(bug)]


def starts(run: Path) -> int:
    """How often training began: each time it opens an event file."""
    return len(list((run / "tensorboard").iterdir()))


def same_weights(run: Path, other: Path) -> bool:
    """To within the rounding of sums over workers, which Adam's steps carry on."""
    mine, theirs = (load_file(newest(each) / checkpoint.WEIGHTS) for each in (run, other))
    assert mine.keys() == theirs.keys()
    return all(torch.allclose(mine[name], theirs[name], rtol=1e-4, atol=1e-5) for name in mine)


@contextmanager
def once_under_way(run: Path, act: Callable[[], None]) -> Iterator[None]:
    """While the block trains, do this as soon as the run has a checkpoint."""

    def watch() -> None:
        while not over.wait(0.01):
            if (run / FIRST).exists():
                act()
                return

    over = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def kill_a_worker() -> None:
    """Kill -9 one training worker among the processes that this one started."""
    import psutil  # comes with ray, once that is imported

    workers = [p for p in psutil.Process().children(recursive=True) if is_train_worker(p)]
    workers[-1].kill()


def kill_the_board() -> None:
    """Kill -9 the actor between the workers and this process."""
    import psutil

    [board] = [p for p in psutil.Process().children(recursive=True) if called(p, "Board")]
    board.kill()


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
