"""Where images come from: any folder, archive or array file, opened as one kind of thing."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from genimg import images
from genimg.data import archives, arrays
from genimg.data.archives import Span
from genimg.data.arrays import Split as Split
from genimg.data.buckets import Bucket
from genimg.data.parts import Files, Part, at_offsets
from genimg.data.remote import files_at, is_remote, locate, on_this_machine
from genimg.errors import InputError, nearest

SPLITS = ("train", "test", "val")  # folders of these names are parts of a set, not classes
FORMS = "a folder of images, .zip, .tar(.gz, .xz, .bz2), .npz, IDX files or Parquet shards"


class Source(Protocol):
    """Images in a fixed order, listed but not yet decoded. Reading is safe from several threads.

    names:     one an image, for messages
    labels:    int64 [N], or None where the images have no classes
    classes:   names of the labels, the same for every split; empty without labels
    has_split: whether train and test images are told apart
    nbytes:    bytes of pixels or files that the source itself holds in memory
    """

    names: list[str]
    labels: np.ndarray | None
    classes: tuple[str, ...]
    has_split: bool
    nbytes: int

    def __len__(self) -> int: ...

    def read(self, index: int) -> np.ndarray:
        """uint8 [H, W, C], not to be written to. Raises BrokenImage naming the file."""
        ...

    def measure(self, index: int) -> tuple[int, int]:
        """(width, height), from the header alone. Raises as read() does."""
        ...

    def encoded(self, index: int) -> bytes | None:
        """The file as it is, where the image is one; None in array files.

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

    def __init__(self, tree: archives.Tree, split: Split, strip_top: bool) -> None:
        self._tree = tree
        self.nbytes = tree.nbytes
        self.names, self.labels, self.classes, self.has_split = arrange(
            tree.paths, split, strip_top
        )

    def part(self, indices: np.ndarray) -> Part:
        names = [self.names[index] for index in indices.tolist()]
        labels = None if self.labels is None else self.labels[indices].tolist()
        return Part(names, labels, [self._tree.span(name) for name in names])

    def states(self) -> Iterator[Span]:
        return map(self._tree.state, self.names)

    def encoded(self, index: int) -> bytes:
        try:
            return self._tree.read(self.names[index])
        except images.BrokenImage as error:
            raise images.BrokenImage(error.reason, self.names[index]) from error


def open_source(path: str, split: Split = "train") -> Source:
    """The images at a path, in whichever form they come (see FORMS).

    Subfolders are classes, in the order of their names. Folders `train` and `test` (or `val`) on
    top, MNIST's `train-` and `t10k-` files and the keys `x_train` and `x_test` of an .npz are
    splits; without them every split is everything. A single folder on top of an archive is
    passed over. What lies in S3 is copied to this machine first. Raises InputError where nothing
    usable is there.
    """
    return opener(path)(split)


def opener(path: str, in_parts: bool = False) -> Callable[[Split], Parted]:
    """open_source() for several splits, of which the files are listed once.

    in_parts: a compressed tar is unpacked on this machine's disk, not in memory; files in S3 are
    not copied to this machine.
    """
    if is_parquet(path):
        raise InputError(f"{path}: Parquet shards are streamed; here it must be another form")
    if in_parts and is_folder_of_files(path):
        return _of_tree(path, Bucket(path), strip_top=False)
    where = on_this_machine(path)
    if not where.exists():
        raise InputError(f"{path}: no such file or folder; {_nearest_sibling(where)}")
    name = where.name.lower()
    if where.is_dir() and any(arrays.IDX_NAME.search(file.name) for file in where.iterdir()):
        return partial(arrays.open_idx_folder, where)
    if name.endswith(".npz"):
        return partial(arrays.open_npz, where)
    if arrays.IDX_NAME.search(name):
        return lambda split: arrays.open_idx_file(where)
    return _of_tree(path, _open_tree(where, in_parts), strip_top=where.is_file())


def _of_tree(path: str, tree: archives.Tree, strip_top: bool) -> Callable[[Split], FileSource]:
    if not tree.paths:
        looked_for = ", ".join(images.READABLE_SUFFIXES)
        raise InputError(f"{path}: no images in it; looked for {looked_for} at any depth")

    def open_files(split: Split) -> FileSource:
        try:
            return FileSource(tree, split, strip_top)
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


def arrange(
    paths: list[str], split: Split, strip_top: bool
) -> tuple[list[str], np.ndarray | None, tuple[str, ...], bool]:
    """(names, labels, classes, has_split) of the files of one split, sorted; see Source.

    `strip_top` passes over a single folder that everything is in.
    """
    paths = sorted(paths)  # there may be millions: no list of their parts is made
    first = {path.partition("/")[0] for path in paths}
    base = 0  # how deep the set begins; its classes lie at `depth`
    if strip_top and len(first) == 1 and "/" in paths[0]:
        base = 1

    tops = {path.split("/")[base] for path in paths if path.count("/") > base}
    loose = any(path.count("/") == base for path in paths)
    divided = bool(tops) and tops <= {*SPLITS} and not loose
    has_split = divided and "train" in tops and len(tops) > 1
    depth = base + 1 if divided else base
    classes = tuple(sorted({p.split("/")[depth] for p in paths if p.count("/") > depth}))

    if has_split and split != "all":
        wanted = "train" if split == "train" else "test" if "test" in tops else "val"
        paths = [path for path in paths if path.split("/")[base] == wanted]
    in_class = [path.count("/") > depth for path in paths]
    if not any(in_class):
        return paths, None, (), has_split
    if not all(in_class):
        raise InputError(
            f"some images lie in class folders ({paths[in_class.index(True)]}) and some do not"
            f" ({paths[in_class.index(False)]}); move these into a folder, or name one folder"
        )
    number = {name: label for label, name in enumerate(classes)}
    each = (number[path.split("/")[depth]] for path in paths)
    labels = np.fromiter(each, np.int64, len(paths))
    return paths, labels, classes, has_split


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
