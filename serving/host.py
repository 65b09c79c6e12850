"""One served reference: its engine, the batches, and the swap to a newer version."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from cluster.fallback import over
from cluster.versions import Version, parse_reference
from genimg import bundled
from genimg.engine import Engine
from genimg.errors import InputError
from genimg.operations import OPERATIONS, Kind
from serving.backend import cannot
from serving.errors import ApiError, of_input
from serving.metrics import Meters
from serving.partials import watched
from serving.passes import FULL, Passes, Tell
from serving.requests import Answer, ModelInfo, Rejected, Request, Show
from serving.settings import Limits, ModelSettings
from serving.watcher import Watcher, target_of
from serving.work import Made, Work, check, compute, finish, planned, weight

logger = logging.getLogger(__name__)
T = TypeVar("T")

SMALL = 1  # megapixels begun up to which a request is not large
WORDS = 200  # of a vocabulary that are told
_CODERS = 2  # threads that decode and encode; the libraries let other threads run meanwhile


@dataclass(frozen=True)
class _Served:
    version: Version
    engine: Engine


class Host:
    """Answers requests to one reference (`NAME`, `NAME@ALIAS`, `NAME@7`) out of a registry, or of
    the models that are bundled.

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
        self._registry = over(registry, bundled.FOLDER)
        self._rejected: Rejected | None = None
        self._info: tuple[tuple[_Served, Rejected | None], ModelInfo] | None = None
        name = parse_reference(settings.ref)[0]
        first = self._registry.get(name, target_of(self._registry, settings.ref).number)
        self._served = self._loaded(first)
        self._coders = ThreadPoolExecutor(_CODERS, f"coder {settings.ref}")
        # whose images take seconds to decode, with which no small one is to wait
        self._large_coders = ThreadPoolExecutor(1, f"large coder {settings.ref}")
        self._meters = (meters or Meters()).for_model(settings.ref)
        self._small, self._large = (
            Passes[Work, Made](
                compute, finish, coders, settings.max_queue,
                f"{kind} {settings.ref}", self._meters.batch.observe,
            )
            for kind, coders in (
                ("engine", self._coders), ("large works of", self._large_coders)
            )
        )  # fmt: skip
        self.show()
        self._watcher = Watcher(
            self._registry,
            settings.ref,
            poll_s,
            serving=lambda: self._served.version,
            swap=self._swap,
            settled=self._settled,
            refused=self._refused,
            unreachable=self._meters.unreachable.inc,
        )
        self._watcher.start()

    async def call(
        self, request: Request, tell: Tell | None = None, show: Show | None = None
    ) -> Answer:
        """The answer to a request, or ApiError. Cancelled, it is computed no further."""
        served, limits = self._served, self.limits
        engine, version = served.engine, served.version.number
        owner = request.caller.name
        if request.operation.name not in engine.abilities:
            raise cannot(self.info(), request.operation.name)
        check(request, engine, limits)

        def plan() -> Work:
            return planned(request, engine, limits, self.settings.max_batch_size)

        try:
            if not request.files:
                made = await self._small.submit(plan, weight(request, limits), owner, tell)
            else:
                load = await self._coded(lambda: weight(request, limits), self._coders)
                small = load <= SMALL
                passes = self._small if small else self._large
                coders = self._coders if small else self._large_coders

                def plan_shown() -> Work:
                    partials = request.output.partials
                    return watched(plan(), partials, show, coders) if show and partials else plan()

                made = await passes.submit(
                    lambda: self._coded(plan_shown, coders), load, owner, tell
                )
        except InputError as error:
            raise of_input(error, type(request.operation)) from None
        except ApiError as error:
            if error.code == FULL:
                self._meters.full.inc()
            raise
        self._meters.observe(made.timings)
        return Answer(
            images=made.files,
            format=made.format,
            size=made.size,
            seeds=made.seeds,
            model=self.settings.ref,
            version=version,
            timings=made.timings,
            precision=engine.precision,
            values=made.values,
            labels=made.labels,
            psnr=made.psnr,
            pixels=made.pixels,
        )

    def info(self) -> ModelInfo:
        """What is served now; made anew only where that changes, for every request asks."""
        of = (self._served, self._rejected)
        if self._info is None or self._info[0] != of:
            self._info = of, self._described()
        return self._info[1]

    def _described(self) -> ModelInfo:
        version, engine = self._served.version, self._served.engine
        abilities = engine.abilities.values()
        return ModelInfo(
            id=self.settings.ref,
            name=version.name,
            state="ready",
            version=version.number,
            capabilities=tuple(engine.abilities),
            honours={
                name: tuple(sorted(ability.conditions & OPERATIONS[name].conditions))
                for name, ability in engine.abilities.items()
            },
            recipe=engine.recipe.recipe,
            size=engine.recipe.data.size,
            channels=engine.recipe.data.channels,
            scale=max(each.scale for each in abilities),
            steps=max(each.steps for each in abilities),
            classes=next((each.classes for each in abilities if each.classes), ()),
            words=next((each.vocabulary for each in abilities if each.vocabulary), ())[:WORDS],
            grammar=next((each.grammar for each in abilities if each.grammar), None),
            directions=tuple(dict.fromkeys(chain(*(each.directions for each in abilities)))),
            precision=engine.precision,
            metrics=version.metrics,
            created=version.created,
            rejected=self._rejected,
        )

    def show(self) -> None:
        """Have the meters show its state, and not that of another host of the same reference."""
        self._meters.version.set(self._served.version.number)
        self._meters.queue.set_function(lambda: self._small.waiting + self._large.waiting)
        self._meters.pixels.set_function(self._pixels_waiting)

    @property
    def alive(self) -> bool:
        """Whether requests are still computed."""
        return self._small.alive and self._large.alive

    async def check_health(self) -> None:
        """Raise where nothing will be computed any more: by no thread, or on a broken device."""
        if not self.alive:
            raise RuntimeError(f"{self.settings.ref}: its engine's thread has ended")
        device = self._served.engine.device
        await asyncio.to_thread(lambda: torch.zeros(1, device=device).item())

    def settle(self, alive: Callable[[], bool] = lambda: True) -> None:
        """As of the engine. Until that is done, a request may wait while a size is tried."""
        self._served.engine.settle(alive)

    def close(self) -> None:
        """Stop watching and computing; requests that wait fail with 503."""
        self._watcher.close()
        self._small.close()
        self._large.close()
        self._coders.shutdown()
        self._large_coders.shutdown()

    @property
    def megapixels(self) -> float:
        """That are still to be computed for those who have asked, given or made."""
        held = self._small.held() + self._large.held()
        return sum(share * pixels(weight, work) for share, weight, work in held) / 1e6

    def _pixels_waiting(self) -> int:
        return sum(pixels(*each) for each in self._small.pending() + self._large.pending())

    async def _coded(self, function: Callable[[], T], coders: Executor) -> T:
        return await asyncio.get_running_loop().run_in_executor(coders, function)

    def _loaded(self, version: Version) -> _Served:
        folder = self._registry.fetch(version, self.cache)
        engine = Engine.load(folder, self.device, self.settings.precision, verified=True)
        warm_up(engine, self.settings.max_batch_size)
        return _Served(version, engine)

    def _swap(self, version: Version) -> None:
        """Serve another version. Raises where it cannot; the old one then goes on."""
        new, old = self._loaded(version), self._served
        new.engine.settle()
        lost = [each for each in old.engine.abilities if each not in new.engine.abilities]
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


