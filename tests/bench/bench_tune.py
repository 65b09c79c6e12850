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


def measure(quick: bool) -> list[Row]:
    """Trials of one worker, one after the other, on one local cluster that is up already."""
    rounds, trials = (1, 3) if quick else (3, 6)
    with tempfile.TemporaryDirectory() as place, connect(dashboard=True):
        search(f"{place}/warm", 1)
        took = []
        for turn in range(rounds):
            one, many = (search(f"{place}/{turn}-{n}", n) for n in (1, trials))
            took.append((many - one) / (trials - 1))
        began = time.perf_counter()
        with redirect_stdout(io.StringIO()):
            train("dcgan", TINY, name="here", workers="0", storage=place)
        alone = time.perf_counter() - began
    note = f"the training itself takes {alone:.1f} s in this process"
    return [Row("a trial of a sweep on Ray, all in all", "s", median(took), note=note)]


def search(place: str, trials: int) -> float:
    """Seconds of a sweep."""
    began = time.perf_counter()
    with redirect_stdout(io.StringIO()):
        tune(
            "dcgan", [*TINY, "train.lr=loguniform(1e-4,1e-2)"], trials=trials, scheduler="none",
            searcher="random", concurrent=1, storage=place, name="bench",
        )  # fmt: skip
    return time.perf_counter() - began
