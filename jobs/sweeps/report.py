"""What a sweep found: a table of its trials, and a picture of the search."""

from __future__ import annotations

import io
import json
import math
from typing import TYPE_CHECKING, Any

from jobs.console import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

    from jobs.sweeps.records import Sweep, Trial
    from jobs.sweeps.space import Range

PANELS = 5  # keys that are drawn at most
WIDTH = 3.2  # inches a panel
TICKS = 5  # of a panel, at most
LETTERS = 24  # of choices that have room beside one another


def table(sweep: Sweep, trials: list[Trial]) -> Table:
    """One row a trial, the best first."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    result = Table(box=box.SIMPLE, header_style="bold", pad_edge=False)
    result.add_column("trial", no_wrap=True)
    for key in sweep.space:
        result.add_column(key)
    result.add_column(f"best {sweep.metric}", justify="right")
    result.add_column("images", justify="right")
    result.add_column("ended")
    for trial in sweep.ranked(trials):
        value = sweep.best_value(trial)
        images = trial.results[-1][0] if trial.results else 0
        ended: str = trial.state if trial.over else "interrupted"
        ended += f": {trial.reason}" if trial.reason else ""
        result.add_row(
            trial.name,
            *(cell(trial.values.get(key)) for key in sweep.space),
            "-" if math.isnan(value) else shown(value),
            f"{images:,}",
            escape(ended),
        )
    return result


def cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def picture(sweep: Sweep, trials: list[Trial]) -> bytes:
    """A PNG: every trial over the images trained on, and the metric over each key.

    Trials that were stopped early are gray, those without a value crosses at the edge, the best
    one is orange.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import EngFormatter

    keys = list(sweep.space)[:PANELS]
    columns = 1 + len(keys)
    apart = ConstrainedLayoutEngine(w_pad=0.1)
    figure = Figure(figsize=(WIDTH * columns + 1, 3.2), layout=apart)
    axes = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    ranked = sweep.ranked(trials)
    for place, trial in reversed(list(enumerate(ranked))):  # the best on top
        value = sweep.best_value(trial)
        if math.isnan(value):
            continue
        color = "tab:orange" if place == 0 else "0.65" if trial.state == "stopped" else "tab:blue"
        points = [(seen, sweep.value(metrics)) for seen, metrics in trial.results]
        axes[0].plot(*zip(*points, strict=True), marker="o", markersize=3, color=color)
        for axis, key in zip(axes[1:], keys, strict=True):
            place = position(sweep.space[key], trial.values[key])
            axis.plot(place, value, marker="o", color=color)
    failed = [trial for trial in trials if math.isnan(sweep.best_value(trial))]
    for axis, key in zip(axes[1:], keys, strict=True):
        for trial in failed:
            axis.plot(
                position(sweep.space[key], trial.values[key]), 1.0, marker="x", color="tab:red",
                clip_on=False, transform=axis.get_xaxis_transform(),
            )  # fmt: skip
        axis.set_xlabel(key)
        divide(axis, sweep.space[key])
    axes[0].set_xlabel("images")
    axes[0].locator_params(axis="x", nbins=4)
    axes[0].xaxis.set_major_formatter(EngFormatter(sep=""))
    axes[0].set_ylabel(f"{sweep.metric} ({sweep.direction} is best)")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize="small")
    out = io.BytesIO()
    figure.savefig(out, dpi=110)
    return out.getvalue()


def position(values: Range, value: Any) -> Any:
    """Where a value lies in its panel: a choice by its number among them, a number where it is."""
    if values.form != "choice":
        return value
    return [json.dumps(each) for each in values.arguments].index(json.dumps(value))


def divide(axis: Axes, values: Range) -> None:
    """Scale, limits and ticks of a panel, so that no two labels lie over one another."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    if values.form == "choice":
        names = [str(value) for value in values.arguments]
        axis.set_xlim(-0.5, len(names) - 0.5)
        axis.set_xticks([*map(float, range(len(names)))], names)
        if sum(map(len, names)) > LETTERS:
            axis.tick_params(axis="x", labelrotation=30)
        return
    low, high = values.ends()
    if high > low:
        axis.set_xlim(low, high)
    if not values.logarithmic:
        integers = values.form.endswith("int")
        axis.xaxis.set_major_locator(MaxNLocator(TICKS, integer=integers, steps=(1, 2, 5, 10)))
        return
    axis.set_xscale("log")
    axis.xaxis.set_minor_locator(NullLocator())
    places = logarithmic_ticks(low, high)
    axis.set_xticks(places, [f"{place:.3g}" for place in places])


def logarithmic_ticks(low: float, high: float) -> list[float]:
    """At most TICKS: 1, 2 and 5 of each decade, or decades; the ends where there are no two."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    tens = [10.0**power for power in range(first, last + 1)]
    fine = [factor * ten for ten in tens for factor in (1, 2, 5)]
    for places in (fine, tens, *(tens[::step] for step in range(2, len(tens)))):
        inside = [place for place in places if low * 0.999 <= place <= high * 1.001]
        if len(inside) <= TICKS:
            return inside if len(inside) > 1 else [low, high]
    return [low, high]
