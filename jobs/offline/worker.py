"""A process's part of a job: chunks read, computed and written; knows no Ray."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cluster.places import open_storage, split
from cluster.storage import NotFound, Storage, StorageError
from genimg import images
from genimg.contracts import Plan
from genimg.data.remote import is_remote, locate, reported
from genimg.data.shard_writing import write_shard
from genimg.engine import Engine
from genimg.errors import InputError
from genimg.operations import Operation
from genimg.operations.drawing import Drawing
from genimg.results import Latents, Pictures, Values
from jobs.offline.inputs import latents_in
from jobs.offline.job import Chunk, Item, Job, Outcome, key_of
from jobs.offline.record import settled
from jobs.offline.streams import ahead, runs
from jobs.runs.addressed import digest_of, folder_at

CODERS = 2  # threads that decode and encode; the libraries let other threads run meanwhile
ASKED = 16  # results of which the storage is asked at a time
BEHIND = 2  # images that are computed, and not written yet


@dataclass(frozen=True)
class Ready:
    """An image that was read, and its plan."""

    item: Item
    plan: Plan
    profile: bytes | None


@dataclass(frozen=True)
class Image:
    """One that was drawn: uint8 [H, W, C], and what it is of, where the model was told that."""

    number: int
    pixels: np.ndarray
    label: str


@dataclass(frozen=True)
class Failure:
    item: Item
    reason: str


class Worker:
    """Does chunks of a job, one at a time; the model is loaded with the first."""

    def __init__(self, job: Job, engine: Engine | None = None) -> None:
        """engine: that of the job's model, where this process has it already."""
        self.job = job
        if engine is not None:
            self.engine = self.agreed(engine)
        self.operation = job.asked
        self.output = open_storage(job.output)

    def __call__(self, chunk: Chunk, tick: Callable[[int], None] = lambda count: None) -> Outcome:
        """Do what of a chunk is not done yet. tick: told of things as they are done."""
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

    @cached_property
    def engine(self) -> Engine:
        folder, verified = folder_at(self.job.model)
        if digest_of(folder) != self.job.digest:
            raise InputError(f"{self.job.model}: another model now than when the job began")
        engine = Engine.load(folder, precision=self.job.precision, verified=verified)
        return self.agreed(engine)

    def agreed(self, engine: Engine) -> Engine:
        """The engine, in the precision in which the whole job is computed."""
        if self.job.precision != "auto":
            return engine
        precision = settled(self.job, engine.precision)
        if precision == engine.precision:
            return engine
        return Engine.load(folder_at(self.job.model)[0], precision=precision, verified=True)

    # images that are read

    def pictures(self, chunk: Chunk, tick: Callable[[int], None]) -> Outcome:
        """Each image becomes a picture."""
        missing = self.missing(chunk.items)
        tick(len(chunk) - len(missing))
        failed: list[list[str]] = []
        with ThreadPoolExecutor(CODERS) as coders:
            computed = self.computed(missing, coders)
            for end in ahead(self.written, computed, coders, BEHIND):
                failed += (
                    [[self.job.what(end.item), end.reason]] if isinstance(end, Failure) else []
                )
                tick(1)
        return self.outcome(chunk, failed)

    def told(self, chunk: Chunk, tick: Callable[[int], None]) -> Outcome:
        """What is told of images becomes lines of one file; those that are there already stay."""
        there, lines = self.lines_of(chunk.key)
        what = self.job.what
        missing = [item for item in chunk.items if what(item) not in lines]
        tick(len(chunk) - len(missing))
        failed: list[list[str]] = []
        with ThreadPoolExecutor(CODERS) as coders:
            for end in self.computed(missing, coders):
                if isinstance(end, Failure):
                    failed.append([what(end.item), end.reason])
                    lines[what(end.item)] = {"error": end.reason}
                else:
                    lines[what(end.item)] = told_of(end.plan.result(), self.operation.name)
                tick(1)
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

    def computed(
        self, items: Iterable[Item], coders: ThreadPoolExecutor
    ) -> Iterator[Ready | Failure]:
        """Images read and computed; where a pass fails, each of it is tried alone."""
        waiting: dict[int, Ready] = {}
        failed: list[Failure] = []
        self.engine  # noqa: B018 - loaded here, not by two coders at once

        def plans() -> Iterator[Plan]:
            for end in ahead(self.read, items, coders):
                if isinstance(end, Failure):
                    failed.append(end)
                else:
                    waiting[id(end.plan)] = end
                    yield end.plan

        stream, name = plans(), self.operation.name
        while True:
            try:
                for plan in self.engine.run(name, stream):
                    yield waiting.pop(id(plan))
            except (RuntimeError, MemoryError):
                for ready in list(waiting.values()):
                    yield self.alone(ready)
                waiting.clear()
                continue
            yield from failed
            return

    def alone(self, ready: Ready) -> Ready | Failure:
        """An image computed with no other."""
        try:
            list(self.engine.run(self.operation.name, [ready.plan]))
        except (RuntimeError, MemoryError) as error:
            return Failure(ready.item, in_a_line(error))
        return ready

    def read(self, item: Item) -> Ready | Failure:
        try:
            data = self.bytes_of(item)
            pixels = images.decode(data, keep_alpha=True, animated=False)
            plan = self.engine.plan(self.operation, image=pixels, **self.beside(item))
        except images.BrokenImage as error:
            return Failure(item, error.reason)
        except InputError as error:
            return Failure(item, str(error))
        except (RuntimeError, MemoryError) as error:
            return Failure(item, in_a_line(error))
        except (FileNotFoundError, NotFound):
            return Failure(item, "no such file any more")
        except OSError as error:
            return Failure(item, error.strerror or str(error))
        return Ready(item, plan, images.profile(data))

    def bytes_of(self, item: Item) -> bytes:
        source, name = item
        return bytes_at(self.job.sources[source].place, name)

    def beside(self, item: Item) -> dict[str, np.ndarray]:
        """What it brings to its plan beside itself."""
        return {name: self.going_with(item, name) for name in self.job.beside}

    def going_with(self, item: Item, name: str) -> np.ndarray:
        place = self.job.beside[name]
        single = Path(place).suffix.lower() in images.READABLE_SUFFIXES
        try:
            data = bytes_at(*split(place)) if single else bytes_at(place, key_of(item))
            return images.decode(data, keep_alpha=True, animated=False)
        except (FileNotFoundError, NotFound):
            raise InputError(f"{name}: there is no {place if single else key_of(item)}") from None
        except images.BrokenImage as error:
            raise InputError(f"{name}: {error.reason}") from None

    def written(self, end: Ready | Failure) -> Ready | Failure:
        """A picture encoded and written."""
        if isinstance(end, Failure):
            return end
        try:
            made: Pictures | Values = end.plan.result()
            key = self.job.picture(end.item)
            format = images.format_of(Path(key))
            quality = self.job.save_quality if format in ("jpeg", "webp") else None
            data = images.encode(made.only(), format, quality, end.profile)
        except (InputError, RuntimeError, MemoryError) as error:
            return Failure(end.item, in_a_line(error))
        self.output.write(key, data)
        return end

    # images that are drawn

    def drawn(self, chunk: Chunk, tick: Callable[[int], None]) -> Outcome:
        """Each image that is drawn becomes a file."""
        key = self.job.key
        missing = {n for n in range(chunk.start, chunk.stop) if not self.is_done(key(n))}
        tick(len(chunk) - len(missing))

        def write(made: Image) -> None:
            if made.number in missing:
                self.output.write(key(made.number), images.encode(made.pixels))

        with ThreadPoolExecutor(CODERS) as coders:
            for _ in ahead(write, self.made(sorted(missing)), coders):
                tick(1)
        return self.outcome(chunk, [])

    def shard(self, chunk: Chunk, tick: Callable[[int], None]) -> Outcome:
        """The images that are drawn become rows of a shard, those of one class each with labels."""
        if self.is_done(chunk.key):
            tick(len(chunk))
            return self.outcome(chunk, [])
        classes = self.classes()

        def encoded(made: Image) -> dict[str, Any]:
            row = {"name": self.job.name(made.number), "image": images.encode(made.pixels)}
            return row | ({"label": classes.index(made.label)} if classes else {})

        def rows() -> Iterator[dict[str, Any]]:
            with ThreadPoolExecutor(CODERS) as coders:
                for row in ahead(encoded, self.made(range(chunk.start, chunk.stop)), coders):
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
        classes = self.engine.abilities[self.operation.name].classes
        label = getattr(self.operation, "label", None)
        of_one = label in classes if label else isinstance(self.operation, Drawing)
        return classes if of_one else ()

    def made(self, numbers: Iterable[int]) -> Iterator[Image]:
        """Images, drawn some passes' worth at once."""
        for start, stop in runs(numbers, self.engine.inference.at_once):
            operation: Operation = self.operation
            inputs: dict[str, Any] = {}
            if isinstance(operation, Drawing):
                update = {"seed": operation.seed + start, "n": stop - start}
                operation = operation.model_copy(update=update)
            else:
                inputs["latents"] = latents_in(self.job.sources[0].place)[start:stop]
            made: Pictures = self.engine(operation, **inputs)
            labels = made.labels or ("",) * len(made.images)
            for number, (pixels, label) in enumerate(zip(made.images, labels, strict=True), start):
                yield Image(number, pixels, label)

    def is_done(self, key: str) -> bool:
        """Whether a result is there that this job has made."""
        found = self.output.find(key)
        return found is not None and found.modified >= self.job.since


def told_of(made: Any, name: str) -> dict[str, Any]:
    """What was told of one image by an operation of a name, as JSON has it."""
    if not isinstance(made, Latents):
        return {name: made.values[0]}
    return {name: made.array[0].tolist()} | ({"psnr": made.psnr[0]} if made.psnr else {})


def in_a_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def bytes_at(place: str, name: str) -> bytes:
    return storage_at(place).read(name)[0] if is_remote(place) else Path(place, name).read_bytes()


@lru_cache(maxsize=8)
def storage_at(place: str) -> Storage:
    return open_storage(place)
