"""Gates: what a version's metrics must fulfil before an alias may move to it."""

import math
import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from cluster.versions import RegistryError, Version

Direction = Literal["min", "max"]  # whether smaller or larger values are better

_RELATIONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}


class GateFailed(RegistryError):
    """A version does not fulfil what was demanded of it."""


@dataclass(frozen=True)
class Gate:
    """`metric relation bound`, as in fid<=12."""

    metric: str
    relation: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> "Gate":
        """The gate that a text such as `psnr>=28.5` means, or RegistryError."""
        parts = re.fullmatch(r"\s*([^<>=\s]+)\s*(<=|>=|<|>)\s*([^<>=\s]+)\s*", text)
        try:
            bound = float(parts[3]) if parts else math.nan
        except ValueError:
            bound = math.nan
        if parts is None or not math.isfinite(bound):
            raise RegistryError(
                f"gate {text!r}: give METRIC, one of <= >= < >, and a number, as in 'fid<=12'"
            )
        return cls(parts[1], parts[2], bound)

    def __str__(self) -> str:
        return f"{self.metric}{self.relation}{self.bound:g}"

    def objection(self, metrics: Mapping[str, float]) -> str | None:
        """Why these metrics do not pass, or None. What is missing or NaN does not pass."""
        value = metrics.get(self.metric)
        if value is None:
            return f"{self} (there is no {self.metric})"
        return None if _RELATIONS[self.relation](value, self.bound) else f"{self} (it is {value:g})"


def require(version: Version, gates: Iterable[Gate]) -> None:
    """GateFailed, with every gate that does not let the version pass and the metrics it has."""
    found = [gate.objection(version.metrics) for gate in gates]
    objections = [objection for objection in found if objection]
    if objections:
        raise GateFailed(
            f"{version.reference} fails {', '.join(objections)}; its metrics: {metrics_of(version)}"
        )


def require_better(
    version: Version, holder: Version | None, metric: str, direction: Direction
) -> None:
    """GateFailed unless the version is strictly better than the holder of the alias.

    The version needs a finite metric; one that the holder lacks is beaten by any.
    """
    value = version.metrics.get(metric, math.nan)
    if math.isnan(value):
        raise GateFailed(f"{version.reference} has no {metric}; its metrics: {metrics_of(version)}")
    bar = holder.metrics.get(metric, math.nan) if holder else math.nan
    better = value < bar if direction == "min" else value > bar
    if holder and not math.isnan(bar) and not better:
        raise GateFailed(
            f"{version.reference} has {metric} {value:g}, which is not better "
            f"({'smaller' if direction == 'min' else 'larger'}) than the {bar:g} of "
            f"{holder.reference}, which holds the alias"
        )


def metrics_of(version: Version) -> str:
    """A version's metrics in one line."""
    return ", ".join(f"{name} {value:g}" for name, value in version.metrics.items()) or "none"
