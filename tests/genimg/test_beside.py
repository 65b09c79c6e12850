"""What lies beside images: found in folders and archives, alike in all forms, or refused."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from annotated_folders import ALL, NAMES, annotated, pairs, picture, sharded, write

from genimg import images, masks
from genimg.contracts import UNKNOWN
from genimg.data.notes import annotation_files
from genimg.data.opening import open_dataset, told_by
from genimg.data.parts import Part, PartSource
from genimg.data.sources import open_source, opener
from genimg.errors import InputError
from genimg.recipe import Data


def test_columns_are_found_beside_the_images(tmp_path):
    source = open_source(str(annotated(tmp_path)))
    assert source.columns == ("image", "mask", "text", "boxes")
    assert source.classes == {"mask": NAMES, "boxes": ("cat", "dog")}
    assert source.labels is None
    assert source.names == [f"images/{n}.png" for n in range(9)]
    for n in range(9):
        height, width = source.read(n).shape[:2]
        assert source.read(n, "mask").shape == (height, width, 1)
        assert source.read(n, "mask")[0, 0] == UNKNOWN
        assert source.encoded(n, "mask") == (tmp_path / "masks" / f"{n}.png").read_bytes()
        assert source.read(n, "text") == f"№ {n}.png"
        two = [[1, 1, 2, 1 + width / 2, 7.5], [0, 0, 0, 4, height - 1]]
        assert source.read(n, "boxes").tolist() == (two if n % 2 == 0 else [])


def test_pairs_keep_their_class_folders(tmp_path):
    source = open_source(str(pairs(tmp_path)))
    assert source.columns == ("image", "target", "label")
    assert source.classes == {"label": ("a", "b")}
    assert source.labels.tolist() == [0, 0, 0, 1, 1, 1]
    for index, number in enumerate((0, 2, 4, 1, 3, 5)):
        np.testing.assert_array_equal(
            source.read(index, "target"), picture(99 - number, 20 + number, 22)
        )


@pytest.mark.parametrize("form", ["zip", "tar", "gztar"])
@pytest.mark.parametrize("make", [annotated, pairs])
def test_archives_and_their_parts_have_what_their_folder_has(tmp_path, monkeypatch, form, make):
    monkeypatch.setenv("GENIMG_CACHE", str(tmp_path / "cache"))
    folder = make(tmp_path / "set")
    where = Path(shutil.make_archive(str(tmp_path / "set"), form, tmp_path, "set"))
    here, there = open_source(str(folder)), open_source(str(where))
    part = opener(str(where), in_parts=True)("all").part(np.arange(len(here))[::-1])
    parted = PartSource(where, Part.unpacked(part.packed()), there.classes)
    assert here.columns == there.columns
    assert here.classes == there.classes
    for column in here.columns:
        for n in range(len(here)):
            np.testing.assert_array_equal(here.read(n, column), there.read(n, column))
            np.testing.assert_array_equal(
                here.read(n, column), parted.read(len(here) - 1 - n, column)
            )


def test_only_what_is_wanted_is_loaded_and_more_of_it_is_another_fingerprint(tmp_path):
    folder = annotated(tmp_path)
    sets = {
        wants: open_dataset(Data(source=str(folder), size=16, holdout=2), wants)
        for wants in (("image",), ("image", "mask"), ("image", "boxes"), ("image", "text"))
    }
    keys = torch.arange(2)
    for wants, dataset in sets.items():
        assert tuple(dataset.fetch(np.arange(2), keys)) == wants == dataset.columns
    assert len({dataset.fingerprint for dataset in sets.values()}) == 4
    (folder / "captions.jsonl").write_text("this is no JSON")  # and nobody wants it
    images_alone = open_dataset(Data(source=str(folder), size=16, holdout=2), ("image",))
    assert images_alone.fingerprint == sets["image",].fingerprint


def test_splits_lie_on_top(tmp_path):
    for split, count in (("train", 5), ("test", 3)):
        annotated(tmp_path / split, count)
    train, test, both = (open_source(str(tmp_path), split) for split in ("train", "test", "all"))
    assert [len(each) for each in (train, test, both)] == [5, 3, 8]
    assert train.has_split
    assert test.names[0] == "test/images/0.png"
    assert test.files["mask"][0] == "test/masks/0.png"
    assert both.read(7, "text") == "№ 4.png"
    np.testing.assert_array_equal(both.read(0, "mask"), test.read(0, "mask"))


def test_boxes_may_lie_in_a_folder_of_annotations(tmp_path):
    folder = annotated(tmp_path)
    expected = [
        each.tolist() for each in map(open_source(str(folder)).read, range(9), ["boxes"] * 9)
    ]
    (folder / "annotations").mkdir()
    (folder / "annotations.json").rename(folder / "annotations" / "instances_all.json")
    write(folder / "annotations" / "captions_all.json", b"{}")
    source = open_source(str(folder))
    assert [source.read(n, "boxes").tolist() for n in range(9)] == expected


def test_which_files_tell_of_boxes():
    assert annotation_files(["annotations.json", "captions.jsonl", "classes.txt"]) == [
        "annotations.json"
    ]
    assert annotation_files(["annotations/x.json"]) == ["annotations/x.json"]
    assert annotation_files(["annotations/x.json", "annotations/y.json"]) == []
    several = [f"annotations/{name}.json" for name in ("instances_val", "person", "test", "train")]
    assert annotation_files(several) == [several[0], *several[2:]]


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (
            ("images/1.png", "images/2.png", "masks/1.png"),
            "can be read as images with their masks, or as two classes.*1 of 3 files.*images/2.png",
        ),
        (("images/1.png", "masks/2.png"), "can be read as images with their masks, or as two"),
        (("input/1.png", "target/1_clean.png"), "as images with their targets, or as two classes"),
        (("images/1.png", "masks/1.png", "cats/1.png"), "images/, masks/ and cats lie beside"),
        (("images/1.png", "masks/1.png", "3.png"), "images/, masks/ and 3.png lie beside"),
        (("train/images/1.png", "train/masks/1.png", "test/images/1.png"), "or as two classes"),
        (
            ("images/train/1.png", "masks/train/1.png"),
            "train/ lies in images/: a class.*or a split",
        ),
        (("images/1.png", "images/1.jpg", "masks/1.png"), "have one name; rename one of them"),
    ],
)
def test_a_layout_that_can_be_read_in_two_ways_is_refused(tmp_path, paths, reason):
    for path in paths:
        write(tmp_path / path, images.encode(picture(0, 8, 8)))
    with pytest.raises(InputError, match=reason):
        open_source(str(tmp_path))
    with pytest.raises(InputError, match=reason):  # whatever is wanted of it
        told_by(Data(source=str(tmp_path), size=8, holdout=1), ("image",))


def test_half_of_a_pair_is_not_taken_for_the_whole(tmp_path):
    pairs(tmp_path)
    data = Data(source=str(tmp_path), size=8, holdout=1)
    for opened in (told_by, open_dataset):
        with pytest.raises(InputError, match=r"has pairs, input/ and target/.*/target, or of a"):
            opened(data, ("image",))
    assert told_by(data, ("image", "target")).classes == {"label": ("a", "b")}
    clean = data.model_copy(update={"source": str(tmp_path / "target")})
    assert len(open_dataset(clean, ("image",))) > 0


def test_folders_of_one_of_these_names_are_classes_as_ever(tmp_path):
    for path in ("images/1.png", "cats/1.png", "target/2.png"):
        write(tmp_path / path, images.encode(picture(0, 8, 8)))
    source = open_source(str(tmp_path))
    assert source.columns == ("image", "label")
    assert source.classes == {"label": ("cats", "images", "target")}


def replaced(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder)


def test_a_mark_at_the_beginning_of_notes_is_none_of_them(tmp_path):
    folder = annotated(tmp_path)
    (folder / "classes.txt").write_text("background\ndisc\n")
    before = open_source(str(folder))
    for name in ("captions.jsonl", "annotations.json", "classes.txt"):
        replaced(folder, name, "\ufeff" + (folder / name).read_text())
    after = open_source(str(folder))
    assert after.classes == before.classes
    assert "background" in {name for names in after.classes.values() for name in names}
    assert after.read(0, "text") == before.read(0, "text")


def test_notes_that_are_wrong_or_incomplete_are_refused(tmp_path):
    folder = annotated(tmp_path)
    lines = (folder / "captions.jsonl").read_text().splitlines()
    for text, reason in (
        ("\n".join([*lines, '{"file": "1.png"}']), "captions.jsonl: line 10 is not of the form"),
        ("\n".join(lines[1:]), "nothing about 1 of the 9 images, as images/8.png; add their text"),
        ("\n".join([*lines, lines[3]]), "5.png is told of twice"),
    ):
        with pytest.raises(InputError, match=reason):
            open_source(replaced(folder, "captions.jsonl", text))
    first = json.loads(lines[0])
    odd = "a\u2028b\x85c"
    told = json.dumps(first | {"text": odd}, ensure_ascii=False)
    source = open_source(replaced(folder, "captions.jsonl", "\n".join([told, *lines[1:]])))
    assert odd in [source.read(number, "text") for number in range(len(source))]
    for text in ("\ud83d", None, ["a", "b"], True):
        wrong = json.dumps(first | {"text": text})
        with pytest.raises(InputError, match=r"captions\.jsonl: line 1 is not of the form"):
            open_source(replaced(folder, "captions.jsonl", "\n".join([wrong, *lines[1:]])))
    seven = json.dumps(first | {"text": 7})
    source = open_source(replaced(folder, "captions.jsonl", "\n".join([seven, *lines[1:]])))
    assert "7" in [source.read(number, "text") for number in range(len(source))]
    replaced(folder, "captions.jsonl", "\n".join(lines))
    told = json.loads((folder / "annotations.json").read_text())
    for change, reason in (
        ({"images": told["images"][:1] + told["images"][2:]}, "nothing about 1 .* images/1.png"),
        ({"categories": []}, "not COCO's format of boxes"),
        ({"annotations": [{"image_id": 0, "category_id": 3}]}, "not COCO's format.*'bbox'"),
        ({"annotations": [{"image_id": 5, "category_id": 3, "bbox": [0, 0, 1, 1]}]}, "not COCO's"),
    ):
        with pytest.raises(InputError, match=reason):
            open_source(replaced(folder, "annotations.json", json.dumps(told | change)))
    replaced(folder, "annotations.json", "\xff")
    with pytest.raises(InputError, match=r"annotations\.json: not COCO"):
        open_source(str(folder))


def test_what_is_missing_is_refused_at_opening(tmp_path):
    folder = tmp_path / "photos"
    for n in range(3):
        write(folder / f"{n}.png", images.encode(picture(n, 9, 9)))
    shards = sharded(open_source(str(folder)), tmp_path / "photos.parquet")
    np.savez(tmp_path / "photos.npz", images=np.zeros((3, 9, 9), np.uint8))
    for source in (folder, shards, tmp_path / "photos.npz", "scenes"):
        data = Data(source=str(source), size=8, holdout=1)
        wanted = "other" if source == "scenes" else "target"
        for opening in (told_by, open_dataset):
            with pytest.raises(
                InputError, match=f"{source}: has image.*wanted are image and {wanted}; for"
            ):
                opening(data, ("image", wanted))


@pytest.mark.parametrize("form", ["folder", "shards"])
def test_a_mask_that_does_not_fit_is_a_broken_image(tmp_path, form):
    folder = annotated(tmp_path / "set")
    write(folder / "masks" / "3.png", masks.encode(np.zeros((5, 6, 1), np.uint8)))
    write(folder / "masks" / "5.png", masks.encode(np.full((5, 6, 1), 9, np.uint8)))
    write(folder / "images" / "5.png", images.encode(picture(0, 5, 6)))
    source = open_source(str(folder))
    path = str(folder if form == "folder" else sharded(source, tmp_path / "set.parquet"))
    data = Data(source=path, size=16, holdout=1)

    def everything(data: Data) -> None:
        dataset = open_dataset(data, ("image", "mask"), warn=told.append)
        dataset.fetch(np.arange(len(dataset)), torch.arange(len(dataset)))

    told: list[str] = []
    with pytest.raises(
        InputError, match=r"tolerate_broken=0: .*images/3\.png.*its mask is 6x5, but"
    ):
        everything(data)
    everything(data.model_copy(update={"tolerate_broken": 2}))
    if form == "folder":
        assert "its mask has class 9, but only 3 are named" in told[1]


@pytest.mark.parametrize("form", ["folder", "shards"])
def test_classes_of_masks_without_names_are_numbered(tmp_path, form):
    folder = annotated(tmp_path / "set")
    (folder / "classes.txt").unlink()
    if form == "shards":  # as other programs write them
        source = open_source(str(folder))
        columns = {
            name: [source.encoded(n, name) for n in range(9)] for name in ("image", "mask", "boxes")
        }
        pq.write_table(pa.table(columns), tmp_path / "set.parquet", row_group_size=2)
    data = Data(source=str(folder if form == "folder" else tmp_path / "set.parquet"), holdout=1)
    assert told_by(data, ("image", "mask")).classes["mask"] == ("0", "1", "2")
    if form == "shards":
        assert told_by(data, ("image", "boxes")).classes["boxes"] == ("0", "1")


def test_a_zip_of_pairs_with_notes_on_top(tmp_path):
    """Its notes lie in the single folder that everything is in, which is passed over."""
    folder = annotated(tmp_path / "set")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for file in folder.rglob("*.*"):
            archive.write(file, f"set-1.0/{file.relative_to(folder)}")
    source = open_source(str(tmp_path / "x.zip"), columns=ALL[:1] + ALL[4:])
    assert source.read(3, "text") == "№ 3.png"
    assert source.columns == ("image", "mask", "text", "boxes")
