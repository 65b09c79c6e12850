"""Which storage an address means, and addresses that mean the same everywhere."""

from pathlib import Path

import pytest

from cluster.places import everywhere, open_storage
from cluster.storage import StorageError


def test_open_storage_takes_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    open_storage("place").write("a", b"one")
    assert (tmp_path / "place" / "a").read_bytes() == b"one"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://", "give s3://BUCKET/PREFIX"),
        ("s3://A_B/x", "give s3://BUCKET/PREFIX"),
        ("s3://bucket/../x", "is no key"),
        ("gs://bucket", "gs:// is not supported; give a folder or s3://"),
        ("file:///tmp/x", "file:// is not supported"),
        ("", "give the path of a folder, or s3://"),
    ],
)
def test_open_storage_refuses_what_it_cannot_open(url: str, message: str):
    with pytest.raises(StorageError, match=message):
        open_storage(url)


def test_open_storage_refuses_a_file(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="is a file; give a folder"):
        open_storage(str(tmp_path / "file"))


def test_a_path_means_the_same_to_processes_in_other_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert everywhere("runs/") == f"{tmp_path}/runs"
    assert everywhere("~/runs") == "/home/somebody/runs"
    assert everywhere("/runs") == "/runs"


@pytest.mark.parametrize("place", ["s3://bucket/runs", "gs://bucket", "s3:/bucket", ""])
def test_what_is_no_path_stays_as_it_is(place: str):
    assert everywhere(place) == place
