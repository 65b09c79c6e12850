"""Where images come from: any folder, archive or array file, opened as one kind of thing."""

from pathlib import Path
from typing import Protocol

import numpy as np

from genimg import images
from genimg.data import archives, arrays
from genimg.data.arrays import Split as Split
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


class FileSource:
    """A Source of encoded files in a folder or an archive."""

    def __init__(self, tree: archives.Tree, split: Split, strip_top: bool) -> None:
        self._tree = tree
        self.nbytes = tree.nbytes
        self.names, self.labels, self.classes, self.has_split = arrange(
            tree.paths, split, strip_top
        )

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> np.ndarray:
        try:
            return images.decode(self.encoded(index))
        except images.BrokenImage as error:
            raise images.BrokenImage(error.reason, self.names[index]) from error

    def measure(self, index: int) -> tuple[int, int]:
        try:
            return images.size(self.encoded(index))
        except images.BrokenImage as error:
            raise images.BrokenImage(error.reason, self.names[index]) from error

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
    if is_parquet(path):
        raise InputError(f"{path}: Parquet shards are streamed; here it must be another form")
    where = on_this_machine(path)
    if not where.exists():
        raise InputError(f"{path}: no such file or folder; {_nearest_sibling(where)}")
    name = where.name.lower()
    if where.is_dir() and any(arrays.IDX_NAME.search(file.name) for file in where.iterdir()):
        return arrays.open_idx_folder(where, split)
    if name.endswith(".npz"):
        return arrays.open_npz(where, split)
    if arrays.IDX_NAME.search(name):
        return arrays.open_idx_file(where)
    tree = _open_tree(where)
    if not tree.paths:
        looked_for = ", ".join(images.READABLE_SUFFIXES)
        raise InputError(f"{path}: no images in it; looked for {looked_for} at any depth")
    try:
        return FileSource(tree, split, strip_top=where.is_file())
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


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
    parts = [path.split("/") for path in sorted(paths)]
    first = {part[0] for part in parts}
    base = 0  # how deep the set begins; its classes lie at `depth`
    if strip_top and len(first) == 1 and len(parts[0]) > 1:
        base = 1

    tops = {part[base] for part in parts if len(part) > base + 1}
    loose = any(len(part) == base + 1 for part in parts)
    divided = bool(tops) and tops <= {*SPLITS} and not loose
    has_split = divided and "train" in tops and len(tops) > 1
    depth = base + 1 if divided else base
    classes = tuple(sorted({part[depth] for part in parts if len(part) > depth + 1}))

    if has_split and split != "all":
        wanted = "train" if split == "train" else "test" if "test" in tops else "val"
        parts = [part for part in parts if part[base] == wanted]
    names = ["/".join(part) for part in parts]
    in_class = [len(part) > depth + 1 for part in parts]
    if not any(in_class):
        return names, None, (), has_split
    if not all(in_class):
        raise InputError(
            f"some images lie in class folders ({names[in_class.index(True)]}) and some do not"
            f" ({names[in_class.index(False)]}); move these into a folder, or name one folder"
        )
    number = {name: label for label, name in enumerate(classes)}
    labels = np.array([number[part[depth]] for part in parts], dtype=np.int64)
    return names, labels, classes, has_split


def _open_tree(where: Path) -> archives.Tree:
    name = where.name.lower()
    if where.is_dir():
        return archives.Folder(where)
    if name.endswith(archives.ZIP_SUFFIXES):
        return archives.Zip(where)
    if name.endswith(archives.TAR_SUFFIXES):
        return archives.Tar(where)
    if name.endswith(archives.PACKED_TAR_SUFFIXES):
        return archives.PackedTar(where)
    raise InputError(f"{where}: not a form that is known; known: {FORMS}")


def _nearest_sibling(where: Path) -> str:
    folder = where.parent
    if not folder.is_dir():
        return f"nor is there a folder {folder}"
    siblings = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    hint = nearest(where.name, siblings[:1000])
    return hint if hint.startswith("did you mean") else f"looked in {folder.resolve()}"
