"""What a storage on disk can show alone: who is killed, what stays, what the system refuses."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from folders import contents

from cluster.disk import LocalStorage
from cluster.storage import NotFound, StorageError

KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from cluster.disk import LocalStorage
copyfile, copied = shutil.copyfile, []
def copy_one_and_die(source, target):
    if copied:
        Path(target).write_bytes(b"the beginning")
        os.kill(os.getpid(), signal.SIGKILL)
    copied.append(copyfile(source, target))
shutil.copyfile = copy_one_and_die
LocalStorage(Path(sys.argv[1])).upload(Path(sys.argv[2]), "x/1")
"""


def test_a_killed_upload_leaves_nothing_to_see_and_keeps_nobody_waiting(
    tmp_path: Path, folder: Path
):
    storage = LocalStorage(tmp_path / "store")
    command = [sys.executable, "-c", KILLED, str(storage.root), str(folder)]
    assert subprocess.run(command, env=environment(), check=False).returncode == -9
    assert any(path.name == "a.bin" for path in storage.root.rglob("*"))  # it was under way
    assert storage.list("") == []
    assert storage.children("x") == []
    with pytest.raises(NotFound):
        storage.download("x/1", tmp_path / "copy")
    storage.upload(folder, "x/2")  # a neighbour clears it away
    assert [path.name for path in (storage.root / "x").iterdir()] == ["2"]
    storage.upload(folder, "x/1")
    assert contents(storage.root / "x" / "1") == contents(folder)


WRITING = """
import itertools, sys
from pathlib import Path
from cluster.disk import LocalStorage
storage = LocalStorage(Path(sys.argv[1]))
for number in itertools.count():
    storage.write(f"{number}", b"data")
"""


def test_a_write_that_was_killed_leaves_at_most_the_part_of_what_it_had_not_written(tmp_path: Path):
    storage = LocalStorage(tmp_path)
    for turn in range(1, 6):
        command = [sys.executable, "-c", WRITING, str(storage.root)]
        process = subprocess.Popen(command, env=environment())
        while process.poll() is None and not storage.exists(f"{20 * turn}"):
            time.sleep(0.0005)
        process.kill()
        process.wait()
        written = storage.list("")
        hidden = {path.name for path in tmp_path.iterdir()} - set(written)
        assert hidden <= {f".{len(written)}.genimg-part"}
        for number in range(len(written) + 1):  # the command again: nothing is left
            storage.write(f"{number}", b"again")
        assert {path.name for path in tmp_path.iterdir()} == set(storage.list(""))


def test_nothing_but_the_objects_stays_on_disk(tmp_path: Path, folder: Path):
    storage = LocalStorage(tmp_path / "store")
    storage.create("a/b", b"one")
    storage.replace("a/b", b"two", storage.read("a/b")[1])
    storage.upload(folder, "a/c")
    storage.delete("a/c/deep")
    assert sorted(contents(storage.root)) == ["a/b", "a/c/a.bin", "a/c/empty"]


def test_what_the_system_refuses_is_one_storage_error(tmp_path: Path):
    storage = LocalStorage(tmp_path)
    storage.write("a", b"")
    with pytest.raises(StorageError, match=r"a.*(exists|directory)"):
        storage.create("a/b", b"beneath an object")
    with pytest.raises(StorageError, match="too long"):
        storage.write("x" * 300, b"")


def test_a_copy_that_the_disk_refuses_is_blamed_on_where_it_should_go(tmp_path: Path, folder: Path):
    storage = LocalStorage(tmp_path / "store")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(StorageError) as told:
            storage.upload(folder, "here")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(told.value).startswith(f"{storage}/")
    assert storage.list("") == []


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
