"""Registrations that die or fail: what they leave is seen, cleared, and never a version."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest

from cluster.disk import LocalStorage, staging_for
from cluster.leftovers import clear, duration, leftovers
from cluster.places import open_storage
from cluster.registry import Registry
from cluster.storage import StorageError
from cluster.versions import RegistryError

MARKER = "models/dcgan/versions/00001/version.json"

# Dies where it is told to: with all files there but version.json; with one file copied of two; with
# all parts of a large upload sent, of which the store has not been told that they are a file.
KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from cluster.registry import Registry
from cluster.places import open_storage
place, folder, moment = sys.argv[1:]
storage = open_storage(place)
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
if moment == "marker":
    create = storage.create
    storage.create = lambda key, data: die() if "version.json" in key else create(key, data)
elif moment == "copy":
    copyfile, copied = shutil.copyfile, []
    shutil.copyfile = lambda *names: die() if copied else copied.append(copyfile(*names))
else:
    storage.client.meta.events.register("before-call.s3.CompleteMultipartUpload", die)
Registry(storage).register("dcgan", Path(folder), {}, {})
"""


def killed(registry: Registry, folder: Path, moment: str) -> None:
    command = [sys.executable, "-c", KILLED, str(registry.storage), str(folder), moment]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    ended = subprocess.run(command, env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL


def bytes_in(place: str) -> int:
    """All that a storage holds, hidden and unfinished things included."""
    if not place.startswith("s3://"):
        return sum(path.stat().st_size for path in Path(place).rglob("*") if path.is_file())
    name = place.removeprefix("s3://").partition("/")[0]
    client = boto3.client("s3")
    whole = client.list_objects_v2(Bucket=name).get("Contents", ())
    uploads = client.list_multipart_uploads(Bucket=name).get("Uploads", ())
    parts = [
        part
        for each in uploads
        for part in client.list_parts(Bucket=name, Key=each["Key"], UploadId=each["UploadId"]).get(
            "Parts", ()
        )
    ]
    return sum(each["Size"] for each in [*whole, *parts])


@pytest.mark.parametrize("moment", ["marker", "copy", "parts"])
def test_what_a_killed_registration_leaves_is_seen_and_cleared(
    registry: Registry, checkpoint: Path, register, place: str, moment: str
):
    remote = place.startswith("s3://")
    if moment == ("copy" if remote else "parts"):
        pytest.skip("the other kind of storage")
    if remote:  # large enough to be sent in parts
        (checkpoint / "weights.safetensors").write_bytes(os.urandom(9_000_000))
    size = sum(path.stat().st_size for path in checkpoint.iterdir())
    began = time.time()
    killed(registry, checkpoint, moment)
    assert registry.names() == []
    (left,) = leftovers(registry.storage)
    assert [each.size for each in leftovers(registry.storage, "dcgan")] == [left.size]
    assert leftovers(registry.storage, "vae") == []
    assert (left.name, left.number) == ("dcgan", 1)
    least = {"marker": size, "copy": 1, "parts": size - 1000}[moment]
    assert least <= left.size <= size
    assert 0 <= left.age <= time.time() - began + 2
    assert f"dcgan@1: {left.size:,} bytes" in str(left)

    assert register().number == 2  # which sweeps up beside itself on a disk
    for each in leftovers(registry.storage):
        assert clear(registry.storage, each)
    assert leftovers(registry.storage) == []
    assert registry.numbers("dcgan") == [2]
    assert registry.verify("dcgan") == []
    assert size <= bytes_in(place) < size + 2000  # version 2 and some claims
    assert register().number == 3


def test_a_registration_that_fails_clears_up_after_itself(
    registry: Registry, checkpoint: Path, place: str
):
    class Full:
        """The storage, which is full when version.json is due."""

        def __init__(self, storage):
            self.storage = storage

        def __getattr__(self, name: str):
            return getattr(self.storage, name)

        def create(self, key: str, data: bytes) -> None:
            if key == MARKER:
                raise StorageError("no space left on device")
            self.storage.create(key, data)

    with pytest.raises(StorageError, match="no space left"):
        Registry(Full(registry.storage)).register("dcgan", checkpoint, {}, {})
    assert leftovers(registry.storage) == []
    assert registry.storage.list("") == ["models/dcgan/versions/00001.claim"]
    assert bytes_in(place) < 200


def test_what_is_cleared_while_it_is_under_way_fails_and_is_no_version(
    registry: Registry, checkpoint: Path
):
    class Slow:
        """The storage, in which somebody clears up when all files are there."""

        def __init__(self, storage):
            self.storage = storage

        def __getattr__(self, name: str):
            return getattr(self.storage, name)

        def upload(self, folder: Path, prefix: str, without=()) -> None:
            self.storage.upload(folder, prefix, without)
            (left,) = leftovers(self.storage)
            assert clear(self.storage, left)

    with pytest.raises(RegistryError, match="dcgan@1 took so long that it was cleared away"):
        Registry(Slow(registry.storage)).register("dcgan", checkpoint, {}, {})
    assert registry.names() == []
    assert registry.register("dcgan", checkpoint, {}, {}).number == 2


def test_what_is_cleared_as_it_ends_is_not_said_to_be_a_version(
    registry: Registry, checkpoint: Path
):
    class Other:
        """The storage, as it is used here unless something else is said."""

        def __init__(self, storage, **methods):
            self.storage = storage
            self.methods = methods

        def __getattr__(self, name: str):
            return self.methods.get(name) or getattr(self.storage, name)

    storage = registry.storage

    def create(key: str, data: bytes) -> None:
        if key != MARKER:
            storage.create(key, data)
            return
        (left,) = leftovers(storage)

        def delete(prefix: str) -> None:  # who clears has just seen that there is no marker
            storage.create(MARKER, data)
            storage.delete(prefix)

        assert clear(Other(storage, delete=delete), left)

    with pytest.raises(RegistryError, match="dcgan@1 took so long that it was cleared away"):
        Registry(Other(storage, create=create)).register("dcgan", checkpoint, {}, {})
    assert registry.names() == []


def test_what_was_completed_meanwhile_is_not_cleared(
    registry: Registry, checkpoint: Path, register
):
    killed(registry, checkpoint, "marker")
    (left,) = leftovers(registry.storage)
    registry.storage.write(MARKER, b"{}")
    assert not clear(registry.storage, left)
    assert len(registry.storage.list("models/dcgan/versions/00001")) == 3


def test_an_upload_that_ends_while_leftovers_are_listed_is_none(bucket: str):
    storage = open_storage(bucket)
    name = bucket.removeprefix("s3://")
    client = boto3.client("s3")
    key = "models/dcgan/versions/00001/weights"
    sent = client.create_multipart_upload(Bucket=name, Key=key)

    def end(**_) -> None:
        client.abort_multipart_upload(Bucket=name, Key=key, UploadId=sent["UploadId"])

    storage.client.meta.events.register("before-call.s3.ListParts", end)
    assert leftovers(storage, "dcgan") == []


def test_a_file_that_goes_while_leftovers_are_listed_is_none(tmp_path: Path, checkpoint: Path):
    class Listed(LocalStorage):
        def list(self, prefix: str) -> list[str]:
            keys = super().list(prefix)
            self.delete(prefix)
            return keys

    storage = Listed(tmp_path / "store")
    storage.upload(checkpoint, "models/dcgan/versions/00001")
    assert leftovers(storage, "dcgan") == []


def test_on_a_disk_a_writer_that_lives_is_never_a_leftover(tmp_path: Path, checkpoint: Path):
    storage = LocalStorage(tmp_path / "store")
    target = storage.root / "models/dcgan/versions/00001"
    with staging_for(target) as staging:
        (staging / "weights").write_bytes(b"half of it")
        assert leftovers(storage) == []
        storage.discard("models/dcgan/versions/00001")
        assert (staging / "weights").exists()
    assert [left.size for left in leftovers(storage)] == [10]  # version.json is due


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (99, "99 s"), (600, "10 min"), (12_600, "3.5 h"), (864_000, "10 days")],
)
def test_ages_in_words(seconds: float, text: str):
    assert duration(seconds) == text


def test_a_registry_without_leftovers_has_none(registry: Registry, register):
    register()
    register("vae")
    registry.remove("vae@1")
    assert leftovers(registry.storage) == []
    assert open_storage(str(registry.storage)).entries("models/vae/versions/00001") == []
