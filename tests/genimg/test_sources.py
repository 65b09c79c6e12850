"""Folders and archives against the same files read independently; splits, labels, refusals."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from annotated_folders import picture
from PIL import Image

from genimg.data import archives
from genimg.data.opening import told_by
from genimg.data.sources import is_parquet, open_source
from genimg.errors import InputError
from genimg.images import BrokenImage
from genimg.recipe import Data

TREE = (
    "train/cat/1.png",
    "train/cat/2.png",
    "train/dog/10.png",
    "train/dog/deeper/3.png",
    "test/cat/1.png",
    "test/eel/1.png",
)


def write_images(root: Path, paths: tuple[str, ...]) -> Path:
    for seed, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(seed, 6, 5)).save(root / path)
    return root


def packed(folder: Path, target: Path, prefix: str) -> Path:
    """The folder's files as an archive at `target`, each member's name beginning with `prefix`."""
    files = [(prefix + f.relative_to(folder).as_posix(), f) for f in folder.rglob("*.*")]
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, file in files:
                archive.write(file, name)
    else:
        mode = {".tar": "w", ".gz": "w:gz", ".tgz": "w:gz", ".xz": "w:xz"}[target.suffix]
        with tarfile.open(target, mode) as archive:
            for name, file in files:
                archive.add(file, name)
    return target


@pytest.fixture(params=["folder", "x.zip", "x.tar", "x.tar.gz", "x.TGZ", "x.tar.xz"])
def tree(request, tmp_path):
    """(path to TREE in one of its forms, its plain folder to compare with)"""
    folder = write_images(tmp_path / "folder", TREE)
    if request.param == "folder":
        return folder, folder
    target = packed(folder, tmp_path / request.param.lower(), prefix="set-1.0/")
    return target.rename(target.with_name(request.param)), folder


def test_every_form_gives_the_files_pixels_and_bytes(tree):
    path, folder = tree
    source = open_source(str(path), "all")
    assert len(source) == len(TREE)
    found = {name.removeprefix("set-1.0/"): i for i, name in enumerate(source.names)}
    assert sorted(found) == sorted(TREE)
    for name, index in found.items():
        np.testing.assert_array_equal(source.read(index), np.array(Image.open(folder / name)))
        assert source.encoded(index) == (folder / name).read_bytes()


def test_classes_and_splits_of_every_form(tree):
    train, test, both = (open_source(str(tree[0]), split) for split in ("train", "test", "all"))
    for source in (train, test, both):
        assert source.classes == {"label": ("cat", "dog", "eel")}  # one numbering for every split
        assert source.has_split
        assert source.labels.dtype == np.int64
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert test.labels.tolist() == [0, 2]
    assert sorted(train.names + test.names) == sorted(both.names)


def test_order_is_that_of_the_names(tree):
    names = open_source(str(tree[0]), "all").names
    assert names == sorted(names)


def test_val_stands_in_for_test_where_there_is_none(tmp_path):
    both = write_images(tmp_path / "a", ("train/x/1.png", "val/x/2.png"))
    assert open_source(str(both), "test").names == ["val/x/2.png"]
    three = write_images(tmp_path / "b", ("train/x/1.png", "val/x/2.png", "test/x/3.png"))
    assert open_source(str(three), "test").names == ["test/x/3.png"]
    assert len(open_source(str(three), "all")) == 3


@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_without_split_folders_every_split_is_everything(tmp_path, split):
    source = open_source(str(write_images(tmp_path, ("a/1.png", "test/1.png"))), split)
    assert len(source) == 2
    assert not source.has_split
    assert source.classes == {"label": ("a", "test")}


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize("name", ["train", "test"])
@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_a_lone_train_or_test_folder_is_not_a_class(tmp_path, form, name, split):
    folder = write_images(tmp_path / "set", (f"{name}/a/1.png", f"{name}/b/1.png"))
    path = folder if form == "folder" else packed(folder, tmp_path / "x.zip", prefix="")
    source = open_source(str(path), split)
    assert source.classes == {"label": ("a", "b")}
    assert len(source) == 2
    assert not source.has_split


def test_images_without_class_folders_have_no_labels(tmp_path):
    loose = open_source(str(write_images(tmp_path / "a", ("2.png", "1.png"))))
    assert loose.names == ["1.png", "2.png"]
    assert loose.labels is None
    assert loose.classes == {}
    folder = write_images(tmp_path / "b", ("1.png", "2.png"))
    archive = open_source(str(packed(folder, tmp_path / "b.zip", prefix="photos/")))
    assert archive.labels is None


def test_loose_images_beside_class_folders_are_refused(tmp_path):
    write_images(tmp_path, ("cat/1.png", "stray.png"))
    with pytest.raises(InputError, match=r"cat/1\.png.*stray\.png.*move"):
        open_source(str(tmp_path))


def test_hidden_files_and_other_suffixes_are_passed_over(tmp_path):
    write_images(tmp_path, ("a/1.PNG", "a/2.JpEg", ".cache/1.png", "a/.3.png"))
    (tmp_path / "a" / "notes.txt").write_text("no image")
    assert open_source(str(tmp_path)).names == ["a/1.PNG", "a/2.JpEg"]


def test_linked_folders_are_followed_but_not_in_circles(tmp_path):
    write_images(tmp_path / "elsewhere", ("1.png",))
    write_images(tmp_path / "set", ("own/1.png",))
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "own" / "up").symlink_to(tmp_path / "set")
    assert open_source(str(tmp_path / "set")).names == ["linked/1.png", "own/1.png"]


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_members_outside_the_archive_are_passed_over(tmp_path, suffix):
    folder = write_images(tmp_path / "set", ("a.png",))
    content = (folder / "a.png").read_bytes()
    path = tmp_path / f"x{suffix}"
    names = ("../up.png", "/root.png", "in/../../up.png", "kept.png")
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz" if suffix == ".tar.gz" else "w") as archive:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    assert open_source(str(path)).names == ["kept.png"]


@pytest.mark.parametrize("form", ["folder", "x.zip", "x.tar", "x.tar.gz"])
def test_a_broken_file_is_named_when_it_is_read(tmp_path, form):
    folder = write_images(tmp_path / "folder", ("good.png", "torn.png"))
    whole = (folder / "good.png").read_bytes()
    (folder / "torn.png").write_bytes(whole[: len(whole) // 2])
    path = folder if form == "folder" else packed(folder, tmp_path / form, prefix="")
    source = open_source(str(path))
    np.testing.assert_array_equal(source.read(0), picture(0, 6, 5))
    with pytest.raises(BrokenImage, match=r"^torn\.png: ") as caught:
        source.read(1)
    assert caught.value.name == "torn.png"


def test_a_file_that_vanished_is_broken(tmp_path):
    source = open_source(str(write_images(tmp_path, ("1.png",))))
    (tmp_path / "1.png").unlink()
    with pytest.raises(BrokenImage, match=r"1\.png: No such file"):
        source.read(0)


def test_damaged_zip_member_is_broken(tmp_path):
    path = packed(write_images(tmp_path / "a", ("1.png",)), tmp_path / "x.zip", prefix="")
    data = bytearray(path.read_bytes())
    data[60:70] = b"0123456789"
    path.write_bytes(data)
    with pytest.raises(BrokenImage, match=r"1\.png: cannot be unpacked"):
        open_source(str(path)).read(0)


def test_members_that_unpack_to_too_much_are_refused(tmp_path, monkeypatch):
    folder = write_images(tmp_path / "a", ("1.png",))
    size = (folder / "1.png").stat().st_size
    paths = [packed(folder, tmp_path / name, prefix="") for name in ("x.zip", "x.tar.gz")]
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", size - 1)
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", size - 1)
    with pytest.raises(BrokenImage, match=rf"1\.png: unpacks to {size} bytes"):
        open_source(str(paths[0])).read(0)
    with pytest.raises(InputError, match=r"too much to unpack.*genimg prepare"):
        open_source(str(paths[1]))


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tar.xz", "x.npz"])
def test_damaged_archives_are_refused_by_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"this is no archive" * 100)
    with pytest.raises(InputError, match=rf"{name}: not a readable"):
        open_source(str(tmp_path / name))


def test_truncated_compressed_tar_is_refused(tmp_path):
    path = packed(write_images(tmp_path / "a", TREE), tmp_path / "x.tar.gz", prefix="")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"x\.tar\.gz: not a readable tar"):
        open_source(str(path))


def test_unknown_path_names_the_nearest(tmp_path):
    (tmp_path / "mnist").mkdir()
    with pytest.raises(InputError, match=r"mnits: no such.*did you mean 'mnist'\?"):
        open_source(str(tmp_path / "mnits"))
    with pytest.raises(InputError, match="nor is there a folder"):
        open_source(str(tmp_path / "absent" / "mnist"))


def test_empty_folder_says_what_was_looked_for(tmp_path):
    with pytest.raises(InputError, match=r"no images in it; looked for \.png, \.jpg"):
        open_source(str(tmp_path))


def test_unknown_form_says_which_are_known(tmp_path):
    (tmp_path / "images.rar").write_bytes(b"Rar!")
    with pytest.raises(InputError, match=r"not a form that is known.*\.zip"):
        open_source(str(tmp_path / "images.rar"))


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(write_images(tmp_path, ("set/1.png",))))
    assert open_source("~/set").names == ["1.png"]


def test_parquet_is_told_apart(tmp_path):
    assert not is_parquet(str(tmp_path))
    (tmp_path / "00000.parquet").touch()
    assert is_parquet(str(tmp_path))
    assert is_parquet(str(tmp_path / "00000.parquet"))
    assert not is_parquet(os.devnull)


def test_real_cifar(shared_data):
    test = open_source(str(shared_data / "cifar10" / "cifar10_jpg.tar.xz"), "test")
    assert len(test) == 10_000
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert test.classes["label"][:3] == ("airplane", "automobile", "bird")
    assert test.read(9_999).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("path", "count", "shape"),
    [
        ("denoise/Train400", 400, (180, 180, 1)),
        ("natural/BSDS400", 400, (321, 481, 3)),
        ("sr/Set5", 5, (512, 512, 3)),
    ],
)
def test_real_folders(shared_data, path, count, shape):
    source = open_source(str(shared_data / path))
    assert len(source) == count
    assert source.read(0).shape == shape
    assert source.labels is None


@pytest.mark.parametrize(("count", "fewest", "fitting"), [(30, 16, 16), (30, 1, 3), (300, 16, 30)])
def test_what_is_held_out_of_a_small_set_is_told_with_what_would_fit(
    tmp_path, count, fewest, fitting
):
    write_images(tmp_path, tuple(f"{number}.png" for number in range(count)))

    def told(holdout: int) -> list[str]:
        heard: list[str] = []
        data = Data(source=str(tmp_path), holdout=holdout)
        told_by(data, ("image",), fewest=fewest, warn=heard.append)
        return heard

    remedy = rf"hold out fewer, as data\.holdout={fitting}$"
    with pytest.raises(InputError, match=rf"only {count} images in .*; {remedy}"):
        told(count)
    assert told(fitting) == []
    (warning,) = told(count - 1)
    assert warning.startswith(f"data.holdout={count - 1}: 1 of {count} images are left to train on")
    assert warning.endswith(f"data.holdout={fitting}")
    with pytest.raises(InputError, match=f"give more than {count}, of which {count} are held out"):
        told_by(Data(source=str(tmp_path), holdout=count), ("image",), fewest=count)
