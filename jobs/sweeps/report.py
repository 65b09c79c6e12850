"""What a sweep found: a table of its trials, and a picture of the search."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

from jobs.console import shown

if TYPE_CHECKING:
    from rich.table import Table

    from jobs.sweeps.records import Sweep, Trial

PANELS = 5  # keys that are drawn at most
WIDTH = 3.2  # inches a panel


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
    from matplotlib.ticker import LogLocator, NullFormatter

    keys = list(sweep.space)[:PANELS]
    columns = 1 + len(keys)
    figure = Figure(figsize=(WIDTH * columns + 1, 3.2), layout="constrained")
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
            axis.plot(position(trial.values[key]), value, marker="o", color=color)
    failed = [trial for trial in trials if math.isnan(sweep.best_value(trial))]
    for axis, key in zip(axes[1:], keys, strict=True):
        for trial in failed:
            axis.plot(
                position(trial.values[key]), 1.0, marker="x", color="tab:red", clip_on=False,
                transform=axis.get_xaxis_transform(),
            )  # fmt: skip
        axis.set_xlabel(key)
        if sweep.space[key].logarithmic:
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(NullFormatter())
        if sweep.space[key].form != "choice" and sweep.space[key].size > 1:
            axis.set_xlim(*sweep.space[key].ends())
    axes[0].set_xlabel("images")
    axes[0].locator_params(axis="x", nbins=4)
    axes[0].set_ylabel(f"{sweep.metric} ({sweep.direction} is best)")
    for axis in axes:
        axis.grid(alpha=0.3)
    out = io.BytesIO()
    figure.savefig(out, dpi=110)
    return out.getvalue()


def position(value: Any) -> Any:
    """Numbers where they are, anything else by its name."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if number else str(value)
