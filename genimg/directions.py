"""Directions among latents along which an attribute of the images changes, found from samples."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genimg import checkpoint, hashed_files
from genimg.contracts import Ability
from genimg.errors import InputError, nearest
from genimg.labels import plain

FILE = "directions.json"  # of a checkpoint folder, where there are some
LEAST = 0.1  # R^2 below which an attribute does not follow the latents, and there is no direction
SEEN = 4  # samples for each latent, at least
STEERED = ("sample", "interpolate", "traverse", "vary", "decode", "mix")


@dataclass(frozen=True)
class Direction:
    """vector: float32 [D], which changes the attribute by one standard deviation of the samples'

    r2: share of the attribute's variance that a linear function of the latents explains, of
        samples that it was not found from
    deviation: of the attribute, in its own unit
    """

    vector: Tensor
    r2: float
    deviation: float


def find(
    latents: Tensor, attributes: Mapping[str, Tensor], groups: Tensor | None = None
) -> dict[str, Direction]:
    """Directions by least squares of latents float32 [N, D] and attributes [N].

    Found from the first three quarters of the samples, and judged by the last one. An attribute of
    which no two samples differ has R^2 0.
    groups: int64 [N], classes that images were told to be of: what differs from one to another is
        none of the latents' doing, and left out
    """
    count, dimensions = latents.shape
    refuse_few(count, dimensions)
    known = 3 * count // 4
    x = latents.double()
    x = x - x[:known].mean(dim=0)
    squares = x[:known].T @ x[:known]
    squares += 1e-6 * known * torch.eye(dimensions, dtype=torch.float64)  # or it may be singular
    factor = torch.linalg.cholesky(squares)  # once: of many latents it takes the most
    found = {}
    for name, values in attributes.items():
        y = within(values.double(), groups)
        y = y - y[:known].mean()
        weights = torch.cholesky_solve(x[:known].T @ y[:known, None], factor)[:, 0]
        rest, total = (y - x @ weights)[known:], y[known:].square().sum().item()
        r2 = 1 - rest.square().sum().item() / total if total > 1e-12 else 0.0
        deviation = y.std().item()
        vector = weights * deviation / weights.square().sum().clamp_min(1e-30)
        found[name] = Direction(vector.float(), r2, deviation)
    return found


def refuse_few(samples: int, dimensions: int) -> None:
    """InputError for fewer samples than so many latents call for."""
    if samples < SEEN * dimensions:
        raise InputError(
            f"samples={samples}: too few for {dimensions} latents; give {SEEN * dimensions} or more"
        )


def within(values: Tensor, groups: Tensor | None) -> Tensor:
    """Values [N] without the mean of each one's group."""
    if groups is None:
        return values
    one = torch.nn.functional.one_hot(groups).double()
    return values - one @ ((one.T @ values) / one.sum(dim=0).clamp_min(1))


def log_odds(probabilities: Tensor) -> Tensor:
    """Of probabilities, whatever shape; bounded, as those of a classifier come near to 0 and 1."""
    return torch.logit(probabilities.double(), eps=1e-4)


def told(directions: Mapping[str, Direction]) -> str:
    """As JSON."""
    tree = {
        name: {"r2": each.r2, "deviation": each.deviation, "vector": each.vector.tolist()}
        for name, each in directions.items()
    }
    return json.dumps(tree, indent=2) + "\n"


def read(folder: Path) -> dict[str, Tensor]:
    """The vectors of a verified checkpoint, by the names of their attributes; none if it has none.

    Each float32 [D].
    """
    if FILE not in checkpoint.read_manifest(folder).files:
        return {}
    return vectors(checkpoint.read_json(folder, FILE))


def vectors(tree: Mapping[str, Any]) -> dict[str, Tensor]:
    """Of the JSON that `told` has written."""
    return {name: torch.tensor(each["vector"]) for name, each in tree.items()}


def add(folder: Path, place: Path, directions: Mapping[str, Direction]) -> Path:
    """Make `place` a checkpoint of what inference needs of a verified one, with directions."""
    checkpoint.without_training_state(folder, place)
    manifest = checkpoint.read_manifest(place)
    (place / FILE).unlink(missing_ok=True)  # a link to the original: not to be written to
    files = manifest.files | {FILE: hashed_files.write(place / FILE, told(directions).encode())}
    whole = replace(manifest, files=files)
    (place / checkpoint.MANIFEST).write_text(whole.text())
    return place


def steered(
    abilities: Mapping[str, Ability], directions: Mapping[str, Tensor]
) -> dict[str, Ability]:
    """Abilities, of which those that draw take directions, where there are some."""
    if not directions:
        return dict(abilities)
    return {
        name: replace(each, conditions=each.conditions | {"direction"}, directions=dict(directions))
        if name in STEERED
        else each
        for name, each in abilities.items()
    }


def shift_of(text: str, directions: Mapping[str, Tensor]) -> Tensor:
    """float32 [D] of what a person wrote, as thickness=1.5,slant=-1; or InputError.

    A name may have commas in it: a part goes on until it begins with the name of a direction.
    """
    known = {plain(name): vector for name, vector in directions.items()}
    commas = max(name.count(",") for name in known)
    steps: dict[str, float] = {}
    parts: list[str] = []  # of what is no direction yet
    for piece in text.split(","):
        parts.append(piece)
        name, _, number = (plain(word) for word in ",".join(parts).rpartition("="))
        if name in known:
            steps[name] = steps.get(name, 0.0) + length_of(number, text, name)
            parts = []
        elif len(parts) > commas:
            break
    if parts:
        name, _, number = (plain(word) for word in parts[0].rpartition("="))
        raise InputError(
            f"direction={text!r}: unknown direction {name or number!r};"
            f" {nearest(name or number, known)}"
        )
    return torch.stack([step * known[name] for name, step in steps.items()]).sum(dim=0)


def length_of(number: str, text: str, name: str) -> float:
    try:
        length = float(number)
    except ValueError:
        length = math.nan
    if not abs(length) <= 100:
        raise InputError(
            f"direction={text!r}: {name} is {number!r}; give standard deviations, as in {name}=1.5"
        )
    return length


def clear(directions: Mapping[str, Direction]) -> dict[str, Direction]:
    """Those along which an attribute really changes, the clearest first."""
    names: Iterable[str] = sorted(directions, key=lambda name: -directions[name].r2)
    return {name: directions[name] for name in names if directions[name].r2 >= LEAST}
