"""Parquet shards give the same images as memory does, in an order that can be streamed."""

import io
import logging
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import fs

from genimg import images, rng
from genimg.data.loader import Loader
from genimg.data.loading import load_images
from genimg.data.parquet import Shards
from genimg.data.row_groups import GroupCache
from genimg.data.shard_files import RowGroup
from genimg.data.shard_writing import GROUP_BYTES, grouped, write_shard
from genimg.data.sources import open_source
from genimg.errors import InputError

LOCAL = fs.LocalFileSystem()


def numbered(number: int, side: int = 8) -> bytes:
    """A PNG that tells its own number: blocks of 1 + number // 256 and number % 256."""
    picture = np.zeros((side, side, 3), np.uint8)
    picture[..., 0], picture[..., 1] = number // 256, number % 256
    return images.encode(picture)


def row(image: bytes, label: int, name: str) -> dict:
    return {"image": image, "label": label, "name": name}


def numbers(pixels: torch.Tensor) -> list[int]:
    return (pixels[:, 0, 0, 0].long() * 256 + pixels[:, 1, 0, 0].long()).tolist()


def write_numbered(folder: Path, count: int, shards: int = 2, broken: tuple[int, ...] = ()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for shard, part in enumerate(np.array_split(np.arange(count), shards)):
        write_shard(
            str(folder / f"shard-{shard}.parquet"),
            (row(b"junk" if n in broken else numbered(n), n % 10, f"{n}.png") for n in part),
            columns=("image", "label"),
            classes={"label": tuple("abcdefghij")},
            broken=[],
            filesystem=LOCAL,
        )
    return folder


def write_foreign(path: Path, count: int, row_group_size: int) -> Path:
    """What another program writes: no metadata of ours, other columns too, small row groups."""
    table = pa.table(
        {
            "extra": list(range(count)),
            "label": [n % 10 for n in range(count)],
            "image": [numbered(n) for n in range(count)],
        }
    )
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def opened(path: Path | str, tolerate_broken: int = 0, **options) -> Shards:
    settings = {"channels": 3, "size": 8, "fit": "resize", "columns": ("image", "label"), **options}
    return Shards(str(path), tolerate_broken=tolerate_broken, **settings)


def everything(shards: Shards) -> list[int]:
    return numbers(shards.fetch(np.arange(len(shards)), torch.zeros(len(shards)).long())["image"])


@pytest.mark.parametrize("fit", ["resize", "pad", "crop"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_and_labels_are_those_of_the_dataset_in_memory(tmp_path, fit, channels):
    generator = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "files" / label).mkdir(parents=True)
        for i in range(12):
            shape = (*generator.integers(16, 40, 2), 1 if i == 3 else 3)
            picture = generator.integers(0, 256, shape, np.uint8)
            name = f"{i}.{'jpg' if i % 2 else 'png'}"
            images.save(picture, tmp_path / "files" / label / name)
    source = open_source(str(tmp_path / "files"))
    rows = [
        row(source.encoded(i), int(source.labels[i]), source.names[i]) for i in range(len(source))
    ]
    write_shard(
        str(tmp_path / "all.parquet"), rows,
        columns=source.columns, classes=source.classes, broken=[], filesystem=LOCAL,
    )  # fmt: skip
    memory, _ = load_images(source, source.columns, channels=channels, size=16, fit=fit)
    shards = opened(tmp_path / "all.parquet", channels=channels, size=16, fit=fit)

    indices = np.random.default_rng(1).integers(0, 24, 100)
    keys = rng.fold(5, torch.arange(100))
    expected, found = memory.fetch(indices, keys), shards.fetch(indices, keys)
    assert torch.equal(found["image"], expected["image"])
    assert torch.equal(found["label"], expected["label"])
    assert torch.equal(shards.whole(5)["image"], memory.whole(5)["image"])
    assert shards.classes == {"label": ("cat", "dog")}
    assert len(shards) == 24


def test_whole_is_not_cropped_and_without_labels_there_are_none(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8)
    only = {"image": images.encode(picture), "name": "a.png"}
    path = str(tmp_path / "a.parquet")
    write_shard(path, [only], columns=("image",), classes={}, broken=[], filesystem=LOCAL)
    shards = opened(path, fit="crop", columns=("image",))
    assert np.array_equal(shards.whole(0)["image"].permute(1, 2, 0).numpy(), picture)
    assert shards.fetch(np.array([0]), torch.tensor([0])).keys() == {"image"}
    refused("has image, but wanted are image and label.*one folder a class", path)


@given(st.lists(st.integers(0, 9), max_size=60))
@settings(deadline=None)
def test_cache_keeps_what_was_used_last(wanted):
    cache = GroupCache(lambda g: RowGroup(g, {}, 100), capacity=350)
    held: list[int] = []
    reads = 0
    for group in wanted:
        reads += group not in held
        held = [*[g for g in held if g != group][-2:], group]
        cache.get(group)
        assert cache.bytes <= 350
        assert cache.reads == reads


def test_two_threads_that_want_a_row_group_read_it_once_and_a_failure_is_not_kept():
    calls, together = [], Barrier(2, timeout=10)

    def read(number: int) -> RowGroup:
        calls.append(number)
        if len(calls) == 1:
            raise InputError("not yet")
        together.wait()
        return RowGroup(number, {}, 1)

    cache = GroupCache(read, capacity=10)
    with pytest.raises(InputError, match="not yet"):
        cache.get(7)
    threads = [Thread(target=cache.get, args=[7]) for _ in range(2)]
    for thread in threads:
        thread.start()
    together.wait()  # the one reader that there is
    for thread in threads:
        thread.join()
    assert calls == [7, 7]


def test_prefetched_row_groups_are_not_read_again():
    cache = GroupCache(lambda g: RowGroup(g, {}, 100), capacity=1000)
    cache.prefetch([3, 1, 2])
    assert [cache.get(g).number for g in (2, 3, 1)] == [2, 3, 1]
    assert cache.reads == 3


def test_a_cache_smaller_than_the_set_is_kept_to_and_loses_nothing(tmp_path):
    path = write_foreign(tmp_path / "foreign.parquet", 200, row_group_size=10)
    small = 3 * 10 * len(numbered(0)) * 2
    shards = opened(path, cache_bytes=small)
    found = []
    for seen in range(0, 200, 25):
        indices = shards.locate(np.arange(seen, seen + 25), 3, 25)
        pixels, labels = shards.fetch(indices, torch.zeros(25).long()).values()
        assert numbers(pixels) == indices.tolist()
        assert labels.tolist() == [i % 10 for i in indices.tolist()]
        assert shards._cache.bytes <= small
        found += numbers(pixels)
    assert sorted(found) == list(range(200))
    assert shards._cache.reads > 20  # it was indeed too small


def batches(shards: Shards, seen: int, count: int, **options) -> list[torch.Tensor]:
    loader = Loader(
        shards, batch_size=30, seed=4, device=torch.device("cpu"),
        augment=lambda stored, keys, seen: stored, seen=seen, **options,
    )  # fmt: skip
    stream = iter(loader)
    return [next(stream).rows["image"] for _ in range(count)]


def test_a_loader_resumes_anywhere_and_shares_among_any_number_of_workers(tmp_path):
    folder = write_numbered(tmp_path / "set", 100, shards=3)
    straight = batches(opened(folder), 0, 7)  # two epochs and a bit
    for step in (1, 5):
        resumed = batches(opened(folder), 30 * step, 7 - step)
        assert all(torch.equal(a, b) for a, b in zip(straight[step:], resumed, strict=True))
    parts = [batches(opened(folder), 0, 7, rank=rank, world=3) for rank in range(3)]
    for whole, *shared in zip(straight, *parts, strict=True):
        assert torch.equal(whole, torch.cat(shared))


def test_held_out_rows_are_apart_from_those_trained_on(tmp_path):
    folder = write_numbered(tmp_path / "set", 300, shards=3)
    train, held = opened(folder).hold_out(40)
    assert (len(train), len(held)) == (260, 40)
    assert sorted(everything(train) + everything(held)) == list(range(300))
    assert everything(opened(folder).hold_out(40)[1]) == everything(held)  # the same next time
    assert len({opened(folder).fingerprint, train.fingerprint, held.fingerprint}) == 3

    order = train.locate(np.arange(260), 0, 32)
    seen = numbers(train.fetch(order, torch.zeros(260).long())["image"])
    assert sorted(seen) == sorted(everything(train))

    again, held_again = train.hold_out(10)
    assert sorted(everything(again) + everything(held_again)) == sorted(everything(train))
    with pytest.raises(InputError, match=r"data\.holdout=300"):
        opened(folder).hold_out(300)


def test_a_broken_row_stops_the_training_and_is_named(tmp_path):
    folder = write_numbered(tmp_path / "set", 20, broken=(13,))
    with pytest.raises(InputError, match=r"tolerate_broken=0.*shard-1\.parquet\[3\] \(13\.png\)"):
        everything(opened(folder))


def test_tolerated_broken_rows_are_replaced_by_the_next_one_and_logged_once(tmp_path, caplog):
    shards = opened(write_numbered(tmp_path / "set", 20, broken=(4, 5, 19)), tolerate_broken=3)
    indices = np.arange(20)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            pixels, labels = shards.fetch(indices, torch.zeros(20).long()).values()
    expected = [{4: 6, 5: 6, 19: 0}.get(n, n) for n in range(20)]
    assert numbers(pixels) == expected
    assert labels.tolist() == [n % 10 for n in expected]
    assert numbers(shards.whole(19)["image"][None]) == [0]
    assert len(shards.broken) == 3
    assert len(caplog.records) == 3


def test_a_broken_row_is_never_replaced_by_a_held_out_one(tmp_path):
    _, held = opened(write_numbered(tmp_path / "set", 60)).hold_out(30)
    secret = set(everything(held))
    before = tuple(n for n in range(59) if n not in secret and n + 1 in secret)
    assert before
    damaged = write_numbered(tmp_path / "damaged", 60, broken=before)
    train, _ = opened(damaged, tolerate_broken=60).hold_out(30)
    assert not secret & set(everything(train))


def test_none_readable_is_an_error_and_no_endless_search(tmp_path):
    folder = write_numbered(tmp_path / "set", 6, broken=tuple(range(6)))
    with pytest.raises(InputError, match="none of the 6 images"):
        everything(opened(folder, tolerate_broken=100))


def test_other_programs_read_our_shards(tmp_path):
    folder = write_numbered(tmp_path / "set", 20, shards=1)
    table = pq.read_table(folder / "shard-0.parquet")
    assert table["name"].to_pylist() == [f"{n}.png" for n in range(20)]
    assert table["label"].to_pylist() == [n % 10 for n in range(20)]
    picture = np.asarray(Image.open(io.BytesIO(table["image"][7].as_py())))
    assert picture[0, 0].tolist() == [0, 7, 0]


def test_we_read_other_programs_shards_and_number_their_classes(tmp_path):
    shards = opened(write_foreign(tmp_path / "a.parquet", 30, row_group_size=7))
    assert shards.classes == {"label": tuple("0123456789")}
    assert everything(shards) == list(range(30))


def test_row_groups_without_rows_are_passed_over(tmp_path):
    path = write_foreign(tmp_path / "some.parquet", 30, row_group_size=7)
    nothing = pq.read_table(path).slice(0, 0)
    pq.write_table(nothing, tmp_path / "empty.parquet")  # has one row group, of no rows
    shards = opened(tmp_path)
    assert (len(shards), len(shards.classes["label"])) == (30, 10)
    train, held = shards.hold_out(10)
    assert sorted(everything(train) + everything(held)) == everything(opened(path))


def test_row_groups_are_bounded_in_rows_and_bytes():
    assert [len(g) for g in grouped(row(b"", 0, "") for _ in range(1300))] == [512, 512, 276]
    large = bytes(GROUP_BYTES // 2 + 1)
    assert [len(g) for g in grouped([row(large, 0, "")] * 5)] == [2, 2, 1]


def test_a_shard_that_cannot_be_finished_leaves_nothing(tmp_path):
    def rows():
        yield row(numbered(0), 0, "0.png")
        raise RuntimeError("the power is gone")

    path = str(tmp_path / "a.parquet")
    with pytest.raises(RuntimeError, match="power"):
        write_shard(path, rows(), columns=("image",), classes={}, broken=[], filesystem=LOCAL)
    assert list(tmp_path.iterdir()) == []


def test_folders_train_and_test_are_splits(tmp_path):
    write_numbered(tmp_path / "train", 20)
    write_numbered(tmp_path / "test", 10)
    lengths = {split: len(opened(tmp_path, split=split)) for split in ("train", "test", "all")}
    assert lengths == {"train": 20, "test": 10, "all": 30}
    assert len(opened(tmp_path / "train", split="test")) == 20  # not divided: everything


def test_fingerprint_tells_sets_apart_and_needs_no_contents(tmp_path):
    first = opened(write_numbered(tmp_path / "a", 20)).fingerprint
    assert opened(write_numbered(tmp_path / "b", 20)).fingerprint == first
    assert opened(write_numbered(tmp_path / "c", 21)).fingerprint != first
    assert opened(tmp_path / "a", channels=1).fingerprint != first


def refused(match: str, path: Path | str, **options) -> None:
    with pytest.raises(InputError, match=match):
        everything(opened(path, **options))


def test_what_is_no_set_of_images_is_refused_by_name(tmp_path):
    refused("no such file", tmp_path / "nowhere")
    refused(r"no \*\.parquet", tmp_path)
    refused("give a local path or s3://", "gs://bucket/set")

    strange = tmp_path / "strange.parquet"
    pq.write_table(pa.table({"picture": [b""], "label": [1]}), strange)
    refused(r"picture \(binary\), label \(int64\); must have image", strange)
    pq.write_table(pa.table({"image": [b"junk"], "label": ["cat"]}), strange)
    refused(r"label \(string\)", strange)
    pq.write_table(pa.table({"image": [b"junk"], "label": [-1]}), strange)
    refused("label -1", strange)

    whole = write_numbered(tmp_path / "set", 20, shards=1) / "shard-0.parquet"
    (tmp_path / "cut.parquet").write_bytes(whole.read_bytes()[:-100])
    refused("cut.parquet: not a readable Parquet file", tmp_path / "cut.parquet")

    write_foreign(tmp_path / "set" / "x.parquet", 10, 10)
    refused("x.parquet: differs from", tmp_path / "set")


def test_crops_larger_than_an_image_are_refused_by_name(tmp_path):
    refused(r"data\.size=16.*0\.png.*8x8", write_numbered(tmp_path, 3), fit="crop", size=16)
