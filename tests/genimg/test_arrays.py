"""IDX files and .npz against the arrays that are in them; splits, labels, refusals."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from annotated_folders import picture

from genimg.data.sources import open_source
from genimg.errors import InputError


def write_idx(path: Path, array: np.ndarray) -> None:
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    data = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_mnist(folder: Path, suffix: str = ".gz") -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    arrays = (
        rng.integers(0, 256, (20, 4, 3)), rng.integers(0, 3, 20),
        rng.integers(0, 256, (7, 4, 3)), np.array([0, 4, 1, 1, 1, 0, 2]),
    )  # fmt: skip
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    for name, array in zip(names, arrays, strict=True):
        write_idx(folder / f"{name}-ubyte{suffix}", array)
    return arrays


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_read_in_their_order(tmp_path, suffix):
    train, train_labels, test, test_labels = write_mnist(tmp_path, suffix)
    for split, images, labels in (
        ("train", train, train_labels),
        ("test", test, test_labels),
        ("all", np.concatenate([train, test]), np.concatenate([train_labels, test_labels])),
    ):
        source = open_source(str(tmp_path), split)
        assert source.has_split
        assert source.classes == {"label": ("0", "1", "2", "3", "4")}
        np.testing.assert_array_equal(
            np.stack([*map(source.read, range(len(source)))])[..., 0], images
        )
        np.testing.assert_array_equal(source.labels, labels)
        assert source.encoded(0) is None


def test_single_idx_file_takes_the_labels_beside_it(tmp_path):
    _, _, test, labels = write_mnist(tmp_path)
    source = open_source(str(tmp_path / "t10k-images-idx3-ubyte.gz"))
    assert (len(source), source.has_split) == (len(test), False)
    np.testing.assert_array_equal(source.labels, labels)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    assert open_source(str(tmp_path / "t10k-images-idx3-ubyte.gz")).labels is None


def test_wrong_idx_files_are_refused(tmp_path):
    path = tmp_path / "images-idx3-ubyte"
    write_idx(path, np.zeros((5, 4, 3)))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="5x4x3 announced, but 59 bytes follow"):
        open_source(str(path))
    path.write_bytes(b"PK34 something else")
    with pytest.raises(InputError, match="not an IDX file of bytes"):
        open_source(str(path))
    write_idx(path, np.zeros((5, 4, 3)))
    write_idx(tmp_path / "labels-idx1-ubyte", np.zeros(4))
    with pytest.raises(InputError, match="labels-idx1-ubyte is uint8 4; must be 5 integers"):
        open_source(str(path))
    with pytest.raises(InputError, match="has 1 dimensions"):
        open_source(str(tmp_path / "labels-idx1-ubyte"))


def test_npz_in_each_layout(tmp_path):
    gray, colour = (
        np.stack([picture(i, 6, 5)[..., 0] for i in range(4)]),
        np.stack([picture(i, 6, 5) for i in range(4)]),
    )
    for images, expected in (
        (gray, gray[..., None]),
        (gray[..., None], gray[..., None]),
        (colour, colour),
        (colour.transpose(0, 3, 1, 2), colour),
    ):
        np.savez(tmp_path / "x.npz", images=images, labels=np.array([1, 0, 2, 1], np.uint8))
        source = open_source(str(tmp_path / "x.npz"))
        np.testing.assert_array_equal(np.stack([*map(source.read, range(4))]), expected)
        assert source.labels.tolist() == [1, 0, 2, 1]
        assert source.classes == {"label": ("0", "1", "2")}
        assert not source.has_split


def test_npz_with_splits_and_class_names(tmp_path):
    np.savez_compressed(
        tmp_path / "x.npz",
        x_train=np.full((3, 4, 4), 7, np.uint8), y_train=np.array([[0], [1], [0]]),
        x_test=np.full((2, 4, 4), 9, np.uint8), y_test=np.array([[1], [1]]),
        classes=np.array(["cat", "dog"]),
    )  # fmt: skip
    train, test, both = (
        open_source(str(tmp_path / "x.npz"), split) for split in ("train", "test", "all")
    )
    assert [len(train), len(test), len(both)] == [3, 2, 5]
    assert (train.read(0).max(), test.read(0).max()) == (7, 9)
    assert test.classes == {"label": ("cat", "dog")}
    assert both.labels.tolist() == [0, 1, 0, 1, 1]
    assert both.has_split


def test_npz_numbers_classes_alike_in_both_splits(tmp_path):
    pixels = np.zeros((1, 4, 4), np.uint8)
    np.savez(tmp_path / "x.npz", x_train=pixels, y_train=[1], x_test=pixels, y_test=[3])
    for split in ("train", "test"):
        assert open_source(str(tmp_path / "x.npz"), split).classes == {
            "label": ("0", "1", "2", "3")
        }


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"pictures": np.zeros((2, 4, 4), np.uint8)}, "has pictures, looked for x_train"),
        ({"images": np.zeros((2, 4, 4), np.float32)}, "images is float32 2x4x4; must be uint8"),
        ({"images": np.zeros((2, 4, 4, 4), np.uint8)}, "2x4x4x4; must be uint8"),
        ({"images": np.zeros((0, 4, 4), np.uint8)}, "holds no images"),
        ({"x": np.zeros((2, 4, 4), np.uint8), "y": np.zeros(3, int)}, "y is int64 3; must be 2"),
        ({"x": np.zeros((2, 4, 4), np.uint8), "y": np.array([0, -1])}, "label -1"),
        (
            {"x": np.zeros((1, 4, 4), np.uint8), "y": np.array([1]), "classes": ["a"]},
            "label 1, but",
        ),
        (
            {"x": np.zeros((2, 4, 4), np.uint8), "y": np.array([5, 10**9])},
            "label 1000000000: label",
        ),
        (
            {"x": np.zeros((2, 4, 4), np.uint8), "y": np.array([0, 1]), "classes": ["a", " a"]},
            "empty or alike",
        ),
        ({"images": np.array([{}, {}], dtype=object)}, "not a readable"),
    ],
)
def test_wrong_npz_files_are_refused(tmp_path, arrays, reason):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InputError, match=reason):
        open_source(str(tmp_path / "x.npz"))


def test_real_mnist(shared_data):
    train, test = (open_source(str(shared_data / "mnist"), split) for split in ("train", "test"))
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    with gzip.open(shared_data / "mnist" / "train-images-idx3-ubyte.gz") as file:
        file.seek(16 + 59_999 * 784)
        last = np.frombuffer(file.read(), np.uint8).reshape(28, 28, 1)
    np.testing.assert_array_equal(train.read(59_999), last)
