"""Follows a reference in the registry: says when another version should be served."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from cluster.registry import Registry
from cluster.versions import Unknown, Version, parse_reference

logger = logging.getLogger(__name__)

LONGEST_PAUSE = 60.0  # seconds between tries to serve a version that was refused


@dataclass(frozen=True)
class Target:
    """What a reference names, and how often its alias has moved: there and back is a move too.

    place: where that version is: a model of one's own may take the name of a bundled one
    """

    number: int
    moves: int = 0
    place: str = ""


def target_of(registry: Registry, reference: str) -> Target:
    """Where `NAME` (its newest version), `NAME@ALIAS` or `NAME@7` points. Raises RegistryError.

    Does not read the version itself, which may be damaged.
    """
    name, selector = parse_reference(reference)
    place = registry.place_of(reference)
    if isinstance(selector, int):
        return Target(selector, place=place)
    if selector is None:
        return Target(registry.numbers(name)[-1], place=place)
    aliases = registry.aliases(name)
    if selector not in aliases.holders:
        raise Unknown(f"{name} has no alias {selector!r}; promote a version to it")
    return Target(aliases.holders[selector], aliases.moves(selector), place)


class Watcher:
    """Looks when it is told to, and calls `swap(version)` when the target has moved, in a thread
    for that.

    A swap that raises is reported to `refused(number, reason)` and tried again after pauses that
    double from `pause_s` up to a minute; a target that moves again is tried at once. When the
    reference points to what is served, `settled()` is called. A registry that cannot be read
    changes nothing.
    """

    def __init__(
        self,
        registry: Registry,
        reference: str,
        pause_s: float,
        serving: Callable[[], Version],
        swap: Callable[[Version], None],
        settled: Callable[[], None],
        refused: Callable[[int, str], None],
        unreachable: Callable[[], None],
    ) -> None:
        self.registry = registry
        self.reference = reference
        self.pause_s = pause_s
        self.serving = serving
        self.swap = swap
        self.settled = settled
        self.refused = refused
        self.unreachable = unreachable
        self._failed: Target | None = None
        self._pause = 0.0
        self._again_at = 0.0
        self._reachable = True
        self._closed = False
        self._trying: threading.Thread | None = None
        self._name, selector = parse_reference(reference)
        self._moves = not isinstance(selector, int)  # NAME@7 always names the same

    def look(self) -> None:
        """Look, unless a swap is under way; in any thread, once at a time."""
        if self._moves and not (self._trying and self._trying.is_alive()):
            try:
                self._look()
            except Exception:
                if not self._closed:  # what it follows has been closed meanwhile
                    raise

    def close(self) -> None:
        """Wait for a swap to end; one that waits for a far registry is left to end by itself."""
        self._closed = True
        if self._trying:
            self._trying.join(timeout=5)

    def _look(self) -> None:
        try:
            target = target_of(self.registry, self.reference)
            own = str(self.registry.storage)
            if self.serving().place == own != target.place:  # what it names instead was not meant
                raise Unknown(f"there is no such model in {own} any more")
        except Exception as error:
            self.unreachable()
            if self._reachable:  # said once, not at every look
                logger.warning(
                    "%s: cannot be looked up (%s); version %d goes on",
                    self.reference, error, self.serving().number,
                )  # fmt: skip
            self._reachable = False
            return
        self._reachable = True
        served = self.serving()
        if (target.number, target.place) == (served.number, served.place):
            self._failed = None
            self.settled()
        elif target != self._failed or time.monotonic() >= self._again_at:
            name = f"swap {self.reference}"
            self._trying = threading.Thread(target=self._try, args=[target], name=name, daemon=True)
            self._trying.start()

    def _try(self, target: Target) -> None:
        try:
            self.swap(self.registry.get(self._name, target.number))
        except Exception as error:  # a version may be broken in any way: the old one goes on
            if self._closed:
                return
            again = target == self._failed
            self._pause = min(2 * self._pause, LONGEST_PAUSE) if again else self.pause_s
            self._again_at = time.monotonic() + self._pause
            self._failed = target
            reason = " ".join(str(error).split()) or type(error).__name__
            logger.warning(
                "%s: version %d is refused (%s); version %d goes on",
                self.reference, target.number, reason, self.serving().number,
            )  # fmt: skip
            self.refused(target.number, reason)
        else:
            self._failed = None
