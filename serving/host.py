"""One served reference: its engine, the batches, and the swap to a newer version."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from cluster.places import open_storage
from cluster.registry import Registry
from cluster.versions import Version, parse_reference
from genimg.engine import Engine
from genimg.errors import InputError
from genimg.images import Format
from serving.backend import cannot
from serving.batching import Batcher
from serving.errors import of_input
from serving.metrics import Meters
from serving.requests import Answer, ModelInfo, Rejected, Request, Timings
from serving.settings import Limits, ModelSettings
from serving.tasks import task_of
from serving.watcher import Watcher, target_of

logger = logging.getLogger(__name__)
T = TypeVar("T")

_CODERS = 2  # threads that decode and encode; the libraries let other threads run meanwhile


@dataclass(frozen=True)
class _Served:
    version: Version
    engine: Engine


@dataclass(frozen=True)
class _Work:
    """A request on its way, with the engine that it will end on."""

    request: Request
    served: _Served
    submitted: float  # time.perf_counter()
    pixels: np.ndarray | None = None


@dataclass(frozen=True)
class _Made:
    images: np.ndarray  # [N, H, W, C]
    queue: float  # ms
    compute: float  # ms
    format: Format = "png"
    files: tuple[bytes, ...] = ()  # encoded, once that is done
    encode: float = 0.0  # ms


class Host:
    """Answers requests to one reference (`NAME`, `NAME@ALIAS`, `NAME@7`) out of a registry.

    The constructor loads and warms up, which takes seconds, and raises RegistryError, StorageError
    or InputError where that cannot be done. Afterwards the reference is watched: a version that it
    comes to name is loaded in the background and takes over between two requests. One that cannot
    be is refused, and the old one goes on.
    """

    def __init__(
        self,
        settings: ModelSettings,
        registry: str = "registry",
        limits: Limits | None = None,
        poll_s: float = 2.0,
        meters: Meters | None = None,
        device: str | None = None,
        cache: Path | None = None,
    ) -> None:
        """device: as for Engine.load; cache: where versions of a far registry are kept."""
        self.settings = settings
        self.limits = limits or Limits()
        self.device = device
        self.cache = cache
        self._registry = Registry(open_storage(registry))
        self._rejected: Rejected | None = None
        self._info: tuple[tuple[_Served, Rejected | None], ModelInfo] | None = None
        name = parse_reference(settings.ref)[0]
        first = self._registry.get(name, target_of(self._registry, settings.ref).number)
        self._served = self._loaded(first)
        self._coders = ThreadPoolExecutor(_CODERS, f"coder {settings.ref}")
        self._meters = (meters or Meters()).for_model(settings.ref)
        self._meters.version.set(first.number)
        self._batcher = Batcher[_Work, _Made](
            _computed,
            settings.max_batch_size,
            settings.max_queue,
            f"engine {settings.ref}",
            self._meters.batch.observe,
            _encoded,
            self._coders,
        )
        self._meters.queue.set_function(lambda: self._batcher.waiting)
        self._watcher = Watcher(
            self._registry,
            settings.ref,
            poll_s,
            serving=lambda: self._served.version.number,
            swap=self._swap,
            settled=self._settled,
            refused=self._refused,
            unreachable=self._meters.unreachable.inc,
        )
        self._watcher.start()

    async def call(self, request: Request) -> Answer:
        """The answer to a request, or ApiError. Cancelled, what has not started is dropped."""
        served = self._served
        task = task_of(request)
        if request.capability not in served.engine.capabilities:
            raise cannot(self.info(), request.capability)
        task.check(request, served.engine, self.limits)
        work = _Work(request, served, time.perf_counter())
        if task.decodes:
            rows = await self._coded(lambda: task.rows(request, self.limits))
        else:
            rows = task.rows(request, self.limits)

        async def decoded(work: _Work) -> _Work:
            pixels = await self._coded(lambda: task.decode(request, self.limits))
            return replace(work, pixels=pixels, submitted=time.perf_counter())

        try:
            made = await self._batcher.submit(
                work,
                rows,
                (served.version.number, task.key(request)),
                decoded if task.decodes else None,
            )
        except InputError as error:
            raise of_input(error) from None
        height, width = made.images.shape[1:3]
        return Answer(
            images=made.files,
            format=made.format,
            size=f"{width}x{height}",
            seeds=request.seeds,
            model=self.settings.ref,
            version=served.version.number,
            timings=Timings(made.queue, made.compute, made.encode),
            precision=served.engine.precision,
        )

    def info(self) -> ModelInfo:
        """What is served now; made anew only where that changes, for every request asks."""
        of = (self._served, self._rejected)
        if self._info is None or self._info[0] != of:
            self._info = of, self._described()
        return self._info[1]

    def _described(self) -> ModelInfo:
        version, engine = self._served.version, self._served.engine
        return ModelInfo(
            id=self.settings.ref,
            name=version.name,
            state="ready",
            version=version.number,
            capabilities=engine.capabilities,
            recipe=engine.recipe.recipe,
            size=engine.recipe.data.size,
            channels=engine.recipe.data.channels,
            precision=engine.precision,
            metrics=version.metrics,
            created=version.created,
            rejected=self._rejected,
        )

    async def check_health(self) -> None:
        """Raise where nothing will be computed any more: by no thread, or on a broken device."""
        if not self._batcher.alive:
            raise RuntimeError(f"{self.settings.ref}: its engine's thread has ended")
        device = self._served.engine.device
        await asyncio.to_thread(lambda: torch.zeros(1, device=device).item())

    def close(self) -> None:
        """Stop watching and computing; requests that wait fail with 503."""
        self._watcher.close()
        self._batcher.close()
        self._coders.shutdown()

    async def _coded(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._coders, function)

    def _loaded(self, version: Version) -> _Served:
        folder = self._registry.fetch(version, self.cache)
        engine = Engine.load(folder, self.device, self.settings.precision, verified=True)
        warm_up(engine, self.settings.max_batch_size)
        return _Served(version, engine)

    def _swap(self, version: Version) -> None:
        """Serve another version. Raises where it cannot; the old one then goes on."""
        new, old = self._loaded(version), self._served
        lost = [each for each in old.engine.capabilities if each not in new.engine.capabilities]
        if lost:
            raise InputError(f"it cannot {', '.join(lost)}, as version {old.version.number} can")
        self._served = new  # who came before holds the old engine until answered
        self._settled()
        self._meters.version.set(version.number)
        self._meters.swaps.inc()
        logger.info(
            "%s: version %d follows %d", self.settings.ref, version.number, old.version.number
        )

    def _settled(self) -> None:
        self._rejected = None

    def _refused(self, number: int, reason: str) -> None:
        self._rejected = Rejected(number, reason)
        self._meters.refused.inc()


def warm_up(engine: Engine, max_batch: int) -> None:
    """Run an engine at the batch sizes 1 and `max_batch`. Raises InputError where it is no use."""
    for name, network in engine.networks.items():
        if not all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
            raise InputError(f"the {name} has weights that are no finite numbers")
    data = engine.recipe.data
    shape = (data.size, data.size, data.channels)
    if "sample" in engine.capabilities:
        for rows in (1, max_batch):
            made = engine.sample_seeds(np.arange(rows))
            if made.shape != (rows, *shape):
                raise InputError(f"{rows} samples have the shape {list(made.shape)}")
    if "restore" in engine.capabilities:  # which takes images one by one
        noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        if engine.restore(noise, sigma=25.0).shape != shape:
            raise InputError("a restored image has not the shape of the given one")


def _computed(works: list[_Work]) -> list[_Made]:
    """A batch on its engine; all its items have the same one, and are of one kind."""
    began = time.perf_counter()
    requests = [work.request for work in works]
    pixels = [work.pixels for work in works]
    made = task_of(requests[0]).compute(works[0].served.engine, requests, pixels)
    compute = 1000 * (time.perf_counter() - began)
    return [
        _Made(images, queue=1000 * (began - work.submitted), compute=compute)
        for work, images in zip(works, made, strict=True)
    ]


def _encoded(work: _Work, made: _Made) -> _Made:
    """With the files that its images become."""
    began = time.perf_counter()
    format, files = task_of(work.request).encode(work.request, made.images)
    encode = 1000 * (time.perf_counter() - began)
    return replace(made, format=format, files=files, encode=encode)
