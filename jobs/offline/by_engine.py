"""Results that an engine of this process makes, of images read and decoded beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from genimg import images
from genimg.contracts import Plan
from genimg.engine import Engine
from genimg.errors import InputError
from genimg.operations import Operation
from genimg.operations.drawing import Drawing
from genimg.results import Latents, Pictures, Values
from jobs.offline.inputs import files_of, latents_in
from jobs.offline.job import Item, Job
from jobs.offline.making import Failure, Image, in_a_line
from jobs.offline.record import settled
from jobs.offline.streams import ahead, runs
from jobs.runs.addressed import digest_of, folder_at


@dataclass(frozen=True)
class Ready:
    """An image that was read, and its plan."""

    job: Job
    item: Item
    plan: Plan
    profile: bytes | None

    def picture(self, key: str) -> bytes:
        made: Pictures | Values = self.plan.result()
        format = images.format_of(Path(key))
        quality = self.job.save_quality if format in ("jpeg", "webp") else None
        return images.encode(made.only(), format, quality, self.profile)

    def told(self) -> dict[str, Any]:
        made, name = self.plan.result(), self.job.operation
        if not isinstance(made, Latents):
            return {name: made.values[0]}
        found = {name: made.array[0].tolist()}
        if not made.psnr:
            return found
        return found | {"psnr": made.psnr[0], "plain_psnr": made.plain_psnr[0]}


class ByEngine:
    """Makes what a job wants (see Maker); the model is loaded when it is first needed."""

    def __init__(self, job: Job, engine: Engine | None = None) -> None:
        """engine: that of the job's model, where this process has it already."""
        self.job = job
        self.operation = job.asked
        if engine is not None:
            self.engine = self.agreed(engine)

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
        precision = settled(self.job, precision=engine.precision).precision
        if precision == engine.precision:
            return engine
        return Engine.load(folder_at(self.job.model)[0], precision=precision, verified=True)

    def of_items(
        self, items: Sequence[Item], coders: ThreadPoolExecutor
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
            files = files_of(self.job, item)
            inputs = {name: decoded(name, data) for name, data in files.items()}
            plan = self.engine.plan(self.operation, **inputs)
        except InputError as error:
            return Failure(item, str(error))
        except (RuntimeError, MemoryError) as error:
            return Failure(item, in_a_line(error))
        return Ready(self.job, item, plan, images.profile(files["image"]))

    def classes(self) -> tuple[str, ...]:
        return self.engine.abilities[self.operation.name].classes

    def of_numbers(self, numbers: Iterable[int]) -> Iterator[Image]:
        """Some passes' worth at once."""
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


def decoded(name: str, data: bytes) -> np.ndarray:
    """What an image brings. Raises InputError, naming what goes with the image itself."""
    try:
        return images.decode(data, keep_alpha=True, animated=False)
    except images.BrokenImage as error:
        told = error.reason if name == "image" else f"{name}: {error.reason}"
        raise InputError(told) from None
