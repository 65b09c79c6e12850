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
    place = registry.place_of(name)
    if isinstance(selector, int):
        return Target(selector, place=place)
    if selector is None:
        return Target(registry.numbers(name)[-1], place=place)
    aliases = registry.aliases(name)
    if selector not in aliases.holders:
        raise Unknown(f"{name} has no alias {selector!r}; promote a version to it")
    return Target(aliases.holders[selector], aliases.moves(selector), place)


class Watcher:
    """A thread that looks every `poll_s` and calls `swap(version)` when the target has moved.

    A swap that raises is reported to `refused(number, reason)` and tried again after pauses that
    double up to a minute; a target that moves again is tried at once. When the reference points to
    what is served, `settled()` is called. A registry that cannot be read changes nothing.
    """

    def __init__(
        self,
        registry: Registry,
        reference: str,
        poll_s: float,
        serving: Callable[[], Version],
        swap: Callable[[Version], None],
        settled: Callable[[], None],
        refused: Callable[[int, str], None],
        unreachable: Callable[[], None],
    ) -> None:
        self.registry = registry
        self.reference = reference
        self.poll_s = poll_s
        self.serving = serving
        self.swap = swap
        self.settled = settled
        self.refused = refused
        self.unreachable = unreachable
        self._failed: Target | None = None
        self._pause = 0.0
        self._again_at = 0.0
        self._reachable = True
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"watch {reference}", daemon=True)

    def start(self) -> None:
        """Begin to look; not for NAME@7, which always names the same."""
        if not isinstance(parse_reference(self.reference)[1], int):
            self._thread.start()

    def close(self) -> None:
        """End the thread; one that waits for a far registry is left to end by itself."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _watch(self) -> None:
        while not self._stop.wait(self.poll_s):
            try:
                self._look()
            except Exception:
                if not self._stop.is_set():  # what it follows has been closed meanwhile
                    raise

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
            self._try(target)

    def _try(self, target: Target) -> None:
        try:
            name = parse_reference(self.reference)[0]
            self.swap(self.registry.get(name, target.number))
        except Exception as error:  # a version may be broken in any way: the old one goes on
            again = target == self._failed
            self._pause = min(2 * self._pause, LONGEST_PAUSE) if again else self.poll_s
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
