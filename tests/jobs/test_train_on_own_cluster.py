"""Trainings on clusters of their own: nodes are lost and join, drivers die, Ctrl-C ends it all."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from watched_runs import FIRST, is_train_worker, newest, state

from genimg import checkpoint
from jobs.train import train

# The cluster of the session stays idle; what it sets for Ray holds for these clusters too.
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

TRAIN = [sys.executable, "-m", "jobs.train"]


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


@pytest.mark.slow
@pytest.mark.timeout(900)
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

    done = subprocess.run(line, capture_output=True, text=True, timeout=400)
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


def lines_of_starts(run: Path) -> list[list[int]]:
    """The images seen at each line of the log, by start."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    starts = []
    for path in (run / "tensorboard").iterdir():
        events = EventFileLoader(str(path)).Load()
        steps = [(event.step, value.tag) for event in events for value in event.summary.value]
        starts.append([step for step, tag in steps if tag == "train/images_per_second"])
    return starts


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
