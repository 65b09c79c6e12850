"""aliases.json: which version each alias of a model names, and who moved it when."""

import getpass
import json
import os
import socket
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Literal

from cluster.versions import Damaged, Unknown


@dataclass(frozen=True)
class Promotion:
    """One move of an alias."""

    action: Literal["promote", "rollback", "drop"]
    alias: str
    version: int | None  # None: the alias names nothing any more
    previous: int | None  # None: it named nothing before
    by: str  # user@host
    at: str  # ISO 8601, UTC


@dataclass(frozen=True)
class Aliases:
    """All moves of a model's aliases, oldest first; everything else follows from them.

    The numbers of removed versions are here too, so that a version cannot be removed and
    promoted at the same instant: both are conditional writes of this one object.
    """

    history: tuple[Promotion, ...] = ()
    removed: frozenset[int] = field(default_factory=frozenset)

    @property
    def holders(self) -> dict[str, int]:
        """{alias: number of the version that it names}"""
        last = {move.alias: move.version for move in self.history}
        return {alias: number for alias, number in sorted(last.items()) if number is not None}

    def holder(self, name: str, alias: str) -> int:
        """The number of the version that an alias of this model names. Raises Unknown."""
        if alias not in self.holders:
            raise Unknown(f"{name} has no alias {alias!r}", alias, self.holders)
        return self.holders[alias]

    def moves(self, alias: str) -> int:
        """How often an alias moved. Never decreases, so it tells there-and-back from unmoved."""
        return sum(move.alias == alias for move in self.history)

    def stack(self, alias: str) -> list[int]:
        """The versions that rollback leads through: the present one last, before it the earlier.

        A promotion puts a version on top; a rollback takes off all above the one that it led to.
        """
        stack: list[int] = []
        for move in self.history:
            if move.alias != alias:
                continue
            if move.version is None:
                stack.clear()
            elif move.action == "rollback":
                stack.pop()
                while stack[-1] != move.version:
                    stack.pop()
            else:
                stack.append(move.version)
        return stack

    def held_by(self, number: int) -> list[str]:
        """The aliases that name a version."""
        return [alias for alias, holder in self.holders.items() if holder == number]

    def encode(self) -> bytes:
        content = {
            "aliases": self.holders,
            "history": [asdict(move) for move in self.history],
            "removed": sorted(self.removed),
        }
        return (json.dumps(content, indent=2) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes, name: str) -> "Aliases":
        """What `encode` wrote, or Damaged if it does not agree with itself."""
        try:
            content = json.loads(data)
            history = tuple(Promotion(**move) for move in content["history"])
            aliases = cls(history, frozenset(content["removed"]))
            tops = {alias: aliases.stack(alias)[-1] for alias in aliases.holders}
            intact = content["aliases"] == aliases.holders == tops
        except (ValueError, LookupError, TypeError):
            intact = False
        if not intact:
            raise Damaged(f"{name}: aliases.json is altered; its history must lead to its aliases")
        return aliases


def author() -> str:
    """user@host of whoever runs this."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in containers, users may have no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def now() -> str:
    """The time in ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
