"""Which files of a tree are what: images of a split, their classes, and files beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from genimg.data.arrays import Split
from genimg.data.grids import FRAMES
from genimg.errors import InputError
from genimg.moving import in_order

SPLITS = ("train", "test", "val")  # folders of these names are parts of a set, not classes
PAIRS = {"mask": ("images", "masks"), "target": ("input", "target")}
"""Columns that come as files: the folder of the images, and that of theirs, of equal names."""
Names = str | list[str]  # of the file that an image has in a column, or of several


@dataclass(frozen=True)
class Listing:
    """The images of one split, sorted by their paths.

    files:     of each column that comes as files, that of each image (`image` always), or several
    labels:    int64 [N], or None without classes
    classes:   names of the labels, the same for every split
    has_split: whether train and test images are told apart
    """

    files: dict[str, list[Names]]
    labels: np.ndarray | None
    classes: tuple[str, ...]
    has_split: bool


def arrange(
    paths: Iterable[str],
    split: Split,
    strip_top: bool,
    labelled: bool = True,
    clips: bool = False,
) -> Listing:
    """What is what among paths of images, at least one.

    strip_top: a single folder that everything is in is passed over
    labelled: classes are wanted; without, images beside class folders are just images, like those
        in them
    clips: the pictures in a folder are frames of one clip; on top each file is one

    Raises InputError where that can be read in two ways.
    """
    paths = sorted(paths)  # there may be millions: no list of their parts is made
    first = {path.partition("/")[0] for path in paths}
    base = 0  # how deep the set begins; its classes lie at `depth`
    if strip_top and len(first) == 1 and "/" in paths[0]:
        base = 1

    tops = folders_at(base, paths)
    loose = any(path.count("/") == base for path in paths)
    divided = bool(tops) and tops <= {*SPLITS} and not loose
    has_split = divided and "train" in tops and len(tops) > 1
    depth = base + 1 if divided else base
    column = None if clips else pair_at(depth, paths)
    files: dict[str, Any] = {"image": paths}
    if clips:
        files = clips_at(depth, paths)
    elif column is not None:
        files = paired(column, depth, paths)
        depth += 1
    classes = () if clips else tuple(sorted(folders_at(depth, files["image"])))
    if column is not None and (misplaced := set(classes) & {*SPLITS}):
        raise InputError(
            f"{min(misplaced)}/ lies in {PAIRS[column][0]}/: a class of that name, or a split? put"
            f" splits on top, as {min(misplaced)}/{PAIRS[column][0]}/, or rename it"
        )

    if has_split and split != "all":
        wanted = "train" if split == "train" else "test" if "test" in tops else "val"
        inside = [path.split("/")[base] == wanted for path in files["image"]]
        files = {
            name: [path for path, chosen in zip(its, inside, strict=True) if chosen]
            for name, its in files.items()
        }
    labels = None if clips else labels_at(depth, files["image"], classes, labelled)
    return Listing(files, labels, classes, has_split)


def folders_at(depth: int, paths: list[str]) -> set[str]:
    """Names of the folders that lie that deep."""
    return {path.split("/")[depth] for path in paths if path.count("/") > depth}


def pair_at(depth: int, paths: list[str]) -> str | None:
    """The column that two folders so deep are made of; None where they are no such pair."""
    folders = folders_at(depth, paths)
    for column, pair in PAIRS.items():
        if not folders >= {*pair}:
            continue
        others = folders - {*pair} or {path for path in paths if path.count("/") == depth}
        if others:
            raise InputError(
                f"{pair[0]}/, {pair[1]}/ and {min(others)} lie beside one another: images with"
                f" their {column}s, or classes of these names? leave only the first two, or rename"
                " them"
            )
        return column
    return None


def paired(column: str, depth: int, paths: list[str]) -> dict[str, list[str]]:
    """{image, column}: files of equal names, but for their suffixes."""
    of_images, of_column = PAIRS[column]
    images: dict[str, str] = {}
    beside: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        side = images if parts.pop(depth) == of_images else beside
        name = "/".join(parts).rpartition(".")[0]
        if name in side:
            raise InputError(f"{side[name]} and {path} have one name; rename one of them")
        side[name] = path
    alone = images.keys() ^ beside.keys()
    if alone:
        name = min(alone)
        raise InputError(
            f"{of_images}/ and {of_column}/ can be read as images with their {column}s, or as two"
            f" classes of these names: {len(alone)} of {len(paths)} files have no partner in the"
            f" other folder, as {images.get(name) or beside[name]}; give each image its {column},"
            " of an equal name, or rename the folders"
        )
    return {"image": [*images.values()], column: [beside[name] for name in images]}


def clips_at(depth: int, paths: list[str]) -> dict[str, list[Any]]:
    """{image, frames}: the first file of each clip, and those that are taken: of a folder, or one
    that is so deep."""
    clips: dict[str, list[str]] = {}
    for path in paths:
        alone = path.count("/") == depth
        clips.setdefault(path if alone else path.rpartition("/")[0], []).append(path)
    every = [sorted(clip, key=in_order)[:FRAMES] for clip in clips.values()]
    return {"image": [clip[0] for clip in every], "frames": every}


def labels_at(
    depth: int, paths: list[str], classes: tuple[str, ...], labelled: bool
) -> np.ndarray | None:
    """int64 [N]: the class of each image by its folder that deep; None where there are none."""
    in_class = [path.count("/") > depth for path in paths]
    if not any(in_class):
        return None
    if not all(in_class):
        if not labelled:
            return None
        raise InputError(
            f"some images lie in class folders ({paths[in_class.index(True)]}) and some do not"
            f" ({paths[in_class.index(False)]}); move these into a folder, or name one folder"
        )
    number = {name: label for label, name in enumerate(classes)}
    each = (number[path.split("/")[depth]] for path in paths)
    return np.fromiter(each, np.int64, len(paths))


def each_of(files: Iterable[Names]) -> Iterator[str]:
    """Names one by one."""
    for names in files:
        yield from (names,) if isinstance(names, str) else names
