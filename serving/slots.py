"""One served reference in a process: what is known of it, and its host while it is in memory."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cluster.registry import Registry
from cluster.storage import StorageError
from cluster.versions import Damaged, Version
from serving.about import looked_up
from serving.model_settings import ModelSettings
from serving.requests import Beside, ModelInfo, Rejected
from serving.watcher import LONGEST_PAUSE, Target, target_of

if TYPE_CHECKING:
    from serving.host import Host

CANARY, SHADOW = "canary", "shadow"  # what a slot beside another is


@dataclass
class Load:
    """A load under way, or waited for."""

    done: Future[Host] = field(default_factory=Future)
    waiting: int = 0  # requests


@dataclass
class Refusal:
    """Why it could not be loaded, and when that is tried again (time.monotonic())."""

    target: Target | None
    version: int
    reason: str
    again_at: float
    pause: float

    @property
    def holds(self) -> bool:
        """Whether it is not to be tried yet."""
        return time.monotonic() < self.again_at


@dataclass(eq=False)
class Slot:
    """A served reference. Its fields are changed with the lock held (serving.room).

    found: by discovery
    of, side: of a canary or shadow the reference that it is beside of, and which it is
    info: what was known of it last
    good: the version that was in memory last, which goes on where a newer one cannot be loaded
    used: when a request was given to it last, time.monotonic()
    """

    model: ModelSettings
    found: bool = False
    of: str = ""
    side: str = ""
    info: ModelInfo | None = None
    target: Target | None = None
    good: Version | None = None
    host: Host | None = None
    load: Load | None = None
    refusal: Refusal | None = None
    used: float = 0.0
    gone: bool = False

    @property
    def key(self) -> str:
        """What it is known by in this process, and to its meters."""
        return f"{self.of} ({self.side})" if self.side else self.model.ref

    @property
    def bytes(self) -> int:
        """That its weights take, or would."""
        return self.host.bytes if self.host else (self.info and self.info.bytes) or 0

    def told(self, too_large: str | None = None) -> ModelInfo:
        """What is said of it: broken until it is tried again, and why for as long as that is not
        known to be over. too_large: why it never can be loaded"""
        if self.host:
            return self.host.info()
        info = self.info or ModelInfo(self.model.ref, self.model.name, "broken")
        if too_large:
            return replace(info, state="broken", rejected=Rejected(info.version or 0, too_large))
        if self.refusal is None:
            return info
        rejected = Rejected(self.refusal.version, self.refusal.reason)
        return replace(
            info, state="broken" if self.refusal.holds else info.state, rejected=rejected
        )

    def told_beside(self, share: float) -> Beside:
        """What is said of a canary or shadow."""
        info = self.told()
        refused = self.refusal is not None and not self.host
        return Beside(
            self.model.ref,
            share,
            "ready" if self.host else "broken" if refused else "loading",
            info.version,
            info.rejected,
        )

    def look(self, registry: Registry, device: str | None, poll_s: float) -> None:
        """Find out what its reference names now, without loading it.

        Raises RegistryError or StorageError, or anything where that version is broken, which is
        then told; what was known stays.
        """
        try:
            target = target_of(registry, self.model.ref)
        except Damaged as error:
            self.refuse(None, error, poll_s)
            raise
        refused = self.refusal and self.refusal.target == target and self.refusal.holds
        if target == self.target or refused:
            return
        try:
            version = registry.get(self.model.name, target.number)
            info = looked_up(registry, self.model.ref, version, self.model.precision, device)
        except StorageError:
            raise
        except Exception as error:
            self.refuse(target, error, poll_s)
            raise
        self.info, self.target, self.refusal = replace(info, state="asleep"), target, None

    def refuse(self, target: Target | None, error: Exception, poll_s: float) -> Refusal:
        """Remember that it cannot be loaded, for a while that doubles each time."""
        again = self.refusal is not None and self.refusal.target == target
        pause = min(2 * self.refusal.pause, LONGEST_PAUSE) if again and self.refusal else poll_s
        number = target.number if target else (self.info and self.info.version) or 0
        reason = " ".join(str(error).split()) or type(error).__name__
        self.refusal = Refusal(target, number, reason, time.monotonic() + pause, pause)
        return self.refusal
