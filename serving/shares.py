"""A bounded queue that several share: who holds most of it makes room for who holds less."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, zip_longest
from typing import Generic, Protocol, TypeVar

_OWNERS = 1000


class Weighed(Protocol):
    weight: int
    owner: str  # whose it is; empty where nobody is told apart


Entry = TypeVar("Entry", bound=Weighed)


class Full(Exception):
    """There is no room, and nobody to whom it should be taken from."""


class Shares(Generic[Entry]):
    """What waits, of each owner, and who was served when.

    Where the queue is full, whoever holds most of it gives up what came last ("longest queue
    drop"), but never the first that an owner has there. So an owner is refused only where no other
    one holds more, and of k owners each whose entries are small against it can have a k-th.
    """

    def __init__(self, most: int) -> None:
        """most: weight that may wait; an empty queue takes anything."""
        self.most = most
        self.weight = 0
        self._lines: dict[str, list[Entry]] = {}  # in the order in which they came
        self._turns: dict[str, int] = {}  # of owners: when they were served last
        self._turn = count(1)

    def enter(self, entry: Entry) -> list[Entry]:
        """Take an entry in; those that have to go for it, which are out already. Raises Full."""
        going = self._in_the_way(entry)
        for each in going:
            self.leave(each)
        self._lines.setdefault(entry.owner, []).append(entry)
        self.weight += entry.weight
        return going

    def __iter__(self) -> Iterator[Entry]:
        for line in self._lines.values():
            yield from line

    def leave(self, entry: Entry) -> None:
        """Let an entry go that is in."""
        line = self._lines[entry.owner]
        line.remove(entry)
        if not line:
            del self._lines[entry.owner]
        self.weight -= entry.weight

    def in_turn(self, entries: list[Entry]) -> Iterator[Entry]:
        """Entries, each owner's in their order, one of each in turn: first of who was served
        longest ago."""
        lines: dict[str, list[Entry]] = {}
        for entry in entries:
            lines.setdefault(entry.owner, []).append(entry)
        owners = sorted(lines, key=lambda owner: self._turns.get(owner, 0))
        for row in zip_longest(*(lines[owner] for owner in owners)):
            yield from (entry for entry in row if entry is not None)

    def serve(self, owner: str) -> None:
        """Note that it is served now; of many owners only those of late are remembered."""
        self._turns.pop(owner, None)
        self._turns[owner] = next(self._turn)
        if len(self._turns) > _OWNERS:
            del self._turns[next(iter(self._turns))]

    def _in_the_way(self, entry: Entry) -> list[Entry]:
        over = self.weight + entry.weight - self.most
        if over <= 0 or not self.weight:
            return []
        held = {owner: sum(each.weight for each in line) for owner, line in self._lines.items()}
        would = held.get(entry.owner, 0) + entry.weight
        lines = {owner: line[1:] for owner, line in self._lines.items() if owner != entry.owner}
        going: list[Entry] = []
        while over > 0:
            able = [owner for owner, line in lines.items() if line]
            longest = max(able, key=held.__getitem__, default=None)
            if longest is None or held[longest] <= would:
                raise Full
            going.append(lines[longest].pop())
            held[longest] -= going[-1].weight
            over -= going[-1].weight
        return going
