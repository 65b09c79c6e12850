"""Images that come as one array: MNIST's IDX files and NumPy's .npz."""

import gzip
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from genimg.errors import InputError
from genimg.images import Channels
from genimg.labels import number_names, plain
from genimg.pixels import with_channels

Split = Literal["train", "test", "all"]

IDX_NAME = re.compile(r"(images|labels)[-.]idx([134])-ubyte(\.gz)?$")

# Keys of an .npz, the first one present counts: Keras's, MedMNIST's, plain ones.
NPZ_IMAGES: dict[Split, tuple[str, ...]] = {
    "train": ("x_train", "train_images"),
    "test": ("x_test", "test_images"),
    "all": ("images", "x", "arr_0"),
}
NPZ_LABELS: dict[Split, tuple[str, ...]] = {
    "train": ("y_train", "train_labels"),
    "test": ("y_test", "test_labels"),
    "all": ("labels", "y"),
}


class ArraySource:
    """A Source (see genimg.data.sources) of uint8 [N, H, W, C] with C = 1 or 3."""

    def __init__(
        self,
        name: str,
        images: np.ndarray,
        labels: np.ndarray | None,
        classes: tuple[str, ...],
        has_split: bool,
    ) -> None:
        assert images.dtype == np.uint8, images.dtype
        assert images.ndim == 4, images.shape
        self._images = images
        self.names = [f"{name}[{i}]" for i in range(len(images))]
        self.labels = labels
        self.columns = ("image",) if labels is None else ("image", "label")
        self.classes = {} if labels is None else {"label": classes}
        self.has_split = has_split
        self.nbytes = images.nbytes

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int, column: str = "image", channels: Channels | None = None) -> Any:
        if column == "label":
            return self.encoded(index, column)
        image: np.ndarray = self._images[index]
        return image if channels is None else with_channels(image, channels)

    def measure(self, index: int) -> tuple[int, int]:
        height, width = self._images.shape[1:3]
        return width, height

    def encoded(self, index: int, column: str = "image") -> Any:
        if column == "image":
            return None
        assert column == "label", column
        assert self.labels is not None, "its columns say that it has none"
        return int(self.labels[index])

    def part(self, indices: np.ndarray) -> None:
        return None

    def states(self) -> Iterator[tuple[int, ...]]:
        return iter(())  # that of its file says it


def open_idx_folder(folder: Path, split: Split) -> ArraySource:
    """A folder with `train-images-idx3-ubyte[.gz]`, `t10k-images-…` and the labels beside them."""
    files = sorted(file for file in folder.iterdir() if IDX_NAME.search(file.name))
    images = [file for file in files if "images" in file.name]
    held = [file for file in images if re.search("t10k|test", file.name)]
    train = [file for file in images if file not in held]
    if len(train) > 1 or len(held) > 1 or not images:
        listed = ", ".join(file.name for file in files)
        raise InputError(f"{folder}: cannot tell which IDX images to take ({listed}); name one")
    has_split = bool(train and held)
    if has_split and split != "all":
        return _idx_source(train if split == "train" else held, images, has_split)
    return _idx_source(train + held, images, has_split)


def open_idx_file(file: Path) -> ArraySource:
    """One IDX file of images, and its labels where they lie beside it."""
    return _idx_source([file], [file], has_split=False)


def read_idx(file: Path) -> np.ndarray:
    """The uint8 array of an IDX file, gzipped or not (format: yann.lecun.com/exdb/mnist)."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            zeros, kind, dimensions = struct.unpack(">HBB", stream.read(4))
            if zeros != 0 or kind != 0x08:
                raise InputError(f"{file}: not an IDX file of bytes")
            shape = struct.unpack(f">{dimensions}I", stream.read(4 * dimensions))
            content = bytearray(stream.read())
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise InputError(f"{file}: not a readable IDX file ({error})") from error
    if len(content) != int(np.prod(shape, dtype=object)):
        size = "x".join(map(str, shape))
        raise InputError(f"{file}: {size} announced, but {len(content):,} bytes follow")
    return np.frombuffer(content, np.uint8).reshape(shape)


def open_npz(file: Path, split: Split) -> ArraySource:
    """An .npz of uint8 images [N, H, W], [N, H, W, C] or [N, C, H, W] and perhaps labels [N].

    Keys: `images`, `x` or `arr_0` with `labels` or `y`; or divided, `x_train`, `x_test` with
    `y_train`, `y_test` (also `train_images`, …). `classes` may name the labels. Pickled objects
    are refused.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return _npz_source(file, arrays, split)
    except InputError:
        raise
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{file}: not a readable .npz ({error})") from error


