"""Images in any form become shards: refused early, complete, resumable, readable."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import typer
from typer.testing import CliRunner

from cluster.local import connect
from genimg import images
from genimg.data.loading import load_images
from genimg.data.machine import Memory
from genimg.data.opening import open_dataset, told_by
from genimg.data.parquet import Shards
from genimg.data.sources import open_source
from genimg.errors import InputError
from genimg.recipe import Data
from jobs.prepare import prepare

pytestmark = pytest.mark.ray

IMAGE = ("image",)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ray():
    """One cluster for these tests, or the one that the session has."""
    with connect(cpus=2):
        yield


@pytest.fixture
def pets(tmp_path) -> Path:
    """Thirty images, of mixed sizes and forms, in two classes."""
    generator = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for i in range(15):
            shape = (*generator.integers(12, 30, 2), 3)
            suffix = ("png", "jpg", "webp")[i % 3]
            picture = generator.integers(0, 256, shape, np.uint8)
            images.save(picture, tmp_path / "pets" / label / f"{i}.{suffix}")
    return tmp_path / "pets"


def shards_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.parquet"))


def rows_in(folder: Path) -> list[dict]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in read_alone(path)]


def read_alone(path: Path) -> list[dict]:
    with path.open("rb") as file:  # one shard, not a data set that Arrow guesses from the path
        return pq.read_table(file).to_pylist()


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}


def test_a_folder_keeps_its_bytes_classes_and_names(pets, tmp_path, ray, capsys):
    prepare(str(pets), str(tmp_path / "out"), shard_rows=8)
    assert shards_in(tmp_path / "out") == [f"shard-0000{i}-of-00004.parquet" for i in range(4)]
    rows = rows_in(tmp_path / "out")
    assert len(rows) == 30
    for row in rows:
        assert (pets / row["name"]).read_bytes() == row["image"]
        assert row["label"] == ["cat", "dog"].index(row["name"].split("/")[0])
    assert len({row["label"] for row in rows[:8]}) == 2  # shuffled, not class after class
    assert "30 images, 4 shards" in capsys.readouterr().out
    assert not list((tmp_path / "out").glob("*.part"))


def test_training_on_shards_sees_the_pixels_of_the_source(pets, tmp_path, ray):
    shutil.make_archive(str(tmp_path / "pets"), "zip", pets)
    prepare(str(tmp_path / "pets.zip"), str(tmp_path / "out"), size=16, fit="pad")
    source = open_source(str(tmp_path / "pets.zip"))
    fitted = {"channels": 3, "size": 16, "fit": "pad"}
    memory, _ = load_images(source, source.columns, **fitted)
    shards = Shards(str(tmp_path / "out"), source.columns, **fitted, tolerate_broken=0)
    names = [row["name"] for row in rows_in(tmp_path / "out")]
    order = np.array([source.names.index(name) for name in names])
    keys = torch.zeros(30, dtype=torch.int64)
    found, expected = shards.fetch(np.arange(30), keys), memory.fetch(order, keys)
    assert torch.equal(found["image"], expected["image"])
    assert torch.equal(found["label"], expected["label"])
    assert shards.classes == source.classes == {"label": ("cat", "dog")}


def test_a_divided_source_becomes_train_and_test(shared_data, tmp_path, ray):
    mnist = str(shared_data / "mnist")
    prepare(mnist, str(tmp_path / "out"), split="test", shard_rows=4000)
    assert shards_in(tmp_path / "out" / "test") == [
        f"shard-0000{i}-of-00003.parquet" for i in range(3)
    ]
    shards = Shards(str(tmp_path / "out" / "test"), ("image", "label"), channels=1, size=28,
                    fit="resize", tolerate_broken=0)  # fmt: skip
    assert shards.classes == {"label": tuple("0123456789")}
    source = open_source(mnist, "test")
    counts = np.bincount(source.labels)
    labels = shards.fetch(np.arange(10_000), torch.zeros(10_000).long())["label"]
    assert np.bincount(labels.numpy()).tolist() == counts.tolist()


def test_all_splits_are_written_unless_one_is_named(tmp_path, ray):
    pictures = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "set.npz", x_train=pictures[:20], x_test=pictures[20:])
    prepare(str(tmp_path / "set.npz"), str(tmp_path / "out"), format="webp")
    lengths = [
        len(Shards(str(tmp_path / "out"), channels=3, size=8, fit="resize", tolerate_broken=0,
                   split=split))
        for split in ("train", "test", "all")
    ]  # fmt: skip
    assert lengths == [20, 10, 30]
    found = {images.decode(row["image"]).tobytes() for row in rows_in(tmp_path / "out" / "test")}
    assert found == {picture.tobytes() for picture in pictures[20:]}  # lossless without --quality


def test_a_second_start_writes_what_is_missing_only(pets, tmp_path, ray):
    out = tmp_path / "out"
    prepare(str(pets), str(out), shard_rows=8)
    rows, before = rows_in(out), times(out)
    lost, cut = shards_in(out)[1:3]
    (out / lost).unlink()
    (out / cut).write_bytes((out / cut).read_bytes()[:-10])
    (out / ".shard-00001-of-00004.parquet.0123.part").write_bytes(b"half")
    prepare(str(pets), str(out), shard_rows=8)
    assert rows_in(out) == rows
    assert [name for name, at in times(out).items() if at == before[name]] == [
        name for name in times(out) if name not in (lost, cut)
    ]
    assert not list(out.glob(".*.part"))


def test_other_options_need_overwrite_which_removes_shards_only(pets, tmp_path, ray):
    out = tmp_path / "out"
    prepare(str(pets), str(out), shard_rows=8)
    with pytest.raises(InputError, match="--overwrite replaces them"):
        prepare(str(pets), str(out), shard_rows=20)
    prepare(str(pets), str(out), shard_rows=20, overwrite=True)
    assert shards_in(out) == [f"shard-0000{i}-of-00002.parquet" for i in range(2)]
    (out / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match=r"thesis\.txt"):
        prepare(str(pets), str(out), shard_rows=8, overwrite=True)
    assert len(rows_in(out)) == 30


def touch(path: Path, picture: np.ndarray) -> None:
    """Replace an image without changing the time of any folder."""
    with path.open("wb") as file:
        file.write(images.encode(picture, "png"))


def test_an_image_that_was_replaced_in_its_class_folder_makes_other_shards(pets, tmp_path, ray):
    out = tmp_path / "out"
    prepare(str(pets), str(out), shard_rows=8)
    touch(pets / "cat" / "0.png", np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(InputError, match="--overwrite replaces them"):
        prepare(str(pets), str(out), shard_rows=8)
    prepare(str(pets), str(out), shard_rows=8, overwrite=True)
    (found,) = (row["image"] for row in rows_in(out) if row["name"] == "cat/0.png")
    assert found == (pets / "cat" / "0.png").read_bytes()


@pytest.mark.parametrize("form", ["zip", "tar", "gztar", "xztar", "bztar"])
def test_archives_become_the_shards_that_their_folder_becomes(
    pets, tmp_path, ray, form, monkeypatch
):
    monkeypatch.setenv("GENIMG_CACHE", str(tmp_path / "cache"))
    archive = shutil.make_archive(str(tmp_path / "pets"), form, pets)
    prepare(archive, str(tmp_path / "out"), shard_rows=8)
    prepare(str(pets), str(tmp_path / "same"), shard_rows=8)
    assert rows_in(tmp_path / "out") == rows_in(tmp_path / "same")


def test_a_set_without_room_in_memory_is_prepared_by_the_command_that_its_refusal_names(
    pets, tmp_path, ray
):
    asked = Data(source=str(pets), size=16, fit="pad", holdout=2)
    none = Memory(10**9, 1)
    with pytest.raises(InputError, match="genimg prepare") as caught:
        told_by(asked, IMAGE, memory=none)
    command, _, shards = str(caught.value).partition("instead: ")[2].partition(", then --data ")
    words = shlex.split(command)
    assert words[:2] == ["genimg", "prepare"]
    app = typer.Typer()
    app.command()(prepare)
    assert CliRunner().invoke(app, words[2:]).exit_code == 0
    streamed = asked.model_copy(update={"source": shlex.split(shards)[0]})
    assert told_by(streamed, IMAGE, memory=none).classes == {"label": ("cat", "dog")}
    assert len(open_dataset(streamed, IMAGE, memory=none)) == 30


def test_broken_images_are_named_counted_and_left_out(pets, tmp_path, ray, capsys):
    (pets / "cat" / "3.png").write_bytes(b"junk")
    (pets / "dog" / "0.png").write_bytes((pets / "dog" / "0.png").read_bytes()[:60])
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"--tolerate-broken 1.*(cat/3|dog/0)\.png"):
        prepare(str(pets), str(out), shard_rows=8, tolerate_broken=1)
    prepare(str(pets), str(out), shard_rows=8, tolerate_broken=2)  # goes on where that stopped
    assert len(rows_in(out)) == 28
    printed = capsys.readouterr()
    assert "28 images, 4 shards" in printed.out
    assert "2 broken" in printed.out
    assert "left out: cat/3.png" in printed.err
    assert "left out: dog/0.png" in printed.err
    prepare(str(pets), str(out), shard_rows=8, tolerate_broken=2)  # all there, nothing forgotten
    assert "2 broken" in capsys.readouterr().out
    with pytest.raises(InputError, match="--tolerate-broken 0"):
        prepare(str(pets), str(out), shard_rows=8)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"size": 4}, "--size 4"),
        ({"fit": "crop"}, "--fit crop"),
        ({"format": "jpg"}, "--format jpg.*'jpeg'"),
        ({"quality": 90}, "--quality 90"),
        ({"format": "jpeg", "quality": 101}, "--quality 101"),
        ({"shard_rows": 0}, "--shard-rows 0"),
        ({"split": "val"}, "--split val"),
        ({"split": "test"}, "not divided"),
        ({"tolerate_broken": -1}, "--tolerate-broken -1"),
        ({"dest": "gs://bucket/set"}, "give a local path or s3://"),
        ({"source": "gs://bucket/set"}, "give a local path or s3://"),
        ({"source": "nowhere"}, "nowhere: no such file"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(pets, tmp_path, options, named):
    with pytest.raises(InputError, match=named):
        prepare(**{"source": str(pets), "dest": str(tmp_path / "out"), **options})
    assert not (tmp_path / "out").exists()


def test_the_command_refuses_in_one_line_without_starting_ray(pets, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    command = [sys.executable, "-X", "importtime", "-m", "jobs.prepare"]
    done = subprocess.run(
        [*command, str(pets), str(tmp_path / "out")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert "thesis.txt" in lines[0]
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "ray" not in imported
    assert "Traceback" not in done.stderr


def test_help_imports_neither_torch_nor_ray():
    code = (
        "import sys, jobs.prepare\n"
        "assert not {'torch', 'ray', 'pyarrow'} & set(sys.modules), 'slow imports'"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.slow
def test_killed_half_way_it_leaves_whole_shards_and_goes_on(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (2000, 96, 96, 3), np.uint8)
    np.savez(tmp_path / "set.npz", images=pictures, labels=np.arange(2000) % 7)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "jobs.prepare", str(tmp_path / "set.npz"), str(out)]
    command += ["--shard-rows", "50"]
    with tempfile.TemporaryDirectory(prefix="gi", ignore_cleanup_errors=True) as short:
        environment = {**os.environ, "TMPDIR": short}  # where Ray's sockets are: short
        environment.pop("RAY_ADDRESS", None)
        process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
        try:
            deadline = time.monotonic() + 120
            while len(shards_in(out)) < 3 and time.monotonic() < deadline:
                assert process.poll() is None
                time.sleep(0.01)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        left = shards_in(out)
        assert 3 <= len(left) < 40
        assert all(len(read_alone(out / name)) == 50 for name in left)  # whole, each of them
        before = times(out)
        subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=200)
    assert len(shards_in(out)) == 40
    assert all(times(out)[name] == at for name, at in before.items() if name in left)
    assert not list(out.glob(".*.part"))
    found = {images.decode(row["image"]).tobytes() for row in rows_in(out)}
    assert found == {picture.tobytes() for picture in pictures}
