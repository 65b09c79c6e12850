"""What was measured as a table: for a terminal, in Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from jobs.console import say, shown

if TYPE_CHECKING:
    from jobs.pages import Marked

ARROWS: Mapping[str, str] = {"min": "↓", "max": "↑"}


@dataclass(frozen=True)
class Table:
    """Metrics by who they are of: models first, then what they are compared with.

    models: how many of the columns compete for the best of a row
    rows_are: what names the rows
    better: which way a metric is, as genimg.judging.BETTER, which stands for None
    """

    columns: Mapping[str, Mapping[str, float]]
    models: int = 1
    rows_are: str = "metric"
    better: Mapping[str, Literal["min", "max"]] | None = None

    def head(self) -> list[str]:
        return [self.rows_are, *self.columns]

    def rows(self) -> list[list[str]]:
        """A line a metric that any model has: its name, and a cell a column."""
        values = list(self.columns.values())
        names = dict.fromkeys(name for each in values[: self.models] for name in each)
        return [
            [name, *(shown(each[name]) if name in each else "-" for each in values)]
            for name in names
        ]

    def ways(self) -> Mapping[str, Literal["min", "max"]]:
        """Which way a row's values are better, of those that have a better."""
        from genimg.judging import BETTER

        if self.rows_are != "metric":
            return {}
        return BETTER if self.better is None else self.better

    def named(self, row: str) -> str:
        """A row's name as it is read: with an arrow the way that is better."""
        ways = self.ways()
        return f"{row} {ARROWS[ways[row]]}" if row in ways else row

    def shown(self) -> list[list[str]]:
        """The rows, by their names as they are read."""
        return [[self.named(name), *cells] for name, *cells in self.rows()]

    def legend(self, mark: str = "*") -> str:
        """What the arrows and `mark` say, of those that are there; or nothing."""
        ways = self.ways()
        said = ["↓: less is better, ↑: more is"] * any(row[0] in ways for row in self.rows())
        return "; ".join(said + [f"{mark}: the best of the models"] * bool(self.marked()))

    def best(self) -> dict[str, list[str]]:
        """The best of several models by each metric that has a better."""
        if self.models < 2:
            return {}
        models = dict(list(self.columns.items())[: self.models])
        found: dict[str, list[str]] = {}
        for name, direction in self.ways().items():
            values = {who: each[name] for who, each in models.items() if name in each}
            if values:
                best = min(values.values()) if direction == "min" else max(values.values())
                found[name] = [who for who, value in values.items() if value == best]
        return found

    def marked(self) -> Marked:
        best, who = self.best(), list(self.columns)
        names = [row[0] for row in self.rows()]
        return {
            (names.index(name), who.index(each)) for name, which in best.items() for each in which
        }

    def text(self) -> str:
        """For a terminal; the best have a star."""
        rows, marked = self.shown(), self.marked()
        width = max(16, *(len(name) + 2 for name in self.columns))
        lines = [["", *self.columns], *rows] if len(self.columns) > 1 else rows
        told = []
        for number, (name, *cells) in enumerate(lines, start=len(rows) - len(lines)):
            several = [
                f"{cell + ('*' if (number, place) in marked else ''):>{width}}"
                for place, cell in enumerate(cells)
            ]
            told.append(" ".join([f"{name:24}", *(several if len(self.columns) > 1 else cells)]))
        return "\n".join(told)

    def markdown(self) -> str:
        """A table in which the best are bold."""
        marked = self.marked()
        head = map(cell_of, self.head())
        lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * len(self.columns)}"]
        for number, (name, *cells) in enumerate(self.shown()):
            told = [
                f"**{cell}**" if (number, place) in marked else cell
                for place, cell in enumerate(cells)
            ]
            lines.append(f"| {' | '.join([f'`{cell_of(name)}`', *told])} |")
        return "\n".join(lines)


def tell(table: Table) -> None:
    """Print it; what its arrows and stars say goes beside it, to standard error."""
    print(table.text())
    if legend := table.legend():
        say(legend)


def cell_of(text: str) -> str:
    """A name as a cell of a table in Markdown has it: in one line, without an end of the cell."""
    return " ".join(text.split()).replace("|", r"\|")


def as_json(tree: Any) -> str:
    """Of plain values; a number that is infinite or none becomes null, as JSON has no such."""
    return json.dumps(finite(tree), indent=2, allow_nan=False)


def finite(tree: Any) -> Any:
    """Plain values, in which None stands for every number that is infinite or none."""
    if isinstance(tree, Mapping):
        return {key: finite(value) for key, value in tree.items()}
    if isinstance(tree, Sequence) and not isinstance(tree, str):
        return [finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def told(protocol: Mapping[str, Any]) -> str:
    """How something was measured, in a line; of fingerprints and digests their beginnings."""
    brief = {
        name: value[:12] if name.endswith(("fingerprint", "digest")) else value
        for name, value in flat(protocol).items()
    }
    return "; ".join(f"{name}: {value}" for name, value in brief.items())


def flat(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """With what is nested under dotted names."""
    found: dict[str, Any] = {}
    for name, value in protocol.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": each for inner, each in value.items()}
        else:
            found[name] = value
    return found
