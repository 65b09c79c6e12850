"""A process's part of a job: chunks read, computed and written; knows no Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from cluster.places import open_storage
from cluster.storage import StorageError
from genimg import images
from genimg.data.remote import locate, reported
from genimg.errors import InputError
from genimg.operations.drawing import Drawing
from jobs.offline.job import Chunk, Item, Job, Outcome
from jobs.offline.making import Done, Failure, Image, Maker, in_a_line
from jobs.offline.streams import ahead

CODERS = 2  # threads that decode and encode; the libraries let other threads run meanwhile
ASKED = 16  # results of which the storage is asked at a time
BEHIND = 2  # images that are computed, and not written yet


class Tick(Protocol):
    """Told how many more things are done, and how many of these failed."""

    def __call__(self, more: int, failures: int = 0, /) -> None: ...


class Worker:
    """Does chunks of a job, one at a time."""

    def __init__(self, job: Job, maker: Maker) -> None:
        self.job = job
        self.maker = maker
        self.operation = job.asked
        self.output = open_storage(job.output)

    def __call__(self, chunk: Chunk, tick: Tick = lambda more, failures=0: None) -> Outcome:
        """Do what of a chunk is not done yet. tick: told of things as they are done,
        and of how many of these failed."""
        try:
            if self.job.form == "shards":
                return self.shard(chunk, tick)
            if chunk.items:
                return self.told(chunk, tick) if chunk.key else self.pictures(chunk, tick)
            return self.drawn(chunk, tick)
        except (InputError, StorageError) as error:
            return Outcome(0, refused=str(error))

    def outcome(self, chunk: Chunk, failed: list[list[str]]) -> Outcome:
        """Of a chunk of which all was tried."""
        return Outcome(len(chunk) - len(failed), failed)

    # images that are read

    def pictures(self, chunk: Chunk, tick: Tick) -> Outcome:
        """Each image becomes a picture."""
        missing = self.missing(chunk.items)
        tick(len(chunk) - len(missing))
        failed: list[list[str]] = []
        with ThreadPoolExecutor(CODERS) as coders:
            made = self.maker.of_items(missing, coders)
            for end in ahead(self.written, made, coders, BEHIND):
                if isinstance(end, Failure):
                    failed.append([self.job.what(end.item), end.reason])
                tick(1, isinstance(end, Failure))
        return self.outcome(chunk, failed)

    def told(self, chunk: Chunk, tick: Tick) -> Outcome:
        """What is told of images becomes lines of one file; those that are there already stay."""
        there, lines = self.lines_of(chunk.key)
        what = self.job.what
        missing = [item for item in chunk.items if what(item) not in lines]
        tick(len(chunk) - len(missing))
        failed: list[list[str]] = []
        with ThreadPoolExecutor(CODERS) as coders:
            for end in self.maker.of_items(missing, coders):
                if isinstance(end, Failure):
                    failed.append([what(end.item), end.reason])
                    lines[what(end.item)] = {"error": end.reason}
                else:
                    lines[what(end.item)] = end.told()
                tick(1, isinstance(end, Failure))
        if missing or there != list(map(what, chunk.items)):  # images may have come and gone
            every = [{"file": what(item)} | lines[what(item)] for item in chunk.items]
            text = "".join(json.dumps(line) + "\n" for line in every)
            self.output.write(chunk.key, text.encode())
        return self.outcome(chunk, failed)

    def lines_of(self, key: str) -> tuple[list[str], dict[str, dict[str, Any]]]:
        """(the images that a file of this job tells of, what it tells of those that went well)."""
        if not self.is_done(key):
            return [], {}
        every = [json.loads(line) for line in self.output.read(key)[0].splitlines()]
        there = [line.pop("file") for line in every]
        return there, {
            what: line for what, line in zip(there, every, strict=True) if "error" not in line
        }

    def missing(self, items: Sequence[Item]) -> Sequence[Item]:
        """Those without a picture."""
        with ThreadPoolExecutor(ASKED) as pool:
            done = pool.map(lambda item: self.is_done(self.job.picture(item)), items)
            return [item for item, there in zip(items, done, strict=True) if not there]

    def written(self, end: Done | Failure) -> Done | Failure:
        """A picture encoded and written."""
        if isinstance(end, Failure):
            return end
        key = self.job.picture(end.item)
        try:
            data = end.picture(key)
        except (InputError, RuntimeError, MemoryError) as error:
            return Failure(end.item, in_a_line(error))
        self.output.write(key, data)
        return end

    # images that are drawn

    def drawn(self, chunk: Chunk, tick: Tick) -> Outcome:
        """Each image that is drawn becomes a file."""
        key = self.job.key
        missing = {n for n in range(chunk.start, chunk.stop) if not self.is_done(key(n))}
        tick(len(chunk) - len(missing))

        def write(made: Image) -> None:
            if made.number in missing:
                self.output.write(key(made.number), images.encode(made.pixels))

        with ThreadPoolExecutor(CODERS) as coders:
            for _ in ahead(write, self.maker.of_numbers(sorted(missing)), coders):
                tick(1)
        return self.outcome(chunk, [])

    def shard(self, chunk: Chunk, tick: Tick) -> Outcome:
        """The images that are drawn become rows of a shard, those of one class each with labels."""
        if self.is_done(chunk.key):
            tick(len(chunk))
            return self.outcome(chunk, [])
        from genimg.data.shard_writing import write_shard  # which takes a while

        numbers = range(chunk.start, chunk.stop)
        classes = self.classes()

        def encoded(made: Image) -> dict[str, Any]:
            row = {"name": self.job.name(made.number), "image": images.encode(made.pixels)}
            return row | ({"label": classes.index(made.label)} if classes else {})

        def rows() -> Iterator[dict[str, Any]]:
            with ThreadPoolExecutor(CODERS) as coders:
                for row in ahead(encoded, self.maker.of_numbers(numbers), coders):
                    tick(1)
                    yield row

        address = f"{self.job.output.rstrip('/')}/{chunk.key}"
        filesystem, path = locate(address)
        with reported(address):
            write_shard(
                path,
                rows(),
                columns=("image", "label") if classes else ("image",),
                classes={"label": classes} if classes else {},
                broken=[],
                filesystem=filesystem,
            )
        return self.outcome(chunk, [])

    def classes(self) -> tuple[str, ...]:
        """Names of the model's classes, where each image that is drawn is of one of them."""
        classes = self.maker.classes()
        label = self.operation.option("label")
        of_one = label in classes if label else isinstance(self.operation, Drawing)
        return classes if of_one else ()

    def is_done(self, key: str) -> bool:
        """Whether a result is there that this job has made."""
        found = self.output.find(key)
        return found is not None and found.modified >= self.job.since
