"""What is said of model versions, and of the moves of their aliases."""

import json
import math
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from cluster.aliases import Promotion
    from cluster.versions import Version


def describe(version: "Version", aliases: list[str]) -> dict[str, Any]:
    """What lists say of a version, in JSON values; metrics that are no number are null."""
    return {
        "name": version.name,
        "version": version.number,
        "aliases": aliases,
        "created": version.created,
        "metrics": {
            name: value if math.isfinite(value) else None for name, value in version.metrics.items()
        },
    }


def print_move(name: str, move: "Promotion") -> None:
    if move.version == move.previous:
        typer.echo(f"{name}@{move.alias} names version {move.version} already")
    else:
        typer.echo(sentence(name, vars(move)))


def sentence(name: str, move: dict[str, Any]) -> str:
    """One move of an alias in words."""
    after, before = (
        "nothing" if number is None else f"version {number}"
        for number in (move["version"], move["previous"])
    )
    alias = f"{name}@{move['alias']}"
    return f"{alias} names {after} (before: {before}), {move['action']} by {move['by']}"


def figure(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.5g}"


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
