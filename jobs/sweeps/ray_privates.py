"""What touches the privates of Ray Tune (2.60): the one place to look at with the next version."""

from __future__ import annotations

import logging
import os
from typing import Any

from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch


def prepare_environment() -> None:
    """Ray Tune neither prints nor writes: the sweep's own records replace its loggers."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)


def propose(search: OptunaSearch, values: dict[str, Any]) -> None:
    """Have Optuna suggest these values next."""
    study: Any = search._ot_study
    study.enqueue_trial(values)


def withdraw(search: OptunaSearch, trial_id: str) -> None:
    """Forget what was suggested for a trial, or it would be suggested for that trial again."""
    study: Any = search._ot_study
    study.tell(search._ot_trials.pop(trial_id), state=TrialState.FAIL)
