"""Which models are in memory, and which of them go where there is no room for another."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from genimg.errors import InputError
from serving.host import Host
from serving.metrics import Meters
from serving.requests import ModelInfo
from serving.settings import Settings
from serving.slots import CANARY, SHADOW, Slot

LOOK_S = 0.05  # between two looks whether somebody is still answered
DRAIN_S = 5.0  # seconds that requests wait for a model which is to make room, at most


class Room:
    """Slots with their hosts, and who is asked. While `lock` is held nothing waits.

    What goes gets no more requests, and is closed when those it has are answered.
    """

    def __init__(self, meters: Meters) -> None:
        self.meters = meters
        self.memory: int | None = None  # bytes that weights may take
        self.lock = threading.RLock()
        self.slots: dict[str, Slot] = {}
        self.busy: Counter[Host] = Counter()  # requests under way
        self.leaving: set[Host] = set()  # in memory, but not asked any more
        self.shadows: set[Host] = set()  # in memory, asked or not
        self._told: tuple[float, list[ModelInfo]] | None = None  # until when, time.monotonic()
        self.closed = threading.Event()

    def hosts(self) -> list[Host]:
        """Of the models in memory that can be asked."""
        with self.lock:
            return [slot.host for slot in self.slots.values() if slot.host]

    def infos(self) -> list[ModelInfo]:
        """Of all but what is beside others; made anew only where something has changed, for every
        request asks."""
        with self.lock:
            now = time.monotonic()
            if self._told is None or now >= self._told[0]:
                refusals = (slot.refusal.again_at for slot in self.slots.values() if slot.refusal)
                until = min((at for at in refusals if at > now), default=math.inf)
                fixed = self.fixed()
                infos = [self._info(slot, fixed) for slot in self.slots.values() if not slot.side]
                self._told = until, infos
            return self._told[1].copy()

    def changed(self) -> None:
        """What is told of a model is another now. Called behind the change, in any thread."""
        with self.lock:
            self._told = None

    def _info(self, slot: Slot, fixed: int) -> ModelInfo:
        reason = None if slot.host else self.too_large(slot.bytes, fixed)
        info = slot.told(reason)
        canary, shadow = slot.model.canary, slot.model.shadow
        if not (canary or shadow):
            return info
        return replace(
            info,
            canary=self._beside(slot.key, CANARY).told_beside(canary.share) if canary else None,
            shadow=self._beside(slot.key, SHADOW).told_beside(shadow.share) if shadow else None,
        )

    def _beside(self, ref: str, side: str) -> Slot:
        return self.slots[f"{ref} ({side})"]

    def computes(self) -> bool:
        """Whether anything is computed that somebody waits for."""
        with self.lock:
            return any(host not in self.shadows for host in self.busy)

    def megapixels(self) -> float:
        """That are still to be computed for those who wait."""
        with self.lock:
            hosts = {*self.hosts(), *self.leaving} - self.shadows
        return sum(host.megapixels for host in hosts)

    def held(self) -> int:
        """Bytes of all that is in memory."""
        with self.lock:
            return sum(host.bytes for host in {*self.hosts(), *self.leaving})

    def fixed(self) -> int:
        """Bytes that make no room."""
        with self.lock:
            resident = (slot for slot in self.slots.values() if slot.model.resident)
            return sum(slot.bytes for slot in resident if slot.host)

    def too_large(self, size: int, fixed: int | None = None) -> str | None:
        """Why weights of so many bytes never have room, if so. fixed: where that is known."""
        if self.memory is None:
            return None
        fixed = self.fixed() if fixed is None else fixed
        if fixed + size <= self.memory:
            return None
        besides = f", of which resident models take {fixed:,}" if fixed else ""
        return f"its weights take {size:,} bytes, and there are memory={self.memory:,}{besides}"

    def made_for(self, slot: Slot) -> bool:
        """Whether there is room for a model now. Others are given up for it, least recently used
        first, which is waited for; those that compute come last, and stay where that takes long."""
        if self.memory is None:
            return True
        with self.lock:
            victims = self._victims(self.held() + slot.bytes - self.memory)
            hosts = [self.put_away(each) for each in victims]
        end = time.monotonic() + DRAIN_S
        while any(self.busy[host] for host in hosts):
            if time.monotonic() > end or self.closed.is_set():
                break
            time.sleep(LOOK_S)
        for each, host in zip(victims, hosts, strict=True):
            with self.lock:
                if self.busy[host]:
                    self._go_on(each, host)
                    continue
            self.evict(each, host)
        if self.held() + slot.bytes <= self.memory and not self.closed.is_set():
            return True
        time.sleep(LOOK_S)
        return False

    def _go_on(self, slot: Slot, host: Host) -> None:
        """Let one that was put away answer on. The lock is held."""
        if slot.gone:
            self._end_answered([(slot.key, host)])
        else:
            self.leaving.discard(host)
            self.give(slot, host)

    def settle(self) -> None:
        """Give up what nobody asks just now, while there is more in memory than may be: a version
        that took over may be larger."""
        with self.lock:
            excess = self.held() - self.memory if self.memory else 0
            victims = [each for each in self._victims(excess) if not self._asked(each)]
            hosts = [self.put_away(each) for each in victims]
        for each, host in zip(victims, hosts, strict=True):
            self.evict(each, host)

    def _victims(self, missing: int) -> list[Slot]:
        """Models that have to go for so many bytes. The lock is held."""
        may_go = [each for each in self.slots.values() if each.host and not each.model.resident]
        victims: list[Slot] = []
        for each in sorted(may_go, key=lambda each: (self._asked(each), each.used)):
            if missing > 0:
                victims.append(each)
                missing -= each.bytes
        return victims

    def _asked(self, slot: Slot) -> bool:
        return bool(slot.host and self.busy[slot.host])

    def put_away(self, slot: Slot) -> Host:
        """Let its host get no more requests. The lock is held."""
        host = slot.host
        assert host, "it is in memory"
        slot.info, slot.target = replace(host.info(), state="asleep"), None
        slot.host, slot.good = None, host.version
        self.leaving.add(host)
        self.changed()
        return host

    def give(self, slot: Slot, host: Host) -> None:
        """A host to a slot, and to all who wait for it. The lock is held."""
        load, slot.load, slot.host = slot.load, None, host
        if slot.side == SHADOW:
            self.shadows.add(host)
        self.changed()
        host.show()
        if load and not load.done.done():
            if load.waiting:
                self.busy[host] += load.waiting
            load.done.set_result(host)

    def evict(self, slot: Slot, host: Host) -> None:
        self.end(slot.key, host)
        self.meters.evictions.labels(slot.model.ref).inc()

    def end(self, key: str, host: Host) -> None:
        """Close a host that was put away, and have its memory back."""
        host.close()
        with self.lock:
            self.leaving.discard(host)
            self.shadows.discard(host)
            slot = self.slots.get(key)
            if slot is None:
                self.meters.drop(key)
            elif slot.host is None:
                self.meters.forget(key)

    def leave(self, slots: Sequence[Slot]) -> None:
        """Models that are served no more: close their hosts once they have answered. The lock is
        held; another thread waits."""
        away = []
        for slot in slots:
            slot.gone = True
            if slot.host:
                away.append((slot.key, self.put_away(slot)))
            elif slot.key not in self.slots:
                self.meters.drop(slot.key)

        if away:
            self._end_answered(away)

    def _end_answered(self, away: list[tuple[str, Host]]) -> None:
        """Close hosts that were put away, by their keys, once they have answered; in a thread."""

        def wait() -> None:
            for key, host in away:
                while self.busy[host] and not self.closed.is_set():
                    time.sleep(LOOK_S)
                self.end(key, host)

        threading.Thread(target=wait, name="leave", daemon=True).start()


def refuse_too_much(settings: Settings, slots: Iterable[Slot]) -> None:
    """InputError where resident models alone take more memory than there may be."""
    resident = {slot.model.ref: slot.bytes for slot in slots if slot.model.resident}
    if settings.memory is not None and sum(resident.values()) > settings.memory:
        each = ", ".join(f"{ref} {size:,}" for ref, size in resident.items())
        raise InputError(
            f"memory={settings.memory:,}: the weights of resident models take "
            f"{sum(resident.values()):,} bytes ({each}); raise it, or give some resident: false"
        )
