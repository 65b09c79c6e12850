"""Data in S3: shards streamed, other forms copied once, and what is wrong said in one line."""

import shutil
import subprocess
import sys
from pathlib import Path

import boto3
import numpy as np
import pytest
import torch
from pyarrow import fs

from genimg import images
from genimg.data.opening import open_dataset, told_by
from genimg.data.parts import Part, PartSource
from genimg.data.remote import on_this_machine
from genimg.data.shard_writing import write_shard
from genimg.data.sources import is_parquet, open_source, opener
from genimg.errors import InputError
from genimg.recipe import Data


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENIMG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images in two classes."""
    generator = np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / "set" / ("ab"[number % 2]) / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        images.save(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8), path)
    return tmp_path / "set"


def put(address: str, folder: Path) -> str:
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    for path in folder.rglob("*"):
        if path.is_file():
            key = f"{prefix}/{path.relative_to(folder)}"
            boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    return address


def everything(source: str) -> list[torch.Tensor]:
    data = open_dataset(Data(source=source, size=16, holdout=2), ("image", "label"))
    return [*data.fetch(np.arange(len(data)), torch.zeros(len(data), dtype=torch.int64)).values()]


def test_a_folder_in_s3_is_the_same_data_as_the_folder(bucket: str, folder: Path):
    address = put(f"{bucket}/some/set", folder)
    assert not is_parquet(address)
    told = told_by(Data(source=address, size=16, holdout=2), ("image",))
    assert told.classes == {"label": ("a", "b")}
    for there, here in zip(everything(address), everything(str(folder)), strict=True):
        assert torch.equal(there, here)


def test_parts_of_a_folder_in_s3_are_read_file_by_file(bucket: str, folder: Path, cache: Path):
    address = put(f"{bucket}/some/set", folder)
    source = opener(address, in_parts=True)("train")
    here = open_source(str(folder))
    assert (source.names, source.classes) == (here.names, here.classes)
    part = source.part(np.array([7, 2]))
    read = PartSource(address, part, source.classes)
    assert [read.encoded(0), read.encoded(1)] == [here.encoded(7), here.encoded(2)]
    before = list(source.states())
    (folder / here.names[5]).write_bytes(b"other")
    after = list(opener(put(address, folder), in_parts=True)("train").states())
    assert [a == b for a, b in zip(before, after, strict=True)][5] is False
    with pytest.raises(images.BrokenImage, match=r"gone\.png: no such file"):
        PartSource(address, Part({"image": ["a/gone.png"]}, {"image": [()]}, {}), {}).read(0)
    assert not cache.exists()  # nothing was copied


def test_shards_in_s3_are_streamed_and_the_same_as_on_disk(
    bucket: str, folder: Path, tmp_path: Path, cache: Path
):
    source = open_source(str(folder))
    rows = [
        {"name": name} | {column: source.encoded(i, column) for column in source.columns}
        for i, name in enumerate(source.names)
    ]
    for split in ("train", "test"):
        (tmp_path / "shards" / split).mkdir(parents=True)
        write_shard(
            str(tmp_path / "shards" / split / "shard-0.parquet"), rows,
            columns=source.columns, classes=source.classes,
            broken=[], filesystem=fs.LocalFileSystem(),
        )  # fmt: skip
    address = put(f"{bucket}/shards", tmp_path / "shards")
    assert is_parquet(address)
    assert is_parquet(f"{address}/train/shard-0.parquet")
    for there, here in zip(everything(address), everything(str(tmp_path / "shards")), strict=True):
        assert torch.equal(there, here)
    assert not cache.exists()  # nothing was copied


def test_an_archive_is_copied_once_and_again_when_it_changes(bucket: str, tmp_path: Path):
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "a.npz").write_bytes(b"one")
    put(f"{bucket}/x", tmp_path / "up")
    first = on_this_machine(f"{bucket}/x/a.npz")
    assert (first.name, first.read_bytes()) == ("a.npz", b"one")
    before = first.stat()
    assert on_this_machine(f"{bucket}/x/a.npz") == first
    assert first.stat() == before
    (tmp_path / "up" / "a.npz").write_bytes(b"three")
    put(f"{bucket}/x", tmp_path / "up")
    assert on_this_machine(f"{bucket}/x/a.npz").read_bytes() == b"three"


COPIES = """
import sys
from genimg.data.remote import on_this_machine
from pyarrow import fs
copy = fs.copy_files
fs.copy_files = lambda *arguments: (print("copied"), copy(*arguments))
assert (on_this_machine(sys.argv[1]) / "a.npy").stat().st_size == 6_000_000
"""


def test_the_workers_of_a_machine_copy_it_once(bucket: str, tmp_path: Path, cache: Path):
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "a.npy").write_bytes(bytes(6_000_000))
    address = put(f"{bucket}/x", tmp_path / "up")
    line = [sys.executable, "-c", COPIES, address]
    workers = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert sorted(said) == ["", "", "copied\n"]


def test_what_a_killed_process_copied_in_part_is_no_data(bucket: str, tmp_path: Path, cache: Path):
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "a.npy").write_bytes(b"whole")
    address = put(f"{bucket}/x", tmp_path / "up")
    digest = on_this_machine(address).parent.name
    shutil.rmtree(cache / "data" / digest)
    (cache / "data" / f".{digest}.part" / "x").mkdir(parents=True)
    (cache / "data" / f".{digest}.part" / "x" / "b.npy").write_bytes(b"half")
    assert [path.name for path in on_this_machine(address).iterdir()] == ["a.npy"]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://never-made/set", "nothing is there"),
        ("s3://", "give s3://BUCKET/PREFIX"),
        ("gs://bucket/set", "give a local path or s3://BUCKET/PREFIX"),
    ],
)
def test_addresses_of_nothing_are_refused(s3: str, address: str, message: str):
    with pytest.raises(InputError, match=message):
        told_by(Data(source=address), ("image",))


def test_a_cache_that_cannot_be_written_is_one_line(
    bucket: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GENIMG_CACHE", str(tmp_path / "file/cache"))
    address = put(f"{bucket}/set", folder)
    with pytest.raises(InputError, match="set GENIMG_CACHE to a folder"):
        told_by(Data(source=address), ("image",))


def test_a_store_that_does_not_answer_is_one_line(bucket: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="check the address, the AWS variables") as told:
        told_by(Data(source="s3://another-one/set"), ("image",))
    assert "test-secret" not in str(told.value)
