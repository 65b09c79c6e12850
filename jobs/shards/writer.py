"""A set of images cut into Parquet shards: the plan, and the writing of one shard; knows no Ray.

Rows are shuffled once, by a fixed seed, so that the few row groups that a training shuffles with
one another are a fair sample of the set, whatever order the source has (by class, as a rule).

The source is listed once, by the process that plans; a task is told its own images. Measured with
a million files in a thousand folders: 163 MB where they are listed, 9 MB for all tasks together
on their way, 3 MB in a task of 10,000 (which listed all of them before, in 538 MB each).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Literal, cast, get_args
from uuid import uuid4

import numpy as np
from pyarrow import fs

from genimg import images
from genimg.data.fitting import fitted
from genimg.data.order import permutation
from genimg.data.parts import Part, PartSource
from genimg.data.remote import files_at, is_remote, locate, on_this_machine, reported
from genimg.data.shard_files import SUFFIX, Row, broken_of, read_footer, write_shard
from genimg.data.sources import Parted, Source, Split, open_source, opener
from genimg.errors import InputError, nearest

Sources = dict[Split, Parted]
Format = Literal["keep", "png", "jpeg", "webp"]
Fit = Literal["resize", "pad"]
PLAN = "prepare.json"  # beside the shards: what they were made of, so that a second start goes on
ORDER = 0x73686172  # seeds the order of the rows


@dataclass(frozen=True)
class Shard:
    """One file to write: rows start to stop of a split's shuffled order."""

    split: Split
    path: str
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """What decides the bytes of the shards. Checked when made; see `genimg prepare --help`."""

    source: str
    content: str  # digest of the source's names, labels, and sizes and times of all its files
    classes: list[str]
    counts: dict[Split, int]  # images in each split that is written; `all` where there are none
    size: int | None
    fit: Fit
    format: Format
    quality: int | None
    shard_rows: int

    def shards(self, folder: str) -> list[Shard]:
        """The files of the plan below a folder (or s3:// address), in the order of their names."""
        out: list[Shard] = []
        for split, count in self.counts.items():
            where = folder if split == "all" else f"{folder}/{split}"
            total = -(-count // self.shard_rows)
            for number in range(total):
                start = number * self.shard_rows
                path = f"{where}/shard-{number:05d}-of-{total:05d}{SUFFIX}"
                stop = min(start + self.shard_rows, count)
                out.append(Shard(split, path, start, stop))
        return out

    def text(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def make_plan(
    source: str,
    *,
    split: str,
    size: int | None,
    fit: str,
    format: str,
    quality: int | None,
    shard_rows: int,
) -> tuple[Plan, Sources]:
    """A plan and its splits, or InputError; lists the source's images once and decodes none."""
    for option, value, known in (
        ("--format", format, get_args(Format)),
        ("--fit", fit, get_args(Fit)),
        ("--split", split, get_args(Split)),
    ):
        if value not in known:
            raise InputError(f"{option} {value}: not known; {nearest(value, known)}")
    if size is not None and not 8 <= size <= 4096:
        raise InputError(f"--size {size}: must be 8 to 4096 pixels")
    if shard_rows < 1:
        raise InputError(f"--shard-rows {shard_rows}: at least 1")
    if quality is not None and (format not in ("jpeg", "webp") or not 1 <= quality <= 100):
        raise InputError(f"--quality {quality}: 1 to 100, with --format jpeg or webp")

    wanted = cast(Split, split)
    opened = opener(source, in_parts=True)
    sources: Sources = {wanted: opened(wanted)}
    if wanted == "all" and sources["all"].has_split:
        sources = {"train": opened("train"), "test": opened("test")}
    if wanted != "all" and not sources[wanted].has_split:
        raise InputError(f"--split {split}: {source} is not divided; leave --split out")
    plan = Plan(
        source=source if is_remote(source) else str(Path(source).expanduser().resolve()),
        content=digest(source, sources.values()),
        classes=list(next(iter(sources.values())).classes),
        counts={part: len(opened) for part, opened in sources.items()},
        size=size,
        fit=cast(Fit, fit),
        format=cast(Format, format),
        quality=quality,
        shard_rows=shard_rows,
    )
    return plan, sources


def digest(where: str, sources: Iterable[Parted]) -> str:
    """Of names and labels, and of what changes with the content of each file."""
    content = hashlib.sha256()
    for source in sources:
        content.update(json.dumps(source.classes).encode())
        for name in source.names:
            content.update(f"{name}\n".encode())
        content.update(b"" if source.labels is None else source.labels.astype("<i8").tobytes())
        if not is_remote(where):  # its copy on this machine is newer than the files
            for state in source.states():
                content.update(f"{state}\n".encode())
    if is_remote(where):
        files = [(file.path, file.size, file.mtime_ns) for file in files_at(where)]
    else:
        place = Path(where).expanduser()
        inside = [place] if place.is_file() else sorted(f for f in place.iterdir() if f.is_file())
        files = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in inside]
    for file in files:
        content.update(f"{file}\n".encode())
    return content.hexdigest()


def claim(folder: str, plan: Plan, overwrite: bool) -> None:
    """Make a folder ready for a plan: new, empty, or left by the same plan, which then goes on.

    Raises InputError where something else is there. `overwrite` removes shards and nothing else.
    """
    filesystem, where = locate(folder)
    with reported(folder):
        if filesystem.get_file_info(where).type == fs.FileType.File:
            raise InputError(f"{folder}: is a file; name a folder")
        names = [file.path[len(where) + 1 :] for file in files_at(folder)]
        ours = [name for name in names if is_ours(PurePosixPath(name))]
        if foreign := sorted(set(names) - set(ours)):
            name = foreign[0].rpartition("/")[2]
            raise InputError(f"{folder}: holds {name}, which is no shard; name a new folder")
        recorded = f"{where}/{PLAN}"
        same = PLAN in names and read(filesystem, recorded) == plan.text()
        shards = [name for name in ours if name.endswith(SUFFIX)]
        if shards and not same and not overwrite:
            raise InputError(
                f"{folder}: holds shards of another source or other options;"
                " --overwrite replaces them"
            )
        for name in ours:
            if overwrite or name.endswith(".part"):  # what a killed process was writing
                filesystem.delete_file(f"{where}/{name}")
        if not is_remote(folder):  # S3 has no folders
            for split in plan.counts:
                filesystem.create_dir(where if split == "all" else f"{where}/{split}")
        part = f"{where}/.{PLAN}.{uuid4().hex}.part"
        with filesystem.open_output_stream(part) as stream:
            stream.write(plan.text().encode())
        filesystem.move(part, recorded)


def read(filesystem: fs.FileSystem, path: str) -> str:
    with filesystem.open_input_stream(path) as stream:
        return stream.read().decode()


def is_ours(path: PurePosixPath) -> bool:
    """Whether a file, relative to the folder of a plan, is one that `prepare` writes."""
    place = path.parent.as_posix() in (".", "train", "test")
    shard = path.name.startswith("shard-") and path.suffix == SUFFIX
    part = path.name.startswith((".shard-", f".{PLAN}")) and path.suffix == ".part"
    return place and (shard or part or path.as_posix() == PLAN)


@dataclass(frozen=True)
class Outcome:
    """What has become of a shard. `broken` are the names and reasons of what was left out."""

    images: int
    bytes: int
    broken: list[str]
    complete: bool = True
    refused: str = ""  # why it could not be written


def finished(shard: Shard) -> Outcome | None:
    """A shard that is there already and whole, or None."""
    filesystem, path = locate(shard.path)
    with reported(shard.path):
        info = filesystem.get_file_info(path)
    if info.type != fs.FileType.File:
        return None
    try:
        footer = read_footer(path, filesystem)
    except InputError:  # not whole, so it will be written again
        return None
    outcome = Outcome(footer.num_rows, info.size, broken_of(footer))
    return outcome if outcome.images + len(outcome.broken) == shard.stop - shard.start else None


def part_of(plan: Plan, sources: Sources, shard: Shard) -> Part | None:
    """What a process needs to write a shard; None where it must read the source whole."""
    order = row_order(plan.counts[shard.split])
    return sources[shard.split].part(order[shard.start : shard.stop])


@lru_cache(maxsize=2)
def row_order(count: int) -> np.ndarray:
    return permutation(count, ORDER)


class Sharder:
    """Writes shards of a plan, one at a time, each of its own part of the source."""

    def __init__(self, plan: Plan, tolerate_broken: int) -> None:
        self.plan = plan
        self.tolerated = tolerate_broken

    def write(self, shard: Shard, part: Part | None) -> Outcome:
        """Write a shard, whole or, with more broken images than are tolerated, not at all."""
        broken: list[str] = []
        filesystem, path = locate(shard.path)
        try:
            source, indices = self.opened(shard, part)
            with reported(shard.path):
                count = write_shard(
                    path,
                    self.rows(source, indices, broken),
                    labelled=source.labels is not None,
                    classes=tuple(self.plan.classes),
                    broken=broken,
                    filesystem=filesystem,
                )
                size = filesystem.get_file_info(path).size
        except TooManyBroken:
            return Outcome(0, 0, broken, complete=False)
        except InputError as error:
            return Outcome(0, 0, broken, complete=False, refused=str(error))
        return Outcome(count, size, broken)

    def opened(self, shard: Shard, part: Part | None) -> tuple[Source, np.ndarray]:
        """The images that a shard is made of, and which of them, in order."""
        if part is not None:
            where: Path | str = self.plan.source
            if any(part.spans) or not is_remote(self.plan.source):  # else read file by file
                where = copy_here(self.plan.source, self.plan.content)
            return PartSource(where, part, tuple(self.plan.classes)), np.arange(len(part.names))
        order = row_order(self.plan.counts[shard.split])
        return whole_source(self.plan.source, shard.split), order[shard.start : shard.stop]

    def rows(self, source: Source, indices: np.ndarray, broken: list[str]) -> Iterator[Row]:
        """The images at `indices`; those that cannot be read are added to `broken` instead."""
        for index in indices.tolist():
            try:
                data = self.encoded(source, index)
            except images.BrokenImage as error:
                broken.append(str(error))
                if len(broken) > self.tolerated:
                    raise TooManyBroken from error
                continue
            label = 0 if source.labels is None else int(source.labels[index])
            yield Row(data, label, source.names[index])

    def encoded(self, source: Source, index: int) -> bytes:
        """An image as the plan wants it; decoded in any case, so that broken ones come to light."""
        image = source.read(index)
        size, format = self.plan.size, self.plan.format
        if size is not None and image.shape[:2] != (size, size):
            image = np.ascontiguousarray(fitted(image, size, self.plan.fit))
        elif format == "keep" and (original := source.encoded(index)) is not None:
            return original
        return images.encode(image, "png" if format == "keep" else format, self.plan.quality)


@lru_cache(maxsize=1)  # from one shard to the next that the same worker writes
def copy_here(source: str, content: str) -> Path:
    """Where a source with that digest is on this machine; in S3 its files are listed to tell."""
    return on_this_machine(source)


@lru_cache(maxsize=1)
def whole_source(source: str, split: Split) -> Source:
    return open_source(source, split)


class TooManyBroken(Exception):
    """More images cannot be read than are tolerated."""
