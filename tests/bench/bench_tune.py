"""What a trial of a sweep costs beyond its training: processes, placement, records."""

from __future__ import annotations

import io
import tempfile
import time
from contextlib import redirect_stdout
from statistics import median

from measuring import Row

from cluster.local import connect
from jobs.train import train
from jobs.tune import tune

# Training takes a fraction of a second, so that nearly all the time is what surrounds it.
TINY = [
    "data.size=16", "data.holdout=32", "model.width=4", "model.latent=8", "model.depth=0",
    "evaluation.samples=32", "train.batch_size=32", "train.images=64", "train.log_every=64",
]  # fmt: skip


AT_MOST = 4.0  # seconds


def measure(quick: bool) -> list[Row]:
    """Trials one after the other on one local cluster that is up already, but for the first."""
    rounds, trials = (1, 3) if quick else (3, 6)
    with tempfile.TemporaryDirectory() as place, connect(dashboard=True):
        search(f"{place}/warm", 1)
        took = [
            (search(f"{place}/{turn}-many", trials) - search(f"{place}/{turn}-one", 1))
            / (trials - 1)
            for turn in range(rounds)
        ]
        group = search(f"{place}/two-many", 3, workers=2) - search(f"{place}/two-one", 1, workers=2)
        alone = min(trained(f"{place}/here-{turn}") for turn in range(2))  # the first imports
    note = f"the training itself takes {alone:.2f} s, which is not in it"
    return [
        Row(
            "what a trial of one worker costs beside its training", "s", median(took) - alone,
            at_most=AT_MOST, note=note,
        ),
        Row("likewise of two workers, on Ray Train", "s", group / 2 - alone, note=note),
    ]  # fmt: skip


def search(place: str, trials: int, workers: int = 1) -> float:
    """Seconds of a sweep."""
    began = time.perf_counter()
    with redirect_stdout(io.StringIO()):
        tune(
            "dcgan", [*TINY, "train.lr=loguniform(1e-4,1e-2)"], trials=trials, scheduler="none",
            searcher="random", concurrent=1, storage=place, name="bench", workers=workers,
        )  # fmt: skip
    return time.perf_counter() - began


def trained(place: str) -> float:
    """Seconds of the training alone, in this process."""
    began = time.perf_counter()
    with redirect_stdout(io.StringIO()):
        train("dcgan", TINY, name="here", workers="0", storage=place)
    return time.perf_counter() - began
