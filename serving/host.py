"""One served reference: its engine, the batches, and the swap to a newer version."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from cluster.fallback import over
from cluster.registry import Registry
from cluster.versions import Version, parse_reference
from genimg import bundled
from genimg.errors import InputError
from serving.about import described, notes_of
from serving.errors import ApiError, cannot, of_input
from serving.metrics import Meters
from serving.model_settings import ModelSettings
from serving.openmp import alone, let_threads_go
from serving.partials import watched
from serving.passes import FULL, Passes, Tell, closed
from serving.requests import Answer, ModelInfo, Rejected, Request, Show
from serving.settings import Limits
from serving.warming import Served, give_back_memory, load
from serving.watcher import Watcher, target_of
from serving.work import Made, Work, check, compute, finish, planned, weight

logger = logging.getLogger(__name__)
T = TypeVar("T")

SMALL = 1  # megapixels begun up to which a request is not large
_WAIT_S = 0.005  # between two looks whether a pass may begin
_FIRST_S = 3.0  # in which others are loaded
_LOOK_S = 0.1  # between two looks whether it is closed
_SETTLING, _SWAPPING = threading.Lock(), threading.Lock()  # held by one host after the other
_CODERS = 2  # threads that decode and encode; the libraries let other threads run meanwhile


class Host:
    """Answers requests to one reference (`NAME`, `NAME@ALIAS`, `NAME@7`) out of a registry, or of
    the models that are bundled.

    The constructor loads and warms up, which takes seconds, and raises RegistryError, StorageError
    or InputError where that cannot be done. Afterwards `look` finds a version that the reference
    comes to name, which is loaded in the background and takes over between two requests. One that
    cannot be is refused, and the old one goes on.
    """

    def __init__(
        self,
        settings: ModelSettings,
        registry: str | Registry = "registry",
        limits: Limits | None = None,
        poll_s: float = 2.0,
        meters: Meters | None = None,
        device: str | None = None,
        cache: Path | None = None,
        first: Version | None = None,
        refuse: Callable[[int], None] = lambda size: None,
        label: str = "",
        waits: Callable[[], bool] = lambda: False,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """registry: its address, or one over the models that are bundled (cluster.fallback).
        poll_s: pause before a version that was refused is tried again.
        device: as for Engine.load; cache: where versions of a far registry are kept.

        first: to begin with, whatever the reference names
        refuse: raises InputError where the weights of a version take too many bytes
        label: what its meters and threads are called; without one as the reference
        waits: whether no pass is to begin now
        changed: told that `info` is another
        """
        self.settings = settings
        self.limits = limits or Limits()
        self.device = device
        self.cache = cache
        self.refuse = refuse
        self.label = label or settings.ref
        self._waits, self._changed = waits, changed
        self._closing = threading.Event()
        self._registry = over(registry, bundled.FOLDER) if isinstance(registry, str) else registry
        self._rejected: Rejected | None = None
        self._info: tuple[tuple[Served, Rejected | None], ModelInfo] | None = None
        if first is None:
            number = target_of(self._registry, settings.ref).number
            first = self._registry.get(parse_reference(settings.ref)[0], number)
        self._served: Served | None = self._made(first, self._fetched(first))
        self._coders = ThreadPoolExecutor(_CODERS, f"coder {self.label}")
        # whose images take seconds to decode, with which no small one is to wait
        self._large_coders = ThreadPoolExecutor(1, f"large coder {self.label}")
        self._meters = (meters or Meters()).for_model(self.label)
        self._small, self._large = (
            Passes[Work, Made](
                self._compute, alone(finish), coders, settings.max_queue,
                f"{kind} {self.label}", self._meters.batch.observe, let_threads_go,
            )
            for kind, coders in (
                ("engine", self._coders), ("large works of", self._large_coders)
            )
        )  # fmt: skip
        self.show()
        self._meters.loads.inc()
        self._watcher = Watcher(
            self._registry,
            settings.ref,
            poll_s,
            serving=lambda: self.served.version,
            swap=self._swap,
            settled=self._settled,
            refused=self.refused,
            unreachable=self._meters.unreachable.inc,
        )
        self._settling = threading.Thread(
            target=self._settle, name=f"settle {self.label}", daemon=True
        )
        self._settling.start()

    async def call(
        self, request: Request, tell: Tell | None = None, show: Show | None = None
    ) -> Answer:
        """The answer to a request, or ApiError. Cancelled, it is computed no further."""
        served, limits = self.served, self.limits
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
            notes=notes_of(request.operation, engine, made),
            plain_psnr=made.plain_psnr,
            pixels=made.pixels,
        )

    @property
    def served(self) -> Served:
        """What is served now. Raises ApiError once this is closed."""
        if self._served is None:
            raise closed()
        return self._served

    @property
    def version(self) -> Version:
        return self.served.version

    @property
    def bytes(self) -> int:
        """Of the weights in memory; none once this is closed."""
        served = self._served
        return served.bytes if served else 0

    def info(self) -> ModelInfo:
        """What is served now; made anew only where that changes, for every request asks."""
        of = (self.served, self._rejected)
        if self._info is None or self._info[0] != of:
            served, engine = of[0], of[0].engine
            info = described(
                self.settings.ref, served.version, engine.recipe, engine.abilities,
                engine.precision, served.bytes, served.gist,
            )  # fmt: skip
            self._info = of, replace(info, rejected=self._rejected)
        return self._info[1]

    def show(self) -> None:
        """Have the meters show its state, and not that of another host of the same reference."""
        self._meters.show()
        self._meters.version.set(self.served.version.number)
        self._meters.bytes.set(self.served.bytes)
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
        device = self.served.engine.device
        if device.type != "cpu":
            await asyncio.to_thread(lambda: torch.zeros(1, device=device).item())

    def look(self) -> None:
        """Look where the reference points; to be called now and then, in one thread."""
        self._watcher.look()

    def close(self) -> None:
        """Stop watching and computing, and give the memory back; requests that wait fail with 503,
        as do those that come."""
        self._closing.set()
        self._watcher.close()
        self._settling.join()
        self._small.close()
        self._large.close()
        self._coders.shutdown()
        self._large_coders.shutdown()
        self._served = self._info = None
        give_back_memory()

    @property
    def megapixels(self) -> float:
        """That are still to be computed for those who have asked, given or made."""
        held = self._small.held() + self._large.held()
        return sum(share * pixels(weight, work) for share, weight, work in held) / 1e6

    def _pixels_waiting(self) -> int:
        return sum(pixels(*each) for each in self._small.pending() + self._large.pending())

    async def _coded(self, function: Callable[[], T], coders: Executor) -> T:
        return await asyncio.get_running_loop().run_in_executor(coders, alone(function))

    def _compute(self, parts: list[tuple[Work, int, int]]) -> None:
        while self._waits() and not self._closing.is_set():
            time.sleep(_WAIT_S)
        compute(parts)

    def _fetched(self, version: Version) -> Path:
        return self._registry.fetch(version, self.cache)

    def _made(self, version: Version, folder: Path) -> Served:
        return alone(load)(version, folder, self.settings, self.device, self.refuse)

    def _settle(self) -> None:
        """What may come after the first requests, of one host after the other; until then one may
        wait while a size of passes is tried."""
        if self._closing.wait(_FIRST_S):
            return
        with suppress(ApiError), self._in_turn(_SETTLING):
            self.served.engine.settle(lambda: not self._closing.is_set())

    @contextmanager
    def _in_turn(self, lock: threading.Lock) -> Iterator[None]:
        """Hold a lock. Raises ApiError where this is closed before it is had."""
        while not lock.acquire(timeout=_LOOK_S):
            if self._closing.is_set():
                raise closed()
        try:
            yield
        finally:
            lock.release()

    def _swap(self, version: Version) -> None:
        """Serve another version. Raises where it cannot; the old one then goes on.

        Of many hosts at once each fetches its own, and then one after the other has two in memory.
        """
        folder = self._fetched(version)
        with self._in_turn(_SWAPPING):
            self._take_over(self._made(version, folder))

    def _take_over(self, new: Served) -> None:
        version, old = new.version, self.served
        alone(new.engine.settle)()
        lost = [each for each in old.engine.abilities if each not in new.engine.abilities]
        if lost:
            raise InputError(f"it cannot {', '.join(lost)}, as version {old.version.number} can")
        self._served = new  # who came before holds the old engine until answered
        self._rejected = None
        self._changed()
        self._meters.version.set(version.number)
        self._meters.bytes.set(new.bytes)
        self._meters.swaps.inc()
        logger.info(
            "%s: version %d follows %d", self.settings.ref, version.number, old.version.number
        )

    def _settled(self) -> None:
        if self._rejected:
            self._rejected = None
            self._changed()

    def refused(self, number: int, reason: str) -> None:
        """A version that should be served cannot be."""
        self._rejected = Rejected(number, reason)
        self._changed()
        self._meters.refused.inc()


def pixels(weight: int, work: Work | None) -> int:
    """Of a work; of one that is being decoded only the megapixels are known yet."""
    return work.pixels if work else weight * 1_000_000
