"""How a figure is measured: paired, alternating with its baseline, and judged by the ratio."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch


@dataclass(frozen=True)
class Row:
    """One line of the result.

    `ratio` is the median over pairs of ours / baseline, which is not the quotient of the two
    medians; `ratios` are all of them. What is demanded is demanded of the ratio, or of `ours`
    where there is no baseline.
    """

    name: str
    unit: str
    ours: float
    baseline: float | None = None
    ratios: tuple[float, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return median(self.ratios) if self.ratios else None

    @property
    def passed(self) -> bool | None:
        """None where nothing is demanded."""
        if self.at_least is None and self.at_most is None:
            return None
        judged = self.ours if self.ratio is None else self.ratio
        low = judged >= self.at_least if self.at_least is not None else True
        return low and (judged <= self.at_most if self.at_most is not None else True)


def compared(
    name: str,
    unit: str,
    ours: Callable[[], float],
    baseline: Callable[[], float],
    *,
    rounds: int,
    at_least: float | None = None,
    note: str = "",
) -> Row:
    """Both by turns, A B A B, so that a machine which slows down does so for both of a pair.

    Each call measures once and returns the figure. The first pair, which compiles kernels and
    fills caches, does not count.
    """
    pairs = [(ours(), baseline()) for _ in range(rounds + 1)][1:]
    return Row(
        name,
        unit,
        ours=median(a for a, _ in pairs),
        baseline=median(b for _, b in pairs),
        ratios=tuple(a / b for a, b in pairs),
        at_least=at_least,
        note=note,
    )


def rate(work: Callable[[], object], amount: float) -> float:
    """`amount` a second, where `work` does that much."""
    finish_queued_work()
    started = time.perf_counter()
    work()
    finish_queued_work()
    return amount / (time.perf_counter() - started)


def finish_queued_work() -> None:
    """A GPU computes after the call has returned."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
