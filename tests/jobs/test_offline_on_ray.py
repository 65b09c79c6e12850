"""Operations over many images when killed, on a cluster, and from S3 to S3."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from photo_folders import files, printed

from cluster.places import open_storage
from genimg import images
from genimg.data.opening import open_dataset
from genimg.recipe import Data

pytestmark = pytest.mark.usefixtures("here")


def killed_once(arguments: str, under_way) -> None:
    """Start a command, and kill it with all that it has started once it is under way."""
    command = [sys.executable, "-m", "jobs.cli", *arguments.split()]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        until = time.monotonic() + 120
        while not under_way():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < until, "it did nothing"
            time.sleep(0.005)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_killed_it_goes_on_and_does_nothing_twice(command, here: Path):
    for number in range(300):
        shutil.copy("photos/01.png", f"photos/copy-{number:03d}.png")
    arguments = "denoise photos -o clean --sigma 25 -m ffdnet"
    killed_once(arguments, lambda: len(list((here / "clean").glob("**/*.png"))) > 30)
    times = {path: path.stat().st_mtime_ns for path in (here / "clean").rglob("*.png")}
    assert 30 < len(times) < 320
    assert all(images.load(path).size for path in times)  # each is whole
    ended = command(arguments)
    assert f"{len(times)} of 320 are done already" in ended.err
    printed(ended)
    made = files("clean")
    assert made.keys() == files("photos").keys() | {"operation.json"}
    assert all(path.stat().st_mtime_ns == when for path, when in times.items())
    assert len({made[name] for name in made if name.startswith("copy-")}) == 1


@pytest.mark.ray
def test_on_a_cluster_from_s3_to_s3_it_is_as_in_one_process(
    ray_cluster, command, here: Path, bucket: str, monkeypatch
):
    monkeypatch.setenv("GENIMG_CACHE", str(here / "cache"))
    storage = open_storage(bucket)
    (here / "photos/broken.png").write_bytes(b"no image")
    for name, data in files("photos").items():
        storage.write(f"photos/{name}", data)
    storage.write("photos/notes.txt", b"no image")
    places = ("photos", "alone", ""), (f"{bucket}/photos", bucket, "--workers 2")
    for photos, target, workers in places:
        ended = command(f"denoise {photos} -o {target}/clean --sigma 25 -m ffdnet {workers}")
        assert ended.code == 1
        assert f"failed: {photos}/broken.png" in ended.err
        ended = command(f"classify {photos} -o {target}/told.jsonl -m judge {workers}")
        assert ended.code == 1
        arguments = f"sample dcgan -n 40 --seed 3 --shard-rows 16 -o {target}/shards {workers}"
        assert printed(command(arguments)) == f"{target}/shards: 40 images\n"

    def there(name: str) -> bytes:
        """What is in S3, as it were here."""
        return storage.read(name)[0].replace(f"{bucket}/photos".encode(), b"photos")

    alone = open_storage("alone")
    for kind in ("clean", "shards"):
        names = alone.list(kind)
        assert storage.list(kind) == names
        for name in names:
            if not name.endswith("operation.json"):  # which tells of the folder itself
                assert there(name) == alone.read(name)[0], name
    assert there("told.jsonl") == alone.read("told.jsonl")[0]
    assert storage.exists("told.jsonl.parts/failures.jsonl")  # kept, so that it can be tried again
    drawn = open_dataset(Data(source=f"{bucket}/shards", size=16, holdout=1), ("image",))
    assert len(drawn) == 40


@pytest.mark.slow
@pytest.mark.ray
def test_a_killed_worker_is_replaced_and_nothing_is_done_twice(ray_cluster, here: Path):
    import psutil

    for number in range(400):
        shutil.copy("photos/01.png", f"photos/copy-{number:03d}.png")
    arguments = "denoise photos -o clean --sigma 25 -m ffdnet --workers 2"
    command = [sys.executable, "-m", "jobs.cli", *arguments.split()]
    environment = os.environ | {"RAY_ADDRESS": ""}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    made = here / "clean"
    until = time.monotonic() + 120
    while len(list(made.glob("**/*.png"))) < 30:
        assert process.poll() is None, "it ended before a worker could be killed"
        assert time.monotonic() < until
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    workers = [each for each in family if "MapWorker" in " ".join(each.cmdline())]
    assert workers
    workers[0].kill()
    times = {path: path.stat().st_mtime_ns for path in made.rglob("*.png")}
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert files("clean").keys() == files("photos").keys() | {"operation.json"}
    assert all(path.stat().st_mtime_ns == when for path, when in times.items())


@pytest.mark.ray
@pytest.mark.slow
def test_an_image_that_kills_its_workers_is_listed_and_the_others_are_done(ray_cluster, here: Path):
    os.mkfifo(here / "photos/poison.png")  # whoever reads it waits, and is then killed
    arguments = "denoise photos -o clean --sigma 25 -m ffdnet --workers 2"
    command = [sys.executable, "-m", "jobs.cli", *arguments.split()]
    environment = os.environ | {"RAY_ADDRESS": ""}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    killed = 0
    while process.poll() is None:
        killed += reader_killed(here / "photos/poison.png")
        time.sleep(0.05)
    assert killed == 4
    assert process.returncode == 1
    assert process.stderr is not None
    assert "failed: photos/poison.png: 4 workers were lost over it" in process.stderr.read()
    lines = (here / "clean/failures.jsonl").read_text().splitlines()
    failed = {json.loads(line)["file"].removeprefix("photos/") for line in lines}
    assert "poison.png" in failed
    assert len(failed) <= 2  # those of its chunk at most
    made = files("clean").keys() - {"operation.json", "failures.jsonl"}
    there = {path.relative_to("photos").as_posix() for path in Path("photos").rglob("*.png")}
    assert made | failed == there
    assert len(there) == 21


def reader_killed(pipe: Path) -> bool:
    """Kill the process that waits to read a pipe; whether there was one."""
    try:
        end = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # nobody reads
        return False
    try:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
                with suppress(OSError):
                    reader = int(descriptor.parts[2])
                    if reader != os.getpid() and descriptor.readlink() == pipe:
                        os.kill(reader, signal.SIGKILL)
                        return True
    finally:
        os.close(end)
    return False  # it was one that was killed already
