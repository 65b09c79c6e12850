"""An operation on many things: what is to be done, in chunks, as it travels between processes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from genimg.operations import OPERATIONS, Operation

Form = Literal["pictures", "lines", "shards"]
MANY = 4096  # chunks into which a job is cut before these grow
LEAST, MOST = 16, 256  # things in a chunk


@dataclass(frozen=True)
class Job:
    """What every process that takes part needs to know. Checked when made.

    form: pictures are files of their own; lines tell of images, those of a chunk in a file; shards
        hold the images that a chunk draws
    """

    operation: str
    options: dict[str, Any]
    model: str  # by which any process loads the same version
    digest: str  # of the model's manifest
    registry: str
    precision: str
    sources: tuple[str, ...]  # what a person named: folders, files, prefixes
    output: str  # the folder or s3:// prefix beneath which results are written
    form: Form
    rows: int  # things in a chunk
    since: float = 0.0  # seconds since 1970: older results are no results of this job

    @property
    def asked(self) -> Operation:
        """The operation with its options."""
        return OPERATIONS[self.operation].model_validate(self.options)

    def name(self, number: int) -> str:
        """How the image of a number is called that is drawn."""
        first = self.options.get("seed")
        return f"{number:06d}" if first is None else f"seed-{first + number:06d}"

    def key(self, number: int) -> str:
        """Of its file."""
        return f"{self.name(number)}.png"

    def text(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, text: str) -> Self:
        told = json.loads(text)
        return cls(**told | {"sources": tuple(told["sources"])})


@dataclass(frozen=True)
class Item:
    """An image to be read."""

    place: str  # the folder or s3:// prefix that it is in
    name: str  # there
    key: str  # of the picture that it becomes, or what it is called where something is told of it


@dataclass(frozen=True)
class Chunk:
    """What a process does in one go: images to be read, or numbers of images to be drawn."""

    items: tuple[Item, ...] = ()
    start: int = 0
    stop: int = 0
    key: str = ""  # of the file that all its results go to; empty: each has one

    def __len__(self) -> int:
        return len(self.items) or self.stop - self.start

    def text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Self:
        told = json.loads(text)
        return cls(**told | {"items": tuple(Item(**item) for item in told["items"])})


@dataclass(frozen=True)
class Outcome:
    """What became of a chunk."""

    count: int  # things done, also if that was some time ago
    failed: list[list[str]] = field(default_factory=list)  # [what, why]
    refused: str = ""  # why nothing more of the job can be done


def rows_for(count: int) -> int:
    """Things in a chunk of a job of so many."""
    return max(LEAST, min(MOST, -(-count // MANY)))


def chunks_of(job: Job, items: Sequence[Item], count: int) -> Iterator[Chunk]:
    """A job's chunks: of items, or where there are none of the numbers below `count`."""
    total = -(-count // job.rows)
    for number in range(total):
        start = number * job.rows
        stop = min(start + job.rows, count)
        key = {
            "pictures": "",
            "lines": f"part-{number:06d}-of-{total:06d}.jsonl",
            "shards": f"shard-{number:05d}-of-{total:05d}.parquet",
        }[job.form]
        if items:
            yield Chunk(items=tuple(items[start:stop]), key=key)
        else:
            yield Chunk(start=start, stop=stop, key=key)
