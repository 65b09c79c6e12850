"""Where images come from: any folder, archive or array file, opened as one kind of thing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from genimg import images
from genimg.data import archives, arrays, notes
from genimg.data.archives import Span
from genimg.data.arrays import Split as Split
from genimg.data.buckets import Bucket
from genimg.data.clips import open_npy
from genimg.data.columns import refuse_missing
from genimg.data.listing import SPLITS, arrange, each_of
from genimg.data.parts import Files, Part, at_offsets
from genimg.data.remote import files_at, is_remote, locate, on_this_machine
from genimg.errors import InputError, nearest
from genimg.images import Channels

FORMS = "a folder of images, .zip, .tar(.gz, .xz, .bz2), .npz, .npy, IDX files or Parquet shards"


class Source(Protocol):
    """Images in a fixed order, listed but not yet decoded. Reading is safe from several threads.

    names:     one an image, for messages
    columns:   what there is of every image (see genimg.data.columns)
    labels:    int64 [N], or None where the images have no classes
    classes:   names of the classes of label, boxes and mask, where they are told; the same for
               every split
    has_split: whether train and test images are told apart
    nbytes:    bytes of pixels or files that the source itself holds in memory
    """

    has_split: bool
    nbytes: int

    @property
    def names(self) -> list[str]: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]: ...

    @property
    def labels(self) -> np.ndarray | None: ...

    def __len__(self) -> int: ...

    def read(self, index: int, column: str = "image", channels: Channels | None = None) -> Any:
        """An image as uint8 [H, W, C], not to be written to, or its value of another column.

        channels: of pictures; None leaves theirs. Raises BrokenImage naming the file.
        """
        ...

    def measure(self, index: int) -> tuple[int, int]:
        """(width, height), from the header alone. Raises as read() does."""
        ...

    def encoded(self, index: int, column: str = "image") -> Any:
        """What a shard stores: the file as it is; None for images of array files.

        Raises BrokenImage naming the file where it cannot be read.
        """
        ...


class Parted(Source, Protocol):
    """A source that can be read in parts, each by a process of its own, without listing it."""

    def part(self, indices: np.ndarray) -> Part | None:
        """The images at int64 `indices`, in order; None in array files, which are read whole."""
        ...

    def states(self) -> Iterator[Span]:
        """What changes with the content of each file (its size, time, checksum); see Tree.state."""
        ...


class FileSource(Files):
    """A Parted source of encoded files in a folder or an archive."""

    def __init__(
        self, tree: archives.Tree, split: Split, strip_top: bool, columns: tuple[str, ...] | None
    ) -> None:
        """columns: those that notes are read for; None: all that there are"""
        self._tree = tree
        self.nbytes = tree.nbytes
        labelled = columns is None or "label" in columns
        clips = columns is not None and "frames" in columns
        listing = arrange(tree.paths, split, strip_top, labelled, clips)
        self.files, self.has_split = listing.files, listing.has_split
        self.values: dict[str, Sequence[Any] | np.ndarray] = {}
        self.classes: dict[str, tuple[str, ...]] = {}
        if listing.labels is not None:
            self.values["label"] = listing.labels
            self.classes["label"] = listing.classes
        told = {
            "text": notes.caption_files(tree.notes),
            "boxes": notes.annotation_files(tree.notes),
        }
        self.columns = (*self.files, *self.values, *(name for name in told if told[name]))
        wanted = self.columns if columns is None else columns
        if "mask" in self.columns and (names := notes.class_names(tree.read, tree.notes)):
            self.classes["mask"] = names
        if told["text"] and "text" in wanted:
            self.values["text"] = notes.captions(tree.read, tree.notes, self.names)
        if told["boxes"] and "boxes" in wanted:
            self.values["boxes"], self.classes["boxes"] = notes.boxes(
                tree.read, tree.notes, self.names
            )

    def part(self, indices: np.ndarray) -> Part:
        chosen = indices.tolist()
        files = {name: [its[index] for index in chosen] for name, its in self.files.items()}
        values = {name: [its[index] for index in chosen] for name, its in self.values.items()}
        if self.labels is not None:
            values["label"] = self.labels[indices].tolist()
        spans = {
            name: [self._tree.span(path) for path in each_of(its)] for name, its in files.items()
        }
        return Part(files, spans, values)

    def states(self) -> Iterator[Span]:
        files = map(each_of, self.files.values())
        return map(self._tree.state, chain(*files, sorted(self._tree.notes)))

    def _bytes(self, name: str) -> bytes:
        return self._tree.read(name)


def open_source(
    path: str, split: Split = "train", columns: tuple[str, ...] | None = None
) -> Source:
    """The images at a path, in whichever form they come (see FORMS), and what is beside them.

    Subfolders are classes, in the order of their names; where `label` is not among the columns,
    images may lie beside them. Where `frames` are, a folder is a clip, and so is a file on top.
    Folders `train` and `test` (or `val`) on top, MNIST's `train-` and `t10k-` files and the keys
    `x_train` and `x_test` of an .npz are splits; without them every split is everything. A single
    folder on top of an archive is passed over. Folders of PAIRS (see genimg.data.listing) give
    masks and targets, files that genimg.data.notes reads texts and boxes. What lies in S3 is
    copied to this machine first.

    columns: those that are wanted; None: all that there are. Raises InputError where one is
    missing, or nothing usable is there.
    """
    return opener(path, columns)(split)


def opener(
    path: str, columns: tuple[str, ...] | None = None, in_parts: bool = False
) -> Callable[[Split], Parted]:
    """open_source() for several splits, of which the files are listed once.

    in_parts: a compressed tar is unpacked on this machine's disk, not in memory; files in S3 are
    not copied to this machine.
    """
    if is_parquet(path):
        raise InputError(f"{path}: Parquet shards are streamed; here it must be another form")
    open_split = _opener(path, columns, in_parts)

    def opened(split: Split) -> Parted:
        source = open_split(split)
        refuse_missing(path, source.columns, columns or ())
        return source

    return opened


def _opener(
    path: str, columns: tuple[str, ...] | None, in_parts: bool
) -> Callable[[Split], Parted]:
    if in_parts and is_folder_of_files(path):
        return _of_tree(path, Bucket(path), False, columns)
    where = on_this_machine(path)
    if not where.exists():
        raise InputError(f"{path}: no such file or folder; {_nearest_sibling(where)}")
    name = where.name.lower()
    if where.is_dir() and any(arrays.IDX_NAME.search(file.name) for file in where.iterdir()):
        return partial(arrays.open_idx_folder, where)
    if name.endswith(".npz"):
        return partial(arrays.open_npz, where)
    if name.endswith(".npy"):
        return lambda split: open_npy(where)
    if arrays.IDX_NAME.search(name):
        return lambda split: arrays.open_idx_file(where)
    return _of_tree(path, _open_tree(where, in_parts), where.is_file(), columns)


def _of_tree(
    path: str, tree: archives.Tree, strip_top: bool, columns: tuple[str, ...] | None
) -> Callable[[Split], FileSource]:
    if not tree.paths:
        looked_for = ", ".join(images.READABLE_SUFFIXES)
        raise InputError(f"{path}: no images in it; looked for {looked_for} at any depth")

    def open_files(split: Split) -> FileSource:
        try:
            return FileSource(tree, split, strip_top, columns)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    return open_files


def is_folder_of_files(path: str) -> bool:
    """Whether an address is of several files in S3 that are no set of arrays."""
    if not is_remote(path):
        return False
    files = files_at(path)
    several = bool(files) and [file.path for file in files] != [locate(path)[1]]
    return several and not any(arrays.IDX_NAME.search(file.base_name) for file in files)


def is_parquet(path: str) -> bool:
    """Whether this is genimg.data.parquet's: a shard or a folder of shards, here or in S3."""
    if is_remote(path):
        start = len(locate(path)[1]) + 1
        names = [file.path[start:].split("/") for file in files_at(path)]
        shallow = [name for name in names if name[:-1] in ([], *([split] for split in SPLITS))]
        last = [name[-1] or path.rpartition("/")[2] for name in shallow]
        return any(name.endswith(".parquet") and name[0] not in "._" for name in last)
    where = Path(path).expanduser()
    folders = [where, *(where / split for split in SPLITS)]
    return where.suffix.lower() == ".parquet" or any(
        folder.is_dir() and any(folder.glob("*.parquet")) for folder in folders
    )


def _open_tree(where: Path, in_parts: bool) -> archives.Tree:
    name = where.name.lower()
    if where.is_dir():
        return archives.Folder(where)
    if name.endswith(archives.ZIP_SUFFIXES):
        return archives.Zip(where)
    if name.endswith(archives.TAR_SUFFIXES):
        return archives.Tar(where)
    if name.endswith(archives.PACKED_TAR_SUFFIXES):
        return archives.Tar(at_offsets(where)) if in_parts else archives.PackedTar(where)
    raise InputError(f"{where}: not a form that is known; known: {FORMS}")


def _nearest_sibling(where: Path) -> str:
    folder = where.parent
    if not folder.is_dir():
        return f"nor is there a folder {folder}"
    siblings = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    hint = nearest(where.name, siblings[:1000])
    return hint if hint.startswith("did you mean") else f"looked in {folder.resolve()}"