def _npz_source(file: Path, arrays: Any, split: Split) -> ArraySource:
    def find(keys: tuple[str, ...]) -> str | None:
        return next((key for key in keys if key in arrays), None)

    has_split = all(find(NPZ_IMAGES[half]) for half in ("train", "test"))
    everything: tuple[Split, ...] = ("train", "test") if has_split else ("all",)
    chosen: tuple[Split, ...] = (split,) if has_split and split != "all" else everything

    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for part in chosen:
        key = find(NPZ_IMAGES[part])
        if key is None:
            known = ", ".join(key for keys in NPZ_IMAGES.values() for key in keys)
            raise InputError(f"{file}: no images; has {', '.join(arrays)}, looked for {known}")
        images.append(_channels_last(file, key, arrays[key]))
        if label_key := find(NPZ_LABELS[part]):
            labels.append(_checked_labels(f"{file}: {label_key}", arrays[label_key], images[-1]))

    highest = [int(arrays[key].max()) for part in everything if (key := find(NPZ_LABELS[part]))]
    most = max(highest, default=-1)
    named = "classes" in arrays
    names = tuple(map(str, arrays["classes"])) if named else number_names(most, str(file))
    if len(names) <= most:
        raise InputError(f"{file}: label {most}, but classes names only {len(names)}")
    if len({plain(name) for name in names} - {""}) < len(names):
        raise InputError(f"{file}: classes has names that are empty or alike; name each otherwise")
    return _source(file.name, images, labels, names, has_split)


def _channels_last(file: Path, key: str, images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C]; where both ends could be channels, the last axis is taken."""
    if images.dtype == np.uint8 and images.ndim == 3:
        return images[..., None]
    if images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] in (1, 3):
        return images
    if images.dtype == np.uint8 and images.ndim == 4 and images.shape[1] in (1, 3):
        return np.moveaxis(images, 1, 3)
    shape = "x".join(map(str, images.shape))
    raise InputError(
        f"{file}: {key} is {images.dtype} {shape}; must be uint8 [N, H, W] or [N, H, W, 1 or 3]"
    )


def _idx_source(chosen: list[Path], every: list[Path], has_split: bool) -> ArraySource:
    label_files = {file: _labels_beside(file) for file in every}
    raw_labels = {file: read_idx(labels) for file, labels in label_files.items() if labels}
    images, labels = [], []
    for file in chosen:
        array = read_idx(file)
        if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] not in (1, 3)):
            raise InputError(f"{file}: has {array.ndim} dimensions; images have 3 (or 4 with RGB)")
        images.append(array if array.ndim == 4 else array[..., None])
        if file in raw_labels:
            labels.append(_checked_labels(str(label_files[file]), raw_labels[file], array))
    highest = [int(array.max()) for array in raw_labels.values() if len(array)]
    name = "+".join(file.name for file in chosen)
    return _source(name, images, labels, number_names(max(highest, default=-1), name), has_split)


def _labels_beside(images: Path) -> Path | None:
    """train-images-idx3-ubyte.gz -> train-labels-idx1-ubyte.gz, or without .gz, or None."""
    match = IDX_NAME.search(images.name)
    if match is None:
        return None
    stem = images.name[: match.start()] + "labels" + images.name[match.end(1)] + "idx1-ubyte"
    return next((f for end in ("", ".gz") if (f := images.with_name(stem + end)).exists()), None)


def _checked_labels(what: str, labels: np.ndarray, images: np.ndarray) -> np.ndarray:
    """int64 [N] of integer labels [N] or [N, 1] that fit the images."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (len(images),) or labels.dtype.kind not in "ui":
        shape = "x".join(map(str, labels.shape))
        raise InputError(f"{what} is {labels.dtype} {shape}; must be {len(images)} integers")
    if len(labels) and labels.min() < 0:
        raise InputError(f"{what} has label {labels.min()}; labels count from 0")
    return labels.astype(np.int64)


def _source(
    name: str,
    images: list[np.ndarray],
    labels: list[np.ndarray],
    classes: tuple[str, ...],
    has_split: bool,
) -> ArraySource:
    """The parts of a source one after the other; labels only where every part has them."""
    shapes = {array.shape[1:] for array in images}
    if len(shapes) > 1:
        raise InputError(f"{name}: the parts differ in size ({shapes}); take one split")
    pixels = images[0] if len(images) == 1 else np.concatenate(images)
    if len(pixels) == 0:
        raise InputError(f"{name}: holds no images")
    if len(labels) < len(images):
        return ArraySource(name, pixels, None, (), has_split)
    return ArraySource(name, pixels, np.concatenate(labels), classes, has_split)
