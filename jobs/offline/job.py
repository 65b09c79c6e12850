"""An operation on many things: what is to be done, in chunks, as it travels between processes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal, Self

from genimg.images import WRITABLE_SUFFIXES
from genimg.operations import OPERATIONS, Operation

Form = Literal["pictures", "lines", "shards"]
Written = Literal["same", "png", "jpeg", "webp", "tiff"]
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tif"}
MANY = 4096  # chunks into which a job is cut before these grow
LEAST, MOST = 16, 256  # things in a chunk


Item = tuple[int, str]  # an image to be read: the number of its source, and its name there
"""Of millions of images little more than their names is in memory."""


@dataclass(frozen=True)
class Source:
    """What a person named, of which images are read: a file, a folder, an s3:// prefix."""

    named: str
    place: str  # the folder or prefix that images are in, by an address that any process knows
    file: bool = False  # whether it is an image itself

    def told(self, name: str) -> str:
        """How an image in it is called in front of that person."""
        return self.named if self.file else f"{self.named.rstrip('/')}/{name}"


@dataclass(frozen=True)
class Job:
    """What every process that takes part needs to know. Checked when made.

    form: pictures are files of their own; lines tell of images, those of a chunk in a file; shards
        hold the images that a chunk draws
    """

    operation: str
    options: dict[str, Any]
    model: str  # the address of its files
    digest: str  # of the model's manifest
    precision: str
    sources: tuple[Source, ...]
    output: str  # the folder or s3:// prefix beneath which results are written
    form: Form
    rows: int  # things in a chunk
    # what goes with images, by what it is: one for all, or where there is one of each name
    beside: dict[str, str] = field(default_factory=dict)
    format: Written = "png"  # of pictures that images become
    save_quality: int | None = None  # of JPEG and WebP
    since: float = 0.0  # seconds since 1970: older results are no results of this job

    @property
    def asked(self) -> Operation:
        """The operation with its options."""
        return OPERATIONS[self.operation].model_validate(self.options)

    def what(self, item: Item) -> str:
        """How an image is called where something is told of it."""
        source, name = item
        return self.sources[source].told(name)

    def picture(self, item: Item) -> str:
        """The key of what an image becomes."""
        return key_of(item, self.format)

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
        if mask := told.pop("mask", ""):  # as it was written when nothing else could go with them
            told["beside"] = {"mask": mask}
        return cls(**told | {"sources": tuple(Source(**source) for source in told["sources"])})


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
        return cls(**told | {"items": tuple((source, name) for source, name in told["items"])})


@dataclass(frozen=True)
class Outcome:
    """What became of a chunk."""

    count: int  # things done, also if that was some time ago
    failed: list[list[str]] = field(default_factory=list)  # [what, why]
    refused: str = ""  # why nothing more of the job can be done


def key_of(item: Item, format: Written = "png") -> str:
    """Of the picture that an image becomes; `same` is PNG where the image's own is only read."""
    path = PurePosixPath(item[1])
    own = path.suffix if path.suffix.lower() in WRITABLE_SUFFIXES else ".png"
    return str(path.with_suffix(SUFFIXES.get(format, own)))


def rows_for(count: int, workers: int | None) -> int:
    """Things in a chunk of a job of so many: few enough that all workers have some."""
    few = LEAST if workers is None else max(1, min(LEAST, count // (4 * workers)))
    return max(few, min(MOST, -(-count // MANY)))


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
