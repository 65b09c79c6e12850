"""The models of a process: those in memory, and those that are loaded once they are asked for."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from cluster.fallback import over
from cluster.registry import Registry
from cluster.storage import StorageError
from cluster.versions import Version
from genimg import bundled
from genimg.errors import InputError
from serving.errors import ApiError, model_broken, model_gone
from serving.host import Host
from serving.metrics import Meters
from serving.model_settings import ModelSettings
from serving.passes import closed
from serving.requests import ModelInfo
from serving.room import Room, refuse_too_much
from serving.settings import Settings
from serving.slots import SHADOW, Load, Refusal, Slot
from serving.watcher import target_of

logger = logging.getLogger(__name__)

_FETCHED = 4  # models at a time


class Shelf:
    """Hosts by their references: each loaded at the start, or (not resident) once it is asked for.

    One thread loads, a model at a time, after others have made room. What is far is fetched before,
    several at a time, so that nobody waits for what another one fetches.
    """

    def __init__(self, settings: Settings, meters: Meters, device: str | None = None) -> None:
        """device: as for Engine.load."""
        self.settings = settings
        self.meters = meters
        self.device = device
        self.room = Room(meters)
        self.changing = threading.Lock()  # of which models there are, once at a time
        self._begun = False
        self._loader = ThreadPoolExecutor(1, "loader")
        self._fetchers = ThreadPoolExecutor(_FETCHED, "fetcher")
        self._registry: Registry | None = None

    @property
    def registry(self) -> Registry:
        if self._registry is None:
            self._registry = over(self.settings.registry, bundled.FOLDER)
        return self._registry

    def change(self, settings: Settings) -> None:
        """Have the models of some settings: load what is resident, look at the rest. Takes seconds.

        Where it raises, what Host does, all stays as it was. Models that leave are closed when they
        have answered; those that were found stay.
        """
        with self.changing:
            new = self._made(settings)
            with self.room.lock:
                found = {
                    ref: slot
                    for ref, slot in self.room.slots.items()
                    if slot.found and ref not in new
                }
                self.settings, self.room.memory = settings, settings.memory
                self.replace(new | found)
                for model in settings.models:
                    self.room.slots[model.ref].model = model
                for host in self.room.hosts():
                    host.limits = settings.limits
                self.room.changed()
            self._begun = True
            self.begin_besides()
            self.room.settle()

    def _made(self, settings: Settings) -> dict[str, Slot]:
        """Slots of the models that are named; what is served already goes on."""
        slots: dict[str, Slot] = {}
        begun: list[Host] = []
        try:
            for model in settings.models:
                slot = self.room.slots.get(model.ref)
                if slot is None or slot.found or slot.model.alone != model.alone:
                    slot = Slot(model)
                    if model.resident:
                        slot.host = self._host(settings, slot)
                        begun.append(slot.host)
                    else:
                        slot.look(self.registry, self.device, settings.poll_s)
                slots[model.ref] = slot
                for side, beside in model.besides().items():
                    slot = Slot(beside, of=model.ref, side=side)
                    old = self.room.slots.get(slot.key)
                    slots[slot.key] = old if old and old.model == beside else slot
            refuse_too_much(settings, slots.values())
        except BaseException:
            for host in begun:
                host.close()
            for host in self.room.hosts():
                host.show()
            raise
        return slots

    def _host(self, settings: Settings, slot: Slot, first: Version | None = None) -> Host:
        def refuse(size: int) -> None:
            before = slot.bytes if slot.side and slot.host else 0  # which goes
            fixed = self.room.fixed() - before
            made_for = slot.side or not slot.model.resident
            if made_for and (reason := self.room.too_large(size, fixed)):
                raise InputError(reason)

        return Host(
            slot.model, self.registry, settings.limits, settings.poll_s, self.meters,
            self.device, first=first, refuse=refuse, label=slot.key,
            waits=self.room.computes if slot.side == SHADOW else lambda: False,
            changed=self.room.changed,
        )  # fmt: skip

    def replace(self, slots: dict[str, Slot]) -> None:
        """Serve other models from the next request on. The lock is held."""
        gone = [slot for ref, slot in self.room.slots.items() if slots.get(ref) is not slot]
        self.room.slots = slots
        self.room.changed()
        self.room.leave(gone)

    def infos(self) -> list[ModelInfo]:
        """Of every model, in the order of the settings; then those that were found."""
        if not self._begun:
            return [ModelInfo(model.ref, model.name) for model in self.settings.models]
        return self.room.infos()

    def model(self, ref: str) -> ModelSettings | None:
        """How a model is served; None where it is not any more."""
        slot = self.room.slots.get(ref)
        return slot.model if slot else None

    def ready(self) -> bool:
        """Whether every resident model can be asked."""
        with self.room.lock:
            slots = [self.room.slots.get(model.ref) for model in self.settings.models]
        return self._begun and all(
            slot and (not slot.model.resident or (slot.host and slot.host.alive)) for slot in slots
        )

    async def take(self, ref: str) -> Host:
        """The host of a model, which stays until it is given back (`release`); loaded first, and
        waited for, where it is not in memory. Raises ApiError."""
        with self.room.lock:
            slot = self.room.slots.get(ref)
            if slot is None:
                raise model_gone(ref)
            slot.used = time.monotonic()
            if slot.host:
                self.room.busy[slot.host] += 1
                return slot.host
            load = self._waited_for(slot)
            load.waiting += 1
        loaded = asyncio.wrap_future(load.done)
        loaded.add_done_callback(lambda done: done.cancelled() or done.exception())  # it is seen
        try:
            return await asyncio.shield(loaded)
        except asyncio.CancelledError:
            with self.room.lock:
                load.waiting -= 1
                if load.done.done() and not load.done.exception():
                    self.release(load.done.result())  # it was counted as ours
            raise

    def take_beside(self, ref: str, side: str, operation: str) -> Host | None:
        """As `take`, of its canary or shadow, if that is in memory and can do an operation."""
        with self.room.lock:
            slot = self.room.slots.get(f"{ref} ({side})")
            if not (slot and slot.host and slot.host.alive and slot.host.info().can(operation)):
                return None
            self.room.busy[slot.host] += 1
            return slot.host

    def begin_besides(self) -> None:
        """Load what is beside others and not there, unless it was refused a short while ago."""
        with self.room.lock:
            for slot in self.room.slots.values():
                refused = slot.refusal and slot.refusal.holds
                if slot.side and not (slot.host or slot.load or refused):
                    self._begin(slot)

    def release(self, host: Host) -> None:
        """A host that was taken is not needed any more."""
        with self.room.lock:
            self.room.busy[host] -= 1
            if not self.room.busy[host]:
                del self.room.busy[host]

    def _waited_for(self, slot: Slot) -> Load:
        """The load of a model that is not in memory, begun once for all. The lock is held."""
        ref = slot.model.ref
        if slot.refusal and slot.refusal.holds:
            raise model_broken(ref, slot.refusal.reason, slot.refusal.pause)
        if reason := self.room.too_large(slot.bytes):
            raise model_broken(ref, reason)
        return slot.load or self._begin(slot)

    def _begin(self, slot: Slot) -> Load:
        """The load of a model. The lock is held."""
        slot.load = load = Load()
        far = self.registry.storage.local_path("models") is None
        begin = (self._fetchers, self._fetch) if far else (self._loader, self._load)
        begin[0].submit(begin[1], slot, load)
        return load

    def _fetch(self, slot: Slot, load: Load) -> None:
        """In a fetcher's thread."""
        with self.room.lock:
            wanted = (load.waiting or slot.side) and not self.room.closed.is_set()
        if wanted:
            with suppress(Exception):  # which is told where it is loaded
                number = target_of(self.registry, slot.model.ref).number
                self.registry.fetch(self.registry.get(slot.model.name, number))
        with self.room.lock:
            if not self.room.closed.is_set():
                self._loader.submit(self._load, slot, load)
            elif not load.done.done():
                load.done.set_exception(closed())

    def _load(self, slot: Slot, load: Load) -> None:
        """In the loader's thread."""
        try:
            if load.done.done():  # what was to make room for others is given back
                return
            with self.room.lock:
                if not (load.waiting or slot.side):  # who has asked has gone
                    slot.load = None
                    return
            self._refuse(slot)
            if not self.room.made_for(slot):
                with self.room.lock:
                    if (load.waiting or slot.side) and not self.room.closed.is_set():
                        self._loader.submit(self._load, slot, load)  # behind all others
                        return
                raise closed()  # or told to nobody
            host = self._loaded(slot)
        except BaseException as error:
            with self.room.lock:
                slot.load = None
                if not load.done.done():
                    load.done.set_exception(error)
            return
        with self.room.lock:
            host.limits = self.settings.limits
            slot.refusal = None
            self.room.give(slot, host)
            if slot.gone:
                self.room.leave([slot])
        self.room.settle()  # it may be larger than what was looked at

    def _refuse(self, slot: Slot) -> None:
        """ApiError for a model for which nobody is to make room: one that can never have enough, or
        is not to come any more."""
        if self.room.closed.is_set():
            raise closed()
        if slot.gone:
            raise model_gone(slot.model.ref)
        if slot.info is None and self.room.memory is not None:
            with suppress(Exception):  # which is told where it is loaded
                slot.look(self.registry, self.device, self.settings.poll_s)
            self.room.changed()
        if reason := self.room.too_large(slot.bytes):
            if slot.side:
                self._refused(slot, InputError(reason))
            raise model_broken(slot.model.ref, reason)

    def _refused(self, slot: Slot, error: Exception) -> Refusal:
        with self.room.lock:
            refusal = slot.refuse(slot.target, error, self.settings.poll_s)
            self.room.changed()
        logger.warning("%s: cannot be loaded (%s)", slot.key, refusal.reason)
        self.meters.refused.labels(slot.key).inc()
        return refusal

    def _loaded(self, slot: Slot) -> Host:
        """Raises ApiError."""
        ref = slot.model.ref
        try:
            return self._host(self.settings, slot)
        except StorageError as error:
            logger.warning("%s: cannot be loaded now (%s)", ref, error)
            message = f"model={ref!r}: the registry cannot be read now; try again"
            headers = {"Retry-After": "1"}
            raise ApiError(503, "registry_unavailable", message, headers=headers) from None
        except Exception as error:  # a version may be broken in any way
            refusal = self._refused(slot, error)
        if slot.good:
            try:
                host = self._host(self.settings, slot, slot.good)
                host.refused(refusal.version, refusal.reason)
                return host
            except Exception as error:
                logger.warning("%s: nor can version %d (%s)", ref, slot.good.number, error)
        raise model_broken(ref, refusal.reason, refusal.pause)

    def close(self) -> None:
        """Close all hosts; requests that wait fail."""
        with self.room.lock:
            self.room.closed.set()
            slots, self.room.slots = self.room.slots, {}
            hosts = self.room.leaving | {slot.host for slot in slots.values() if slot.host}
            for slot in slots.values():
                slot.gone = True
        self._fetchers.shutdown(wait=False)  # one may wait for what is far
        self._loader.shutdown()
        for host in hosts:
            host.close()
        self._begun = False
