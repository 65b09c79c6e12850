"""What the workers of a training and the command that waits for them tell one another."""

from __future__ import annotations

from typing import NamedTuple

import ray


class News(NamedTuple):
    """What has happened; warnings and evaluations since the last reading."""

    latest: tuple[int, dict[str, float]] | None  # images seen, and the newest line of the log
    evaluations: list[tuple[int, dict[str, float]]]
    warnings: list[str]
    failure: Exception | None  # why training cannot go on


@ray.remote(num_cpus=0)
class Board:
    """An actor that outlives the workers. (A module of its own: it starts without PyTorch.)"""

    def __init__(self) -> None:
        self.latest: tuple[int, dict[str, float]] | None = None
        self.evaluations: list[tuple[int, dict[str, float]]] = []
        self.warnings: list[str] = []
        self.failure: Exception | None = None
        self.stop = False
        self.discard = False

    def post(self, seen: int, values: dict[str, float]) -> None:
        self.latest = (seen, values)

    def evaluated(self, seen: int, metrics: dict[str, float]) -> None:
        self.evaluations.append((seen, metrics))

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def fail(self, reason: Exception) -> None:
        self.failure = reason

    def failed(self) -> bool:
        return self.failure is not None

    def read(self) -> News:
        news = News(self.latest, self.evaluations, self.warnings, self.failure)
        self.evaluations, self.warnings = [], []
        return news

    def ask_to_stop(self, discard: bool) -> None:
        """discard: nothing need be saved."""
        self.stop = True
        self.discard = discard

    def asked_to_stop(self) -> bool:
        return self.stop

    def asked_to_discard(self) -> bool:
        return self.discard
