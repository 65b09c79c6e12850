"""What chooses the values of the next trial, and never the same ones twice: they are one run."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from jobs.sweep import Sweep, Trial

OBJECTIVE = "objective"  # what searchers and schedulers go by; a finite number in every report
PATIENCE = 200  # draws before a space counts as exhausted


def worst(direction: str) -> float:
    """Stands for no number at all, which Optuna passes over; only its rank matters."""
    return 1e30 if direction == "min" else -1e30


class RandomSearch(Searcher):
    """Values drawn independently; first those of trials that were interrupted."""

    def __init__(self, sweep: Sweep, over: list[Trial], pending: list[dict[str, Any]]) -> None:
        super().__init__(metric=OBJECTIVE, mode=sweep.direction)
        self.domains = {key: each.domain() for key, each in sweep.space.items()}
        self.pending = list(pending)
        self.taken = {trial.name for trial in over}
        # another seed each time, or a continued sweep would begin with the same values
        self.generator = np.random.default_rng([sweep.base.train.seed, len(over)])

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        for _ in range(PATIENCE):
            values = self.pending.pop(0) if self.pending else self.draw()
            if (name := Trial.of(values).name) not in self.taken:
                self.taken.add(name)
                return values
        return Searcher.FINISHED

    def draw(self) -> dict[str, Any]:
        state = np.random.RandomState(self.generator.integers(2**32, dtype=np.uint32))
        return {key: plain(d.sample(random_state=state)) for key, d in self.domains.items()}

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
        self.taken = {trial.name for trial in over}
        for trial in over:
            value = sweep.value(trial.results[-1][1]) if trial.results else math.nan
            good = trial.state in ("finished", "stopped") and not math.isnan(value)
            self.add_evaluated_point(trial.values, value if good else worst(sweep.direction))

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        for _ in range(PATIENCE):
            values = super().suggest(trial_id)
            if (name := Trial.of(values).name) not in self.taken:
                self.taken.add(name)
                return values
        return Searcher.FINISHED


def plain(value: Any) -> Any:
    """As JSON has it."""
    return value.item() if isinstance(value, np.generic) else value
