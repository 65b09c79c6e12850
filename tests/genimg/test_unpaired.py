"""Images of two kinds without pairs: what comes together, splits, what is held out and refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from genimg import images
from genimg.data.loader import Loader
from genimg.data.memory import Images
from genimg.data.opening import Told, open_dataset, told_by
from genimg.data.shard_writing import write_shard
from genimg.data.unpaired import Unpaired
from genimg.errors import InputError
from genimg.recipe import Data

WANTS = ("image", "other")
CPU = torch.device("cpu")


def levels(first: int, second: int) -> Images:
    """Gray images of two kinds, of one level each: 0, 1, ... and 100, 101, ..."""
    values = torch.tensor([*range(first), *range(100, 100 + second)], dtype=torch.uint8)
    labels = torch.tensor([0] * first + [1] * second)
    mixed = torch.randperm(first + second, generator=torch.Generator().manual_seed(0))
    pixels = values[mixed, None, None, None].expand(-1, 1, 8, 8).clone()
    return Images({"image": pixels, "label": labels[mixed]}, {"label": ("a", "b")})


def seen(data: Unpaired, indices: np.ndarray) -> tuple[list[int], list[int]]:
    stored = data.fetch(indices, torch.from_numpy(indices))
    assert tuple(stored) == data.columns == WANTS
    first, second = (stored[name][:, 0, 0, 0].tolist() for name in WANTS)
    return first, second


def folder(root: Path, kinds: dict[str, int], side: int = 16) -> Path:
    for kind, count in kinds.items():
        (root / kind).mkdir(parents=True)
        for n in range(count):
            array = np.full((side + n, side, 3), n, np.uint8)
            images.save(array, root / kind / f"{kind.replace('/', '-')}{n}.png")
    return root


def test_each_image_comes_with_one_of_the_other_kind_all_of_them_in_an_epoch():
    data = Unpaired(levels(5, 12))
    assert len(data) == 12
    first, second = seen(data, np.arange(12))
    assert sorted(set(first)) == list(range(5))
    assert sorted(second) == list(range(100, 112))
    order = data.locate(np.arange(24), 3, 4)
    for epoch in (order[:12], order[12:]):
        assert sorted((epoch % 12).tolist()) == list(range(12))
        both = seen(data, epoch)
        assert [sorted(set(each)) for each in both] == [list(range(5)), list(range(100, 112))]
    whole = data.whole(7)
    assert (whole["image"][0, 0, 0], whole["other"][0, 0, 0]) == (first[7], second[7])
    assert sorted(data.choose(4).tolist()) == data.choose(4).tolist()
    assert data.fingerprint != Unpaired(levels(5, 11)).fingerprint


def test_other_ones_come_together_in_other_epochs_whoever_asks():
    data = Unpaired(levels(7, 12))
    positions = np.arange(12 * 40)
    order = data.locate(positions, 3, 4)
    pairs = set(zip(*seen(data, order), strict=True))
    assert len(pairs) == 7 * 12  # all there are, and without a shift 12
    assert (data.locate(positions[25:31], 3, 4) == order[25:31]).all()


def test_images_that_are_held_out_are_of_both_kinds_and_on_no_other_side():
    rest, kept = Unpaired(levels(40, 40)).hold_out(10)
    sides = [seen(each, np.arange(len(each))) for each in (rest, kept)]
    for kind in range(2):
        assert not set(sides[0][kind]) & set(sides[1][kind])
    assert len({*sides[1][0], *sides[1][1]}) == 10
    with pytest.raises(InputError, match=r"none of 1 images is of .*change data\.holdout"):
        Unpaired(levels(40, 40)).hold_out(1)


def test_a_loader_makes_rows_of_them():
    loader = Loader(
        Unpaired(levels(6, 9)), batch_size=4, seed=0, device=CPU,
        augment=lambda stored, keys, places: stored,
    )  # fmt: skip
    rows = loader.batch(0).rows
    assert rows["image"].shape == rows["other"].shape == (4, 1, 8, 8)
    assert rows["image"].max() < -0.9 < -0.3 < rows["other"].min()


def test_two_folders_are_two_kinds_by_their_names_and_splits_lie_on_top(tmp_path):
    root = folder(tmp_path, {"train/zebra": 9, "train/horse": 7, "test/zebra": 3, "test/horse": 3})
    about = Data(source=str(root), size=16, holdout=4)
    assert told_by(about, WANTS) == Told({})
    train, test = (open_dataset(about, WANTS, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (9, 3)
    assert train.name(0).startswith("train/horse/")
    stored = train.fetch(np.arange(9), torch.arange(9))
    assert len(set(stored["image"][:, 0, 0, 0].tolist())) == 7
    assert len(set(stored["other"][:, 0, 0, 0].tolist())) == 9


@pytest.mark.parametrize(
    ("kinds", "holdout", "told"),
    [
        ({"a": 5, "b": 7}, 1, r"none of 1 images is of .; give more of that, or change data\.hold"),
        ({"a": 5, "b": 7}, 11, r"none of 1 images is of ."),
        ({"a": 1, "b": 7}, 3, r"none of [35] images is of a"),
        ({"a": 5, "b": 7}, 12, r"only 12 images in .*; hold out fewer, as data\.holdout=2"),
    ],
)
def test_a_division_that_leaves_one_kind_alone_is_refused_before_anything_is_decoded(
    tmp_path, kinds, holdout, told
):
    about = Data(source=str(folder(tmp_path / "set", kinds)), size=16, holdout=holdout)
    with pytest.raises(InputError, match=told):
        told_by(about, WANTS)
    about = about.model_copy(update={"holdout": 2})
    if kinds["a"] > 1:  # as the remedy says
        assert told_by(about, WANTS) == Told({})
        open_dataset(about, WANTS).hold_out(2)


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        ({"a": 3, "b": 3, "c": 3}, "its folders are a, b, c, but two are wanted, one for each"),
        ({"a": 3}, "its folders are a, but two are wanted"),
        (
            {"trainA": 3, "trainB": 3, "testA": 2, "testB": 2},
            "its folders are testA, testB, trainA, trainB, .*put splits on top, as train/A/ and tr",
        ),
        ({"input": 3, "target": 3}, "as images with their targets, or as two classes"),
        ({"": 3}, "has image, but wanted are image and label; for label, put the images into one"),
    ],
)
def test_other_layouts_are_refused_by_name(tmp_path, kinds, told):
    about = Data(source=str(folder(tmp_path / "set", kinds)), size=16, holdout=2)
    with pytest.raises(InputError, match=told):
        told_by(about, WANTS)
    with pytest.raises(InputError, match=told):
        open_dataset(about, WANTS)


def test_scenes_are_of_one_kind():
    with pytest.raises(InputError, match=r"scenes: .*for other, put the images of each kind into"):
        told_by(Data(), WANTS)


def test_in_shards_they_are_a_column(tmp_path):
    from pyarrow import fs

    encoded = [images.encode(np.full((16, 16, 3), n, np.uint8)) for n in range(12)]
    rows = [
        {"name": str(n), "image": encoded[n], "other": encoded[11 - n]} for n in range(len(encoded))
    ]
    write_shard(
        str(tmp_path / "x.parquet"), rows, columns=WANTS, classes={}, broken=[],
        filesystem=fs.LocalFileSystem(),
    )  # fmt: skip
    data = open_dataset(Data(source=str(tmp_path), size=16, holdout=2), WANTS)
    stored = data.fetch(np.arange(12), torch.arange(12))
    assert (stored["image"].long() + stored["other"] == 11).all()
