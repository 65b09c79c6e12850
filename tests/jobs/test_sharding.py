"""Shards hold every column of a source, as it is or fitted, and give what the source gives."""

from pathlib import Path

import numpy as np
import pytest
import torch
from annotated_folders import ALL, NAMES, annotated, pairs

from genimg.data.loading import load_images
from genimg.data.opening import told_by
from genimg.data.parquet import Shards
from genimg.data.parts import Part
from genimg.data.sources import open_source
from genimg.errors import InputError
from genimg.recipe import Data
from jobs.shards.folder import claim
from jobs.shards.plan import make_plan
from jobs.shards.writer import Sharder, part_of

OPTIONS = {
    "split": "all", "size": None, "fit": "resize", "format": "keep", "quality": None,
    "shard_rows": 4,
}  # fmt: skip


def written(source: Path, folder: Path, **options) -> Path:
    plan, sources = make_plan(str(source), **(OPTIONS | options))
    claim(str(folder), plan, overwrite=False)
    for shard in plan.shards(str(folder)):
        part = part_of(plan, sources, shard)
        outcome = Sharder(plan, 0).write(shard, Part.unpacked(part.packed()))
        assert outcome.complete, outcome
    return folder


@pytest.mark.parametrize(
    ("options", "fit"),
    [({}, "resize"), ({}, "crop"), ({"size": 16}, "resize"), ({"size": 16, "fit": "pad"}, "pad")],
)
@pytest.mark.parametrize("make", [annotated, pairs])
def test_every_column_is_written_and_read_as_from_the_source(tmp_path, make, options, fit):
    source = open_source(str(make(tmp_path / "set")))
    folder = written(tmp_path / "set", tmp_path / "shards", **options)
    fitted = {"channels": 3, "size": 16, "fit": fit}
    shards = Shards(str(folder), source.columns, **fitted, tolerate_broken=0)
    memory, _ = load_images(source, source.columns, **fitted)
    assert shards.classes == memory.classes
    everything = np.arange(len(source))
    order = [row.rpartition("(")[2].rstrip(")") for row in places(shards)]
    keys = torch.zeros(len(source), dtype=torch.int64)
    found = shards.fetch(everything, keys)
    expected = memory.fetch(np.array([source.names.index(name) for name in order]), keys)
    for column in source.columns:
        assert torch.equal(found[column], expected[column]), column


def places(shards: Shards) -> list[str]:
    """The names of all rows, in order."""
    groups = [shards._files.read(number) for number in range(len(shards._files.rows))]
    return [shards._files.place_of(group, row)
            for group in groups for row in range(len(group.columns["image"]))]  # fmt: skip


def test_only_columns_that_are_asked_for_are_written(tmp_path):
    folder = written(annotated(tmp_path / "set"), tmp_path / "shards", columns="text,mask")
    shards = Shards(str(folder), ("image", "mask", "text"), channels=3, size=16, fit="pad",
                    tolerate_broken=0)  # fmt: skip
    assert shards.classes == {"mask": NAMES}
    data = Data(source=str(folder), holdout=1)
    with pytest.raises(InputError, match="has image, mask and text, but wanted are image and"):
        told_by(data, ("image", "boxes"))
    for text, reason in (
        ("masks", "did you mean 'mask'"),
        ("target", "image and target; for"),
    ):
        with pytest.raises(InputError, match=reason):
            make_plan(str(tmp_path / "set"), **OPTIONS, columns=text)


def test_classes_of_masks_without_names_are_numbered_once_for_all_shards(tmp_path):
    annotated(tmp_path / "set")
    (tmp_path / "set" / "classes.txt").unlink()
    plan, _ = make_plan(str(tmp_path / "set"), **OPTIONS)
    assert plan.classes == {"mask": ["0", "1", "2"], "boxes": ["cat", "dog"]}
    assert plan.columns == [name for name in ALL if name in ("image", "mask", "text", "boxes")]


def test_a_change_beside_the_images_makes_other_shards(tmp_path):
    folder = annotated(tmp_path / "set")
    before = make_plan(str(folder), **OPTIONS)[0].content
    for name in ("masks/3.png", "captions.jsonl", "annotations.json"):
        file = folder / name
        file.write_bytes(file.read_bytes() + b"\n")
        after = make_plan(str(folder), **OPTIONS)[0].content
        assert after != before, name
        before = after


def test_what_does_not_fit_its_image_is_left_out_by_name(tmp_path):
    folder = annotated(tmp_path / "set")
    (folder / "masks" / "3.png").write_bytes((folder / "masks" / "4.png").read_bytes())
    plan, sources = make_plan(str(folder), **(OPTIONS | {"shard_rows": 100}))
    (shard,) = plan.shards(str(tmp_path))
    outcome = Sharder(plan, 1).write(shard, part_of(plan, sources, shard))
    assert outcome.images == 8
    assert outcome.broken[0].startswith("images/3.png: its mask is ")
