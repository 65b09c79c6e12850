"""What `genimg prepare` is going to write: which shards, of which images, in which form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from cluster.places import everywhere
from genimg.data.columns import COLUMNS, read_columns
from genimg.data.loading import numbered
from genimg.data.remote import files_at, is_remote
from genimg.data.shard_files import SUFFIX
from genimg.data.sources import Parted, Split, opener
from genimg.errors import InputError, nearest

Sources = dict[Split, Parted]
Format = Literal["keep", "png", "jpeg", "webp"]
Fit = Literal["resize", "pad"]


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
    columns: list[str]
    classes: dict[str, list[str]]  # names of the classes that columns count
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
    columns: str | None = None,
) -> tuple[Plan, Sources]:
    """A plan and its splits, or InputError; lists the source's images once and decodes none.

    columns: names between commas; None: all that there are. Where the classes of masks have no
    names, the masks are read to number them.
    """
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
    asked = None if columns is None else read_columns(columns)
    opened = opener(source, asked, in_parts=True)
    sources: Sources = {wanted: opened(wanted)}
    if wanted == "all" and sources["all"].has_split:
        sources = {"train": opened("train"), "test": opened("test")}
    if wanted != "all" and not sources[wanted].has_split:
        raise InputError(f"--split {split}: {source} is not divided; leave --split out")
    first = next(iter(sources.values()))
    written = first.columns if asked is None else asked
    counted = [name for name in written if COLUMNS[name].classed]
    plan = Plan(
        source=everywhere(source),
        content=digest(source, sources.values()),
        columns=list(written),
        classes={
            name: list(first.classes.get(name) or numbered(sources.values(), name))
            for name in counted
        },
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
