"""Columns in shards: as memory has them, whatever program wrote them; types, gaps, formats."""

import json
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from annotated_folders import NAMES, annotated, pairs, picture, sharded
from pyarrow import fs

from genimg import images, rng
from genimg.data.augment import augment
from genimg.data.beside import BOXES, Number
from genimg.data.columns import COLUMNS
from genimg.data.loader import Loader
from genimg.data.loading import load_images
from genimg.data.opening import Told, open_dataset, told_by
from genimg.data.parquet import Shards
from genimg.data.shard_writing import write_shard
from genimg.data.sources import open_source
from genimg.errors import InputError
from genimg.recipe import Data

LOCAL = fs.LocalFileSystem()


@pytest.mark.parametrize("fit", ["resize", "pad", "crop"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("make", [annotated, pairs])
def test_memory_and_shards_give_the_same(tmp_path, make, fit, channels):
    source = open_source(str(make(tmp_path / "set")))
    path = sharded(source, tmp_path / "all.parquet")
    options = {"channels": channels, "size": 16, "fit": fit}
    memory, _ = load_images(source, source.columns, **options)
    shards = Shards(str(path), source.columns, **options, tolerate_broken=0)
    assert shards.classes == memory.classes == source.classes
    assert shards.columns == memory.columns == source.columns
    indices = np.random.default_rng(2).integers(0, len(source), 60)
    keys = rng.fold(3, torch.arange(60))
    expected, found = memory.fetch(indices, keys), shards.fetch(indices, keys)
    assert [*found] == [*expected] == [*source.columns]
    for column in source.columns:
        assert found[column].dtype == expected[column].dtype
        assert torch.equal(found[column], expected[column]), column
        assert torch.equal(shards.whole(4)[column], memory.whole(4)[column]), column
    assert found["image"].shape[1:] == (channels, 16, 16)


def test_shards_with_more_columns_are_of_another_format_and_others_of_the_old_one(tmp_path):
    rich = sharded(open_source(str(annotated(tmp_path / "set"))), tmp_path / "rich.parquet")
    source = open_source(str(tmp_path / "set"), columns=("image",))
    plain = tmp_path / "plain.parquet"
    rows = [{"name": "1.png", "image": source.encoded(0), "label": 1}]
    write_shard(str(plain), rows, columns=("image", "label"), classes={"label": ("a", "b")},
                broken=[], filesystem=LOCAL)  # fmt: skip
    about = [json.loads(pq.read_metadata(path).metadata[b"genimg"]) for path in (plain, rich)]
    assert about[0] == {"format": 1, "classes": ["a", "b"]}
    assert about[1] == {
        "format": 2, "classes": [],
        "classes_of": {"mask": [*NAMES], "boxes": ["cat", "dog"]},
    }  # fmt: skip
    assert pq.read_schema(plain).names == ["image", "name", "label"]
    assert pq.read_schema(rich).names == ["image", "name", "mask", "text", "boxes"]
    parts = pq.read_metadata(rich).row_group(0)
    packed = {parts.column(n).path_in_schema: parts.column(n).compression for n in range(5)}
    assert packed == {
        "image": "UNCOMPRESSED", "name": "ZSTD", "mask": "UNCOMPRESSED", "text": "ZSTD",
        "boxes.list.element.list.element": "ZSTD",
    }  # fmt: skip


def test_columns_of_other_types_matter_only_where_they_are_wanted(tmp_path):
    table = {"image": [images.encode(picture(0, 9, 9))], "mask": [7], "text": ["a"]}
    pq.write_table(pa.table(table), tmp_path / "odd.parquet")
    options = {"channels": 3, "size": 8, "fit": "resize", "tolerate_broken": 0}
    Shards(str(tmp_path / "odd.parquet"), ("image", "text"), **options)
    with pytest.raises(
        InputError, match=r"mask \(int64\), text \(string\); must have .*mask \(binary\)"
    ):
        Shards(str(tmp_path / "odd.parquet"), ("image", "mask"), **options)


def test_rows_without_a_wanted_value_are_broken(tmp_path):
    data = images.encode(picture(0, 9, 9))
    pq.write_table(
        pa.table({"image": [data, data], "text": ["a", None]}), tmp_path / "some.parquet"
    )
    options = {"channels": 3, "size": 8, "fit": "resize", "tolerate_broken": 1}
    shards = Shards(str(tmp_path / "some.parquet"), ("image", "text"), **options)
    texts = shards.fetch(np.arange(2), torch.arange(2))["text"]
    assert texts[:, 0].tolist() == [98, 98]
    assert "has no text" in shards.broken[0]


def test_boxes_of_many_lists_are_read(tmp_path):
    """float64 or integers, lists of any kind, as other programs write them."""
    data = images.encode(picture(0, 16, 16))
    for kind in (
        pa.list_(pa.list_(pa.float64())), pa.list_(pa.list_(pa.int32(), 5)),
        pa.large_list(pa.list_(pa.float32())),
    ):  # fmt: skip
        boxes = pa.array([[[1, 2, 3, 4, 5]], []], kind)
        pq.write_table(pa.table({"image": [data, data], "boxes": boxes}), tmp_path / "x.parquet")
        shards = Shards(str(tmp_path / "x.parquet"), ("image", "boxes"), channels=3, size=16,
                        fit="resize", tolerate_broken=0)  # fmt: skip
        found = shards.fetch(np.arange(2), torch.arange(2))["boxes"]
        assert found.shape == (2, BOXES, 5)
        assert found[:, 0].tolist() == [[1, 2, 3, 4, 5], [-1, 0, 0, 0, 0]]


def test_a_column_is_a_class_and_a_line(tmp_path, monkeypatch):
    """The example of docs/house.md, from a shard to a batch."""
    text = (Path(__file__).parents[2] / "docs" / "house.md").read_text()
    example = text.partition("**To add a column**")[2].partition("\n\n")[2].partition("\nThen ")[0]
    space = {"Number": Number}
    exec(textwrap.dedent(example), space)
    monkeypatch.setitem(COLUMNS, "liking", space["Liking"]())
    table = {"image": [images.encode(picture(n, 9, 9)) for n in range(4)], "liking": [5, 6, 7, 8]}
    pq.write_table(pa.table(table), tmp_path / "liked.parquet")
    wants = ("image", "liking")
    about = Data(source=str(tmp_path / "liked.parquet"), size=8, holdout=1)
    data = open_dataset(about, wants)
    loader = Loader(data, batch_size=4, seed=0, device=torch.device("cpu"),
                    augment=lambda stored, keys, _: augment(stored, keys, "dihedral"))  # fmt: skip
    assert sorted(loader.batch(0).rows["liking"].tolist()) == [5, 6, 7, 8]
    assert told_by(about, wants) == Told({})
    with pytest.raises(InputError, match="for liking, use shards; or write"):
        told_by(Data(source=str(annotated(tmp_path / "set")), size=8, holdout=1), wants)
