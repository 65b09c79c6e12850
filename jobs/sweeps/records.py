"""A sweep's folder in storage: what is searched, and what became of each trial, as plain JSON.

STORAGE/SWEEP/sweep.json          the recipe and what varies
STORAGE/SWEEP/trials/NAME.json    a trial: its values, its evaluations, how it ended
STORAGE/SWEEP/runs/NAME/          its run (see jobs.runs.folder)
STORAGE/SWEEP/sweep.png           a picture of the search
"""

from __future__ import annotations

import hashlib
import json
import math
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from cluster.places import open_storage
from cluster.storage import AlreadyExists, NotFound
from genimg import recipes
from genimg.errors import InputError
from genimg.recipe import Recipe
from jobs.runs.folder import NAME, History, RunFolder
from jobs.sweeps.space import Range, override_of

State = Literal["running", "finished", "stopped", "no number", "diverged", "infeasible", "failed"]


@dataclass(frozen=True)
class Trial:
    """One set of values and what became of it."""

    name: str  # of its run; follows from the values, so that the same ones resume it
    values: dict[str, Any]
    state: State = "running"
    reason: str = ""
    results: History = field(default_factory=list)  # (images seen, metrics), ascending

    @classmethod
    def of(cls, values: dict[str, Any]) -> Trial:
        text = json.dumps(values, sort_keys=True)
        return cls(f"trial-{hashlib.sha256(text.encode()).hexdigest()[:10]}", values)

    @property
    def over(self) -> bool:
        return self.state != "running"

    def evaluated(self, seen: int, metrics: dict[str, float]) -> Trial:
        """This trial with one evaluation more; one that is known already changes nothing."""
        if any(at == seen for at, _ in self.results):
            return self
        return replace(self, results=sorted([*self.results, (seen, metrics)]))

    def recipe(self, base: Recipe) -> Recipe:
        """Raises InputError where the values do not go together."""
        return base.override([override_of(key, value) for key, value in self.values.items()])


class Sweep:
    """The records of one sweep. Starting the same name again continues it."""

    def __init__(self, storage: str, name: str, base: Recipe, space: dict[str, Range]) -> None:
        if not NAME.fullmatch(name):
            raise InputError(f"--run {name!r}: use letters, digits, '.', '_' and '-'")
        self.url = f"{storage.rstrip('/')}/{name}"
        self.name = name
        self.base = base
        self.space = space
        self.storage = open_storage(storage)
        self.metric, self.direction = base.chosen_by

    @property
    def combinations(self) -> float:
        """How many different trials there can be."""
        return math.prod(each.size for each in self.space.values())

    def refuse_other(self) -> None:
        """InputError where the name is taken by a run, or by a sweep of something else."""
        if self.storage.exists(f"{self.name}/recipe.json"):
            raise InputError(f"--run {self.name}: is the name of a training; give another")
        with suppress(NotFound):
            before = self.read(f"{self.name}/sweep.json", "recipe", "space")
            different = recipes.from_json(json.dumps(before["recipe"])).differences(self.base)
            if different:
                key, (old, new) = next(iter(different.items()))
                raise InputError(
                    f"sweep {self.name!r} was started with {key}={old}, now {key}={new}; "
                    "give the same value to continue it, or another --run"
                )
            if before["space"] != self.described()["space"]:
                was = " ".join(f"{key}={text}" for key, text in before["space"].items())
                raise InputError(
                    f"sweep {self.name!r} was started over {was}; "
                    "give the same to continue it, or another --run"
                )

    def start(self) -> None:
        try:
            text = json.dumps(self.described(), indent=2)
            self.storage.create(f"{self.name}/sweep.json", text.encode())
        except AlreadyExists:
            self.refuse_other()

    def read(self, key: str, *fields: str) -> dict[str, Any]:
        """A record, or InputError where it is not one."""
        try:
            content = json.loads(self.storage.read(key)[0])
            assert set(fields) <= content.keys()
        except (ValueError, AssertionError, AttributeError):
            raise InputError(f"{self.storage}/{key}: damaged; delete it, or the sweep") from None
        return dict(content)

    def described(self) -> dict[str, Any]:
        recipe = json.loads(self.base.model_dump_json())
        return {"recipe": recipe, "space": {key: each.text for key, each in self.space.items()}}

    def trials(self) -> list[Trial]:
        """All that were started, in the order of their names."""
        found = []
        for key in self.storage.list(f"{self.name}/trials"):
            content = self.read(key, "name", "values", "state", "reason", "results")
            results = [
                (seen, {name: math.nan if v is None else v for name, v in metrics.items()})
                for seen, metrics in content.pop("results")
            ]
            found.append(Trial(**content, results=results))
        return found

    def save(self, trial: Trial) -> None:
        content = asdict(trial)
        content["results"] = [
            (seen, {name: v if math.isfinite(v) else None for name, v in metrics.items()})
            for seen, metrics in trial.results
        ]
        text = json.dumps(content, indent=2, allow_nan=False)
        self.storage.write(f"{self.name}/trials/{trial.name}.json", text.encode())

    def caught_up(self, trial: Trial) -> Trial:
        """A trial with what its run has saved besides; written down if there was more."""
        after = trial
        for seen, metrics in self.run(trial).history():
            after = after.evaluated(seen, metrics)
        if after is not trial:
            self.save(after)
        return after

    def run(self, trial: Trial) -> RunFolder:
        return RunFolder(f"{self.url}/runs", trial.name)

    def value(self, metrics: dict[str, float]) -> float:
        """The metric that the recipe is judged by; NaN where it is no number."""
        value = metrics.get(self.metric, math.nan)
        return value if math.isfinite(value) else math.nan

    def best_value(self, trial: Trial) -> float:
        """The best of a trial's evaluations; NaN without one."""
        values = [self.value(metrics) for _, metrics in trial.results]
        known = [value for value in values if not math.isnan(value)]
        return (min if self.direction == "min" else max)(known, default=math.nan)

    def usable(self, trial: Trial) -> bool:
        """Whether a trial has a value, and a checkpoint: the last one may not have been saved."""
        return not math.isnan(self.best_value(trial)) and bool(self.run(trial).checkpoints())

    def ranked(self, trials: list[Trial]) -> list[Trial]:
        """The best first, those without a value last."""

        def order(trial: Trial) -> tuple[bool, float]:
            value = self.best_value(trial)
            return math.isnan(value), value if self.direction == "min" else -value

        return sorted(trials, key=order)