def pixels(weight: int, work: Work | None) -> int:
    """Of a work; of one that is being decoded only the megapixels are known yet."""
    return work.pixels if work else weight * 1_000_000


def warm_up(engine: Engine, max_batch: int) -> None:
    """Run an engine at the batch sizes 1 and `max_batch`.

    Raises InputError where it is no use.
    """
    for name, network in engine.networks.items():
        if not all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
            raise InputError(f"the {name} has weights that are no finite numbers")
    engine.share()
    engine = engine.hasty()
    data = engine.recipe.data
    noise = np.random.default_rng(0).integers(
        0, 256, (data.size, data.size, data.channels), np.uint8
    )
    left_half = np.zeros((data.size, data.size, 1), np.uint8)
    left_half[:, : data.size // 2] = 255
    for name, ability in engine.abilities.items():
        operation = OPERATIONS[name]
        if operation.gives is Kind.PICTURES and not operation.takes:
            for rows in (1, max_batch):
                made = engine(operation.validated({"n": rows, "seed": 0})).images
                if made.shape != (rows, *noise.shape):
                    raise InputError(f"{rows} samples have the shape {list(made.shape)}")
        elif operation.takes.get("image") is Kind.PICTURE and "image" in ability.takes:
            beside: dict[str, Any] = {
                key: left_half if operation.takes[key] is Kind.MASK else noise
                for key in operation.beside
            }
            quickly = {"quality": 50, "starts": 1, "iterations": 1}
            told = {key: value for key, value in quickly.items() if key in ability.conditions}
            made = engine(operation.validated(told), image=noise, **beside)
            sides = tuple(ability.scale * side for side in noise.shape[:2])
            if operation.gives is Kind.PICTURE and made.images.shape[1:3] != sides:
                raise InputError(f"the result of {name} has not the shape of the given image")
        elif operation.takes.get("image") is Kind.FRAMES:
            engine(operation.validated({"frames": 1}), image=noise[None])
