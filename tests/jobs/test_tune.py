"""Sweeps on a real cluster: what fails is named, resources come back, and nothing is lost."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.places import open_storage
from cluster.registry import Registry

pytestmark = pytest.mark.ray

EVERY = "train.checkpoint_every=32 train.log_every=32"


def records(storage: str, name: str) -> dict[str, dict]:
    """{trial: its record} as they are kept."""
    place = open_storage(storage)
    keys = place.list(f"{name}/trials")
    return {key.rpartition("/")[2]: json.loads(place.read(key)[0]) for key in keys}


def states(storage: str, name: str) -> list[str]:
    return sorted(record["state"] for record in records(storage, name).values())


def free_cpus(expected: float) -> bool:
    import ray

    for _ in range(100):
        if ray.available_resources().get("CPU", 0) >= expected:
            return True
        time.sleep(0.1)
    return False


def test_what_fails_is_named_and_the_best_is_registered_in_s3(ray_cluster, command, tiny, bucket):
    """One diverges, one cannot be (more workers than images a step), one trains."""
    sweep = (
        f"tune dcgan {shlex.join(tiny['dcgan'])} {EVERY} train.images=64 --workers 2 --trials 4"
        " 'train.lr=choice(0.002,1e30)' 'train.batch_size=choice(1,32)' --searcher random"
        f" --scheduler none --storage {bucket}/runs --run search"
        f" --registry {bucket}/registry --register faces"
    )
    ended = command(sweep)
    assert ended.code == 0, ended.err
    assert states(f"{bucket}/runs", "search") == [
        "diverged", "finished", "infeasible", "infeasible",
    ]  # fmt: skip
    assert "cannot be shared by 2 workers" in ended.out
    assert re.search(r"diverged: .* (inf|nan|not finite)", ended.err)
    assert ended.lines[-1] == "faces@1"
    version = Registry(open_storage(f"{bucket}/registry")).resolve("faces")
    assert version.lineage["sweep"]["values"] == {"train.lr": 0.002, "train.batch_size": 32}
    assert version.lineage["recipe"] == "dcgan"
    assert version.metrics["swd"] > 0
    png, _ = open_storage(f"{bucket}/runs").read("search/sweep.png")
    assert png.startswith(b"\x89PNG")
    assert free_cpus(2)

    again = command(sweep)  # nothing is left to do, nor to register
    assert again.code == 0, again.err
    assert again.lines[-1] == "faces@1"
    refused = command(sweep.replace("choice(0.002,1e30)", "choice(0.002,1e20)"))
    assert refused.code == 2
    assert "was started over train.lr=choice(0.002,1e30)" in refused.err


@pytest.mark.slow
def test_a_metric_that_is_no_number_is_named_and_not_fatal(ray_cluster, command, tmp_path):
    sweep = (
        "tune conv-vae data.size=16 model.width=8 model.latent=4 data.holdout=32"
        f" train.batch_size=32 train.images=32 {EVERY} train.seed=7"
        " 'train.lr=choice(0.001,1e18)' train.warmup=0 --trials 2 --searcher random"
        f" --storage {tmp_path} --run search"
    )
    ended = command(sweep)
    assert ended.code == 0, ended.err
    assert states(str(tmp_path), "search") == ["finished", "no number"]
    assert "elbo came out as no finite number" in ended.err


@pytest.mark.slow
def test_a_sweep_with_more_trials_goes_on_from_the_ones_it_has(
    ray_cluster, command, tiny, tmp_path
):
    sweep = (
        f"tune dcgan {shlex.join(tiny['dcgan'])} {EVERY} train.images=64"
        f" 'train.lr=loguniform(1e-4,1e-2)' --storage {tmp_path} --run search"
    )
    assert command(f"{sweep} --trials 2").code == 0
    before = records(str(tmp_path), "search")
    assert command(f"{sweep} --trials 3").code == 0
    after = records(str(tmp_path), "search")
    assert len(after) == 3
    assert {name: after[name] for name in before} == before


def test_a_name_of_a_training_is_no_name_for_a_sweep(command, tiny, models):
    refused = command(
        f"tune dcgan 'train.lr=uniform(0.1,0.2)' --storage {models / 'runs'} --run dcgan"
    )
    assert refused.code == 2
    assert "--run dcgan: is the name of a training" in refused.err


@pytest.mark.slow
def test_twelve_trials_on_two_cpus_never_stall(ray_cluster, command, tiny, tmp_path):
    """Those that ASHA stops give their workers back at once."""
    ended = command(
        f"tune dcgan {shlex.join(tiny['dcgan'])} {EVERY} train.images=288"
        f" 'train.lr=loguniform(1e-5,1e-1)' --trials 12 --searcher random"
        f" --storage {tmp_path} --run search"
    )
    assert ended.code == 0, ended.err
    found = states(str(tmp_path), "search")
    assert len(found) == 12
    assert "stopped" in found
    assert "finished" in found
    assert "failed" not in found
    assert free_cpus(2)


def trial_processes() -> list[int]:
    """Processes of this cluster in which a trial's driver runs, as Ray names them."""
    import psutil  # which comes with Ray

    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            title = " ".join(process.cmdline())
            # the second between two calls, when Ray names the class that Tune made of ours
            if title.startswith("ray::") and ("TrialRun" in title or "ResourceTrain" in title):
                found.append(process.pid)
    return found


