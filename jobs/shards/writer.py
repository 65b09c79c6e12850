"""Images written into Parquet shards, one shard at a time; knows no Ray.

Rows are shuffled once, by a fixed seed, so that the few row groups that a training shuffles with
one another are a fair sample of the set, whatever order the source has (by class, as a rule).

The source is listed once, by the process that plans; a task is told its own images. Measured with
a million files in a thousand folders: 163 MB where they are listed, 9 MB for all tasks together
on their way, 3 MB in a task of 10,000 (which listed all of them before, in 538 MB each).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from genimg import images
from genimg.data.columns import COLUMNS, agreed, follow
from genimg.data.fitting import placed
from genimg.data.order import permutation
from genimg.data.parts import Part, PartSource
from genimg.data.remote import is_remote, locate, on_this_machine, reported
from genimg.data.shard_files import Row
from genimg.data.shard_writing import write_shard
from genimg.data.sources import Source, Split, open_source
from genimg.errors import InputError
from jobs.shards.folder import Outcome
from jobs.shards.plan import Plan, Shard, Sources

ORDER = 0x73686172  # seeds the order of the rows


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
        self.classes = {name: tuple(its) for name, its in plan.classes.items()}

    def write(self, shard: Shard, part: Part | None) -> Outcome:
        """Write a shard, whole or, with more broken images than are tolerated, not at all."""
        broken: list[str] = []
        filesystem, path = locate(shard.path)
        try:
            source, indices = self.source_of(shard, part)
            with reported(shard.path):
                count = write_shard(
                    path,
                    self.rows(source, indices, broken),
                    columns=tuple(self.plan.columns),
                    classes=self.classes,
                    broken=broken,
                    filesystem=filesystem,
                )
                size = filesystem.get_file_info(path).size
        except TooManyBroken:
            return Outcome(0, 0, broken, complete=False)
        except InputError as error:
            return Outcome(0, 0, broken, complete=False, refused=str(error))
        return Outcome(count, size, broken)

    def source_of(self, shard: Shard, part: Part | None) -> tuple[Source, np.ndarray]:
        """The images that a shard is made of, and which of them, in order."""
        if part is not None:
            where: Path | str = self.plan.source
            in_archive = any(chain.from_iterable(part.spans.values()))
            if in_archive or not is_remote(self.plan.source):  # else read file by file
                where = copy_here(self.plan.source, self.plan.content)
            source = PartSource(where, part, self.classes)
            return source, np.arange(len(source))
        order = row_order(self.plan.counts[shard.split])
        return whole_source(self.plan.source, shard.split), order[shard.start : shard.stop]

    def rows(self, source: Source, indices: np.ndarray, broken: list[str]) -> Iterator[Row]:
        """The images at `indices`; those that cannot be read are added to `broken` instead."""
        for index in indices.tolist():
            try:
                row = self.row(source, index)
            except images.BrokenImage as error:
                broken.append(str(error))
                if len(broken) > self.tolerated:
                    raise TooManyBroken from error
                continue
            yield row

    def row(self, source: Source, index: int) -> Row:
        """An image with its columns as the plan wants them; all is decoded in any case, so that
        what is broken comes to light."""
        size, format, name = self.plan.size, self.plan.format, source.names[index]
        values = {column: source.read(index, column) for column in self.plan.columns}
        try:
            sides = agreed(values, self.classes)
        except images.BrokenImage as error:
            raise images.BrokenImage(error.reason, name) from error
        as_it_is = size is None or sides == (size, size)
        if size is not None and not as_it_is:
            values = follow(values, placed(sides, size, self.plan.fit))
        row: dict[str, Any] = {"name": name}
        for column, value in values.items():
            stored = None
            if as_it_is and (format == "keep" or COLUMNS[column].classed):
                stored = source.encoded(index, column)
            row[column] = COLUMNS[column].encoded(value, self.encode) if stored is None else stored
        return row

    def encode(self, picture: np.ndarray) -> bytes:
        format = self.plan.format
        picture = np.ascontiguousarray(picture)
        return images.encode(picture, "png" if format == "keep" else format, self.plan.quality)


@lru_cache(maxsize=1)  # from one shard to the next that the same worker writes
def copy_here(source: str, content: str) -> Path:
    """Where a source with that digest is on this machine; in S3 its files are listed to tell."""
    return on_this_machine(source)


@lru_cache(maxsize=1)
def whole_source(source: str, split: Split) -> Source:
    return open_source(source, split)


class TooManyBroken(Exception):
    """More images cannot be read than are tolerated."""
