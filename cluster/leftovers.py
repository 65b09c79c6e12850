"""What registrations that died left in a registry: found by size and age, and cleared away.

A registration that is under way looks the same, but for its age: it writes every few seconds.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass

from cluster.aliases import author, now
from cluster.storage import Changed, Entry, NotFound, Storage
from cluster.versions import MARKER, check_name

HOUR = 3600.0  # seconds without a write, after which a registration counts as dead


@dataclass(frozen=True)
class Leftover:
    """Files of a version that was never completed."""

    name: str
    number: int
    size: int  # bytes
    age: float  # seconds since the last write to it

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.number}"

    def __str__(self) -> str:
        return (
            f"{self.reference}: {self.size:,} bytes of a registration that has not ended, "
            f"last written to {duration(self.age)} ago"
        )


def leftovers(storage: Storage, name: str | None = None) -> list[Leftover]:
    """Those of one model, or of all, also of models that have no version; by name and number."""
    if name is not None:
        check_name("model", name)
    names = [name] if name is not None else storage.children("models")
    return [found for each in names for found in _of_model(storage, each)]


def clear(storage: Storage, left: Leftover) -> bool:
    """Delete a leftover; whether it was still one. Its number is not given again.

    The claim is changed first: should the registration be alive after all, it notices and fails.
    """
    prefix = f"{_versions(left.name)}/{left.number:05d}"
    if storage.exists(f"{prefix}/{MARKER}"):  # it was completed meanwhile
        return False
    cleared = json.dumps({"by": author(), "at": now(), "cleared": True}).encode()
    with suppress(NotFound, Changed):
        storage.replace(f"{prefix}.claim", cleared, storage.read(f"{prefix}.claim")[1])
    if storage.exists(f"{prefix}/{MARKER}"):
        return False
    storage.delete(prefix)
    storage.discard(prefix)
    return True


def _of_model(storage: Storage, name: str) -> list[Leftover]:
    parts: dict[int, list[Entry]] = defaultdict(list)
    whole = set()
    prefix = _versions(name)
    for entry in [*storage.entries(prefix), *storage.unfinished(prefix)]:
        first, _, rest = entry.key.removeprefix(f"{prefix}/").partition("/")
        if not first.isdecimal():
            continue  # a claim: all that a registration leaves which died before it wrote
        if rest == MARKER:
            whole.add(int(first))
        parts[int(first)].append(entry)
    return [
        Leftover(
            name,
            number,
            sum(entry.size for entry in parts[number]),
            max(0.0, time.time() - max(entry.modified for entry in parts[number])),
        )
        for number in sorted(parts.keys() - whole)
    ]


def _versions(name: str) -> str:
    return f"models/{name}/versions"


def duration(seconds: float) -> str:
    """'40 s', '12 min', '3.5 h', '9 days'."""
    for unit, length, most in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48)):
        if seconds < most * length:
            return f"{seconds / length:.{1 if unit == 'h' else 0}f} {unit}"
    return f"{seconds / 86400:.0f} days"
