"""Training on a real Ray cluster: the same weights whatever dies or stops on the way."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from genimg import checkpoint, images
from jobs.train import train

pytestmark = pytest.mark.ray

STATE = (checkpoint.WEIGHTS, checkpoint.TRAINING)
# Long enough that a run is still under way some tenths of a second after its first checkpoint.
LENGTH = ["train.images=3840", "train.checkpoint_every=640", "train.log_every=320"]
TRAIN = [sys.executable, "-m", "jobs.train"]
FIRST = "checkpoints/000000000640/manifest.json"


@pytest.fixture(scope="module")
def dcgan(tiny: dict[str, list[str]]) -> list[str]:
    """Two networks, two optimizers, moving averages, and buffers of batch statistics."""
    return [*tiny["dcgan"], *LENGTH]


@pytest.fixture(scope="module")
def classifier(tiny: dict[str, list[str]]) -> list[str]:
    """No batch statistics: any number of workers computes the same, to within rounding."""
    return [*tiny["classifier"], *LENGTH, "train.warmup=0"]


@pytest.fixture(scope="module")
def uninterrupted(ray_cluster: None, dcgan: list[str], tmp_path_factory: Any) -> Path:
    """The run of a dcgan on two workers to which nothing happened."""
    storage = tmp_path_factory.mktemp("uninterrupted")
    train("dcgan", dcgan, workers="2", storage=str(storage))
    return storage / "dcgan"


@pytest.fixture(scope="module")
def alone(classifier: list[str], tmp_path_factory: Any) -> Path:
    """The run of a classifier in this process, without Ray."""
    torch.set_num_threads(1)  # as a worker with one CPU
    storage = tmp_path_factory.mktemp("alone")
    train("classifier", classifier, workers="0", storage=str(storage))
    return storage / "classifier"


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


@pytest.mark.slow
def test_a_lost_node_leaves_a_smaller_group_that_finishes(classifier: list[str], tmp_path: Path):
    run = tmp_path / "classifier"
    script = Path(__file__).with_name("losing_a_node.py")
    arguments = [str(tmp_path), str(run / FIRST), "classifier", *classifier, "train.keep=100"]
    with own_session([sys.executable, str(script), *arguments]) as process:
        output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    workers = {
        int(folder.name): checkpoint.verify(folder).lineage["workers"]
        for folder in sorted((run / "checkpoints").iterdir())
    }
    assert list(workers) == list(range(640, 3841, 640))
    assert workers[640] == 2
    assert workers[3840] == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_that_joins_costs_no_work(classifier: list[str], tmp_path: Path):
    """The group saves just before it is resized, and no image is trained on twice."""
    run = tmp_path / "classifier"
    script = Path(__file__).with_name("joining_node.py")
    endless = ["train.images=100000000", "train.checkpoint_every=16000", "train.keep=1000"]
    arguments = [str(tmp_path), "classifier", *classifier, *endless, "train.log_every=3200"]
    with own_session([sys.executable, str(script), *arguments]) as process:
        output, _ = process.communicate(timeout=560)
    assert process.returncode == 0, output
    workers = {
        int(folder.name): checkpoint.verify(folder).lineage["workers"]
        for folder in sorted((run / "checkpoints").iterdir())
    }
    last_alone = max(seen for seen, count in workers.items() if count == 1)
    assert set(workers.values()) == {1, 2}
    before, after = sorted(lines_of_starts(run))
    assert before[-1] == last_alone
    assert after[0] > last_alone


def lines_of_starts(run: Path) -> list[list[int]]:
    """The images seen at each line of the log, by start."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    starts = []
    for path in (run / "tensorboard").iterdir():
        events = EventFileLoader(str(path)).Load()
        steps = [(event.step, value.tag) for event in events for value in event.summary.value]
        starts.append([step for step, tag in steps if tag == "train/images_per_second"])
    return starts


@pytest.mark.slow
def test_a_killed_driver_takes_its_cluster_along_and_the_same_command_goes_on(
    ray_cluster: None, dcgan: list[str], tmp_path: Path
):
    import psutil  # comes with ray, which `ray_cluster` has imported

    # Long: orphaned workers train on for the seconds that their node takes to end.
    recipe = [*dcgan, "train.images=38400", "train.checkpoint_every=3200"]
    train("dcgan", recipe, workers="2", storage=str(tmp_path / "uninterrupted"))
    run = tmp_path / "dcgan"
    line = [*TRAIN, "dcgan", *recipe, "--workers", "2", "--storage", str(tmp_path)]
    with own_session(line) as process:
        family: list[Any] = []
        while not any(is_train_worker(member) for member in family):
            family = psutil.Process(process.pid).children(recursive=True)
            time.sleep(0.05)
        await_file(run / "checkpoints/000000003200/manifest.json", process)
        process.kill()
        # Ray's agents try for a minute to tell the dead head that it is dead.
        left = alive_after(120, family)
        for member in left:
            member.kill()
    assert left == []
    assert int(newest(run).name) < 38400

    done = subprocess.run(line, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert state(run) == state(tmp_path / "uninterrupted/dcgan")


@pytest.mark.slow
def test_ctrl_c_on_a_cluster_of_its_own_saves_and_ends_it(
    alone: Path, classifier: list[str], tmp_path: Path
):
    run = tmp_path / "classifier"
    line = [*TRAIN, "classifier", *classifier, "--workers", "1", "--storage", str(tmp_path)]
    with own_session(line) as process:
        await_file(run / FIRST, process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of them
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "the same command goes on" in output
    assert 640 <= int(newest(run).name) < 3840

    done = subprocess.run(line, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert state(run) == state(alone)


def newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("[0-9]*"))


def starts(run: Path) -> int:
    """How often training began: each time it opens an event file."""
    return len(list((run / "tensorboard").iterdir()))


def state(run: Path) -> dict[str, bytes]:
    """The newest checkpoint's name, and every tensor that training goes on from."""
    folder = newest(run)
    return {f"{folder.name}/{name}": (folder / name).read_bytes() for name in STATE}


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


def await_file(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


@contextmanager
def own_session(line: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own; what is left of it in the end is killed."""
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def alive_after(seconds: float, processes: list[Any]) -> list[Any]:
    """Those that have not ended by then; an orphan whom nobody awaits has ended all the same."""
    import psutil

    def alive(process: Any) -> bool:
        with suppress(psutil.NoSuchProcess):
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return False

    deadline = time.monotonic() + seconds
    while (left := [each for each in processes if alive(each)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


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


def is_train_worker(process: Any) -> bool:
    return called(process, "RayTrainWorker")


def called(process: Any, name: str) -> bool:
    import psutil

    with suppress(psutil.NoSuchProcess):
        return any(name in word for word in process.cmdline())
    return False


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
