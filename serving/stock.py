"""Looks what there is in the registry: models that are to be found, and where all of them point."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

from cluster.storage import StorageError
from cluster.versions import RegistryError, Unknown
from serving.discovery import discovered
from serving.model_settings import ModelSettings
from serving.shelf import Shelf
from serving.slots import Slot

logger = logging.getLogger(__name__)

_AT_ONCE = 8  # models that are looked at
_REST = 9  # a look at what is not in memory is followed by so many times its length without one


class Stock:
    """Keeps a shelf up to date, from its first look on, in a thread: every `poll_s` what is in
    memory, and the rest as often as far registries, which cost, let it.

    What cannot be looked at changes nothing; nor does a registry in which there is no model at all
    any more, which is rather away than empty.
    """

    def __init__(self, shelf: Shelf, elsewhere: Collection[str] = ()) -> None:
        """elsewhere: names that are served by others, and so not to be found."""
        self.shelf = shelf
        self.elsewhere = frozenset(elsewhere)
        self._reachable = True
        self._left_out: list[str] = []
        self._due = 0.0  # when all is looked at again, time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def look(self) -> None:
        """Look now, and from now on; in any thread."""
        self._look()
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="watch models", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread; one that waits for a far registry is left to end by itself."""
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=5)

    def _watch(self) -> None:
        while not self._stop.wait(self.shelf.settings.poll_s):
            try:
                for host in self.shelf.room.hosts():
                    host.look()
                if time.monotonic() >= self._due and not self.shelf.changing.locked():
                    self._look()  # what changes the models, which takes a while, looks afterwards
            except Exception:  # a fault of ours, which the next look may not meet
                logger.exception("models could not be looked at")

    def _look(self) -> None:
        began = time.monotonic()
        with self.shelf.changing:
            self._discover()
        with self.shelf.room.lock:
            absent = [slot for slot in self.shelf.room.slots.values() if not slot.host]
        self._look_at_all(absent)
        self.shelf.begin_besides()
        self.shelf.room.settle()
        self._due = time.monotonic() + _REST * (time.monotonic() - began)

    def _look_at_all(self, slots: Sequence[Slot]) -> None:
        """Several at a time: of what is far each takes a while."""
        with ThreadPoolExecutor(_AT_ONCE, "look") as threads:
            list(threads.map(self._look_at, slots))

    def _look_at(self, slot: Slot) -> None:
        if self._stop.is_set():
            return
        try:
            slot.look(self.shelf.registry, self.shelf.device, self.shelf.settings.poll_s)
        except (StorageError, Unknown):
            self.shelf.meters.unreachable.labels(slot.key).inc()
        except Exception as error:  # a version may be broken in any way; /v1/models tells it
            self.shelf.meters.refused.labels(slot.key).inc()
            logger.warning("%s: is refused (%s)", slot.key, error)
        self.shelf.room.changed()

    def _discover(self) -> None:
        """Add what has come, and let go what has gone."""
        room = self.shelf.room
        with room.lock:
            before = {ref: slot for ref, slot in room.slots.items() if slot.found}
        try:
            models = self._found(before)
        except (RegistryError, StorageError) as error:
            self.shelf.meters.unreachable.labels("").inc()
            if self._reachable:  # said once, not at every look
                logger.warning("models cannot be looked for (%s); those there are go on", error)
            self._reachable = False
            return
        self._reachable = True
        slots, new = {}, []
        for model in models:
            slot = before.get(model.ref)
            if slot is None or slot.model != model:
                slot = Slot(model, found=True)
                new.append(slot)
                logger.info("%s: is found", model.ref)
            slots[model.ref] = slot
        self._look_at_all(new)
        for ref in before.keys() - slots.keys():
            logger.info("%s: is not found any more", ref)
        with room.lock:
            named = {ref: slot for ref, slot in room.slots.items() if not slot.found}
            if list(slots := named | slots) != list(room.slots) or slots != room.slots:
                self.shelf.replace(slots)

    def _found(self, before: Collection[str]) -> list[ModelSettings]:
        """Models that there are now, no more than may be: those that were there stay."""
        settings = self.shelf.settings
        served = {model.name for model in settings.models} | self.elsewhere
        models = discovered(self.shelf.registry, settings.discover, served)
        if before and not models and not self.shelf.registry.names() and settings.discover:
            raise Unknown(f"there is no model at all in {self.shelf.registry.storage}")
        room = settings.max_discovered - sum(model.ref in before for model in models)
        kept, left_out = [], []
        for model in models:
            if model.ref not in before:
                room -= 1
                if room < 0:
                    left_out.append(model.ref)
                    continue
            kept.append(model)
        if left_out and left_out != self._left_out:
            logger.warning(
                "max_discovered=%d: not served: %s", settings.max_discovered, ", ".join(left_out)
            )
        self._left_out = left_out
        return kept[: settings.max_discovered]
