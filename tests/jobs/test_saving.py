"""How checkpoints get into a storage: whole, one at a time; a full disk is told by name, soon."""

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import torch
from tiny_recipes import tiny

from cluster.disk import LocalStorage
from cluster.storage import Refused, StorageError
from genimg import checkpoint
from genimg.training.sync import Alone
from jobs.runs.folder import RunFolder
from jobs.runs.saver import BackgroundSaver
from jobs.runs.worker import Job, work

CPU = torch.device("cpu")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


class Remote(LocalStorage):
    """A store of which nothing lies on this machine: everything is uploaded."""

    def local_path(self, prefix: str) -> None:
        return None


def fill(folder: Path, size: int = 10) -> None:
    checkpoint.fill(
        folder,
        recipe="{}",
        weights={"w": torch.ones(size)},
        training={"w": torch.ones(size)},
        progress={},
        metrics={},
        samples=b"",
        lineage={},
    )


def test_a_checkpoint_is_written_into_its_place_and_nothing_else_is_left(tmp_path: Path):
    folder = RunFolder(str(tmp_path), "run")
    places: list[Path] = []
    folder.publish(64, lambda path: (places.append(path), fill(path)))
    assert [place.parent for place in places] == [tmp_path / "run/checkpoints"]
    checkpoint.verify(folder.fetch(64, tmp_path))
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["000000000064"]


def test_a_whole_checkpoint_stays_and_a_damaged_one_is_replaced(tmp_path: Path):
    folder = RunFolder(str(tmp_path), "run")
    folder.publish(64, fill)
    folder.publish(64, lambda path: pytest.fail("is there already"))
    weights = folder.fetch(64, tmp_path) / checkpoint.WEIGHTS
    weights.write_bytes(b"half")
    folder.publish(64, fill)
    checkpoint.verify(folder.fetch(64, tmp_path))


def test_a_full_disk_is_named_and_leaves_no_half_checkpoint(small_disk: Path):
    folder = RunFolder(str(small_disk), "run")
    folder.publish(32, fill)
    with pytest.raises(Refused) as told:
        folder.publish(64, lambda path: fill(path, 1_000_000))
    assert str(told.value) == (
        f"{small_disk}: No space left on device; run 'run' could not be saved at 64 images; make "
        "room there, and the same command goes on from the last checkpoint"
    )
    assert [path.name for path in (small_disk / "run/checkpoints").iterdir()] == ["000000000032"]
    folder.publish(64, fill)  # there is room again
    assert folder.checkpoints() == [32, 64]


def test_a_full_disk_before_an_upload_is_named_as_what_it_is(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    folder = RunFolder(str(tmp_path), "run")
    folder.storage = Remote(tmp_path)
    with pytest.raises(Refused, match=rf"^{small_disk} \(TMPDIR\), from where it is uploaded: No"):
        folder.publish(64, lambda path: fill(path, 1_000_000))
    assert list(small_disk.iterdir()) == []


def test_training_is_told_of_a_full_disk_at_the_next_line_of_the_log(small_disk: Path):
    recipe = tiny("dcgan", "train.images=6400", "model.width=32")
    job = Job(recipe.model_dump_json(), "run", str(small_disk))
    lines: list[int] = []
    saving = lambda: [t for t in threading.enumerate() if t.name == "saver"]  # noqa: E731

    def follow(seen: int, values: dict[str, float]) -> None:
        lines.append(seen)
        for thread in saving():  # as long as it takes to save, nothing more is trained
            thread.join()

    with pytest.raises(Refused, match=f"{small_disk}: No space left on device"):
        work(job, Alone(), CPU, progress=follow)
    assert lines == [16, 32, 48]


def test_the_next_snapshot_waits_until_the_last_one_is_saved(tmp_path: Path):
    """Whatever is saved is let go before `wait` returns, so that there is never more than one."""
    saver = BackgroundSaver(RunFolder(str(tmp_path), "run"))
    may_go_on = threading.Event()

    def slowly(path: Path) -> None:
        may_go_on.wait()
        fill(path)

    saver.save(32, slowly, keep={32, 64})
    second = threading.Thread(target=saver.save, args=(64, fill, {32, 64}))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    may_go_on.set()
    second.join()
    saver.wait()
    assert saver.folder.checkpoints() == [32, 64]


def test_what_could_not_be_saved_is_raised_by_whoever_waits(tmp_path: Path):
    saver = BackgroundSaver(RunFolder(str(tmp_path), "run"))
    assert not saver.failed

    def fail(path: Path) -> None:
        raise ZeroDivisionError

    saver.save(32, fail, keep={32})
    with pytest.raises(ZeroDivisionError):
        saver.wait()
    assert saver.failed
    assert saver.folder.checkpoints() == []


def test_a_fault_that_passes_is_tried_again(tmp_path: Path):
    folder = RunFolder(str(tmp_path), "run")
    attempts: list[Path] = []

    def shaky(path: Path) -> None:
        attempts.append(path)
        if len(attempts) == 1:
            raise StorageError("passing")
        fill(path)

    folder.publish(64, shaky)
    assert len(attempts) == 2
    checkpoint.verify(folder.fetch(64, tmp_path))


def test_what_a_killed_upload_has_left_goes_with_the_next_checkpoint(bucket: str):
    folder = RunFolder(bucket, "run")
    folder.storage.write(f"{folder.key(40)}/{checkpoint.WEIGHTS}", b"all but the manifest")
    client = boto3.client("s3")
    name = bucket.removeprefix("s3://")
    client.create_multipart_upload(Bucket=name, Key=f"{folder.key(50)}/{checkpoint.WEIGHTS}")
    folder.publish(64, fill)
    folder.prune(keep={64})
    assert folder.storage.children("run/checkpoints") == [f"{64:012d}"]
    assert "Uploads" not in client.list_multipart_uploads(Bucket=name)
