"""How much was taken in the last minute, and when more may be."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

SECONDS = 60
_SLOTS = 10  # a second: what is taken within one is counted, and forgotten, together


class Window:
    """Amounts of the last minute: at no time is more forgotten than what is older than that.

    So where nothing is taken unless `used < limit`, any 60 seconds have less than the limit and
    one amount more; where amounts are 1 and the limit is whole, no more than the limit.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._taken: deque[tuple[float, int]] = deque()  # (when it is forgotten, amount)
        self._sum = 0

    def used(self) -> int:
        now = self.clock()
        while self._taken and self._taken[0][0] <= now:
            self._sum -= self._taken.popleft()[1]
        return self._sum

    def take(self, amount: int) -> None:
        self._sum += amount
        end = (math.floor(self.clock() * _SLOTS) + 1) / _SLOTS + SECONDS
        if self._taken and self._taken[-1][0] == end:
            amount += self._taken.pop()[1]
        self._taken.append((end, amount))

    def wait(self, limit: float) -> float:
        """Seconds until less than a limit is used."""
        left, now = self.used(), self.clock()
        until = now
        for end, amount in self._taken:
            if left < limit:
                break
            left, until = left - amount, end
        return until - now
