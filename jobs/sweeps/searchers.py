"""What chooses the values of the next trial, and never the same ones twice: they are one run."""

from __future__ import annotations

import itertools
import logging
import math
from typing import Any

import numpy as np
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from jobs.sweeps.ray_privates import propose, withdraw
from jobs.sweeps.records import Sweep, Trial

OBJECTIVE = "objective"  # what searchers and schedulers go by; a finite number in every report
PATIENCE = 20  # draws of what was tried, before one of the others is chosen
LISTED = 100_000  # combinations that are ever listed for that


def worst(direction: str) -> float:
    """Stands for no number at all, which Optuna passes over; only its rank matters."""
    return 1e30 if direction == "min" else -1e30


def untried_values(sweep: Sweep, taken: set[str]) -> list[dict[str, Any]]:
    """All values that no trial has had; none where they cannot be listed."""
    if sweep.combinations > LISTED:
        return []
    every = itertools.product(*(each.values() for each in sweep.space.values()))
    found = [dict(zip(sweep.space, values, strict=True)) for values in every]
    return [values for values in found if Trial.of(values).name not in taken]


class RandomSearch(Searcher):
    """Values drawn independently; first those of trials that were interrupted."""

    def __init__(self, sweep: Sweep, over: list[Trial], pending: list[dict[str, Any]]) -> None:
        super().__init__(metric=OBJECTIVE, mode=sweep.direction)
        self.sweep = sweep
        self.domains = {key: each.domain() for key, each in sweep.space.items()}
        self.pending = list(pending)
        self.taken = {trial.name for trial in over}
        self.exhausted = False
        # another seed each time, or a continued sweep would begin with the same values
        self.generator = np.random.default_rng([sweep.base.train.seed, len(over)])

    def suggest(self, trial_id: str) -> Any:
        """Values, or Searcher.FINISHED: a string, which Ray's own type leaves out."""
        for _ in range(PATIENCE):
            values = self.pending.pop(0) if self.pending else self.draw()
            if self.take(values):
                return values
        left = untried_values(self.sweep, self.taken)
        self.exhausted = not left
        if not left:
            return Searcher.FINISHED
        values = left[self.generator.integers(len(left))]
        self.take(values)
        return values

    def take(self, values: dict[str, Any]) -> bool:
        """Whether nobody has had these values; they are taken now."""
        name = Trial.of(values).name
        new = name not in self.taken
        self.taken.add(name)
        return new

    def draw(self) -> dict[str, Any]:
        state = np.random.RandomState(self.generator.integers(2**32, dtype=np.uint32))
        return {key: as_json(d.sample(random_state=state)) for key, d in self.domains.items()}

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        pass


class LearningSearch(OptunaSearch):
    """Optuna's tree-structured Parzen estimator, told of the trials that are over."""

    def __init__(self, sweep: Sweep, over: list[Trial], pending: list[dict[str, Any]]) -> None:
        logging.getLogger("optuna").setLevel(logging.WARNING)
        domains = {key: each.domain() for key, each in sweep.space.items()}
        super().__init__(
            OptunaSearch.convert_search_space(domains),
            metric=OBJECTIVE,
            mode=sweep.direction,
            points_to_evaluate=pending or None,
            seed=sweep.base.train.seed + len(over),
        )
        self.sweep = sweep
        self.taken = {trial.name for trial in over}
        self.exhausted = False
        for trial in over:
            value = sweep.value(trial.results[-1][1]) if trial.results else math.nan
            good = trial.state in ("finished", "stopped") and not math.isnan(value)
            self.add_evaluated_point(trial.values, value if good else worst(sweep.direction))

    def suggest(self, trial_id: str) -> Any:
        """Values, or Searcher.FINISHED: a string, which Ray's own type leaves out."""
        for attempt in itertools.count(1):
            if attempt > PATIENCE:
                left = untried_values(self.sweep, self.taken)
                self.exhausted = not left
                if not left:
                    return Searcher.FINISHED
                propose(self, left[attempt % len(left)])
            values = super().suggest(trial_id)
            assert values is not None, "nothing limits how many it suggests"
            name = Trial.of(values).name
            if name not in self.taken:
                self.taken.add(name)
                return values
            withdraw(self, trial_id)
        raise AssertionError("the loop ends by returning")

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Optuna makes nothing of values on the way, and warns when a restarted trial repeats."""


def as_json(value: Any) -> Any:
    """As JSON has it."""
    return value.item() if isinstance(value, np.generic) else value