def started(arguments: str, tmp_path: Path) -> subprocess.Popen:
    """`genimg ARGUMENTS` as a process with a local Ray of its own."""
    verb, _, rest = arguments.partition(" ")
    environment = {**os.environ, "RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, "-m", f"jobs.{verb}", *shlex.split(rest)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def until(condition, seconds: float = 120) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.2)
    return False


@pytest.mark.slow
def test_a_sweep_whose_driver_is_killed_continues_with_the_trials_it_had(tiny, tmp_path):
    sweep = (
        f"tune dcgan {shlex.join(tiny['dcgan'])} {EVERY} train.images=3200 --trials 4"
        f" 'train.lr=loguniform(1e-4,1e-2)' --scheduler none --storage {tmp_path} --run search"
    )
    first = started(sweep, tmp_path)
    try:

        def under_way() -> bool:
            kept = records(str(tmp_path), "search").values()
            over = [r for r in kept if r["state"] == "finished"]
            running = [r for r in kept if r["state"] == "running" and len(r["results"]) >= 2]
            return bool(over) and bool(running)

        assert until(lambda: first.poll() is not None or under_way(), 200)
        assert first.poll() is None, first.stdout.read()
    finally:
        first.kill()
        first.wait()
    before = records(str(tmp_path), "search")
    second = started(sweep, tmp_path)
    try:
        output, _ = second.communicate(timeout=280)
    finally:
        second.kill()
    assert second.returncode == 0, output
    after = records(str(tmp_path), "search")
    assert len(after) == 4
    assert set(before) <= set(after)
    for name, record in before.items():
        if record["state"] == "finished":
            assert after[name] == record
        else:  # its evaluations from before the kill are still there
            assert record["results"] == after[name]["results"][: len(record["results"])]
    assert {record["state"] for record in after.values()} == {"finished"}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_trial_whose_process_is_killed_is_named_and_the_sweep_goes_on(
    ray_cluster, command, tiny, tmp_path, workers: int
):
    """Without --max-failures 0 it goes on in another process, as a training of lost workers."""

    killed: list[int] = []

    def kill_one() -> None:
        def evaluated() -> bool:
            kept = records(str(tmp_path), "search").values()
            under_way = [r for r in kept if r["state"] == "running" and r["results"]]
            killed[:] = trial_processes()[:1] if under_way else []
            return bool(killed)

        if until(evaluated):
            os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    sweep = (
        f"tune dcgan {shlex.join(tiny['dcgan'])} {EVERY} train.images=3200 --trials 2"
        f" 'train.lr=loguniform(1e-4,1e-2)' --scheduler none --concurrent 1 --workers {workers}"
        f" --storage {tmp_path} --run search"
    )
    ended = command(f"{sweep} --max-failures 0")
    killer.join()
    assert ended.code == 0, ended.err
    assert states(str(tmp_path), "search") == ["failed", "finished"]
    assert "failed: its process died: killed, out of memory, or lost with its node" in ended.err
    assert free_cpus(2)
    again = command(f"{sweep} --max-failures 0")
    assert again.code == 0, again.err
    assert states(str(tmp_path), "search") == 2 * ["finished"]


@pytest.mark.slow
def test_a_trial_whose_process_is_killed_goes_on_in_another(ray_cluster, command, tiny, tmp_path):
    killed: list[int] = []

    def kill_one() -> None:
        def evaluated() -> bool:
            kept = records(str(tmp_path), "search").values()
            killed[:] = trial_processes()[:1] if any(r["results"] for r in kept) else []
            return bool(killed)

        if until(evaluated):
            os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    ended = command(
        f"tune dcgan {shlex.join(tiny['dcgan'])} {EVERY} train.images=800 --trials 2"
        " 'train.lr=loguniform(1e-4,1e-2)' --scheduler none --concurrent 1"
        f" --storage {tmp_path} --run search --max-failures 1"
    )
    killer.join()
    assert ended.code == 0, ended.err
    assert killed
    kept = records(str(tmp_path), "search").values()
    assert [record["state"] for record in kept] == 2 * ["finished"]
    assert all([seen for seen, _ in r["results"]] == [*range(32, 801, 32)] for r in kept)


def test_a_process_serves_many_trials_of_one_worker(ray_cluster, command, tiny, tmp_path):
    """And each is the run that `genimg train` would make of it, byte for byte."""
    seen: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            seen.update(trial_processes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    recipe = f"dcgan {shlex.join(tiny['dcgan'])} {EVERY} train.images=64"
    ended = command(
        f"tune {recipe} 'train.lr=choice(0.001,0.002,0.003)' --trials 3 --searcher random"
        f" --scheduler none --concurrent 1 --storage {tmp_path} --run search"
    )
    done.set()
    watcher.join()
    assert ended.code == 0, ended.err
    assert states(str(tmp_path), "search") == 3 * ["finished"]
    # A second one is started where a trial is chosen before the last one's process is free.
    assert len(seen) < 3
    for name, record in records(str(tmp_path), "search").items():
        lr = record["values"]["train.lr"]
        alone = f"train {recipe} train.lr={lr} --workers 0 --storage {tmp_path} --run lr-{lr}"
        assert command(alone).code == 0
        for file in ("weights.safetensors", "training.safetensors", "metrics.json"):
            parts = f"checkpoints/{64:012d}/{file}"
            trial = tmp_path / "search/runs" / name.removesuffix(".json") / parts
            assert trial.read_bytes() == (tmp_path / f"lr-{lr}" / parts).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_says_how_to_go_on(tiny, tmp_path, number):
    process = started(
        f"tune dcgan {shlex.join(tiny['dcgan'])} {EVERY} train.images=32000 --trials 2"
        f" 'train.lr=loguniform(1e-4,1e-2)' --storage {tmp_path} --run search",
        tmp_path,
    )
    try:

        def evaluated() -> bool:
            return any(r["results"] for r in records(str(tmp_path), "search").values())

        assert until(lambda: process.poll() is not None or evaluated(), 200)
        process.send_signal(number)
        output, _ = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert "the same command goes on" in output
    assert (tmp_path / "search/sweep.png").is_file()
    assert set(states(str(tmp_path), "search")) == {"running"}
