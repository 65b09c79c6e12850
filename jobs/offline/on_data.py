"""A job done on a cluster by Ray Data: each worker an actor that loads the model once."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Generator, Sequence
from dataclasses import asdict
from typing import Any

import ray
import ray.data
from ray.util.annotations import RayDeprecationWarning

from cluster.local import connect
from jobs.offline.job import MANY, Chunk, Job, Outcome
from jobs.runs.on_ray import refuse_infeasible

RETRIES = 3  # of a chunk whose worker died
LOST = (
    f"{RETRIES + 1} workers were lost over it or an image near it; if they had no memory left,"
    " fewer --workers or a smaller --tile may help"
)


class Doer:
    """A worker as Ray Data calls it."""

    def __init__(self, job: str) -> None:
        from jobs.offline.by_engine import ByEngine
        from jobs.offline.worker import Worker

        told = Job.read(job)
        self.worker = Worker(told, ByEngine(told))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        outcome = self.worker(Chunk.read(row["chunk"]))
        return {"number": row["number"], "outcome": json.dumps(asdict(outcome))}


def do_on_ray(job: Job, chunks: Sequence[Chunk], workers: int) -> Generator[Outcome, None, None]:
    """Outcomes of chunks as they come, in any order.

    Workers have a CPU each, and where the cluster has GPUs one each. One that dies is replaced, and
    its chunk done again but for what had been written; where that does not help, RETRIES times,
    what is left of the chunk has failed.
    """
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails we tell ourselves
    # its core warns that arguments could be lost with which it would start a worker again
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with connect(), warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)
        gpus = ray.cluster_resources().get("GPU", 0) > 0
        refuse_infeasible(workers, 1, gpus)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # there is the Meter
        context.max_errored_blocks = -1  # any number
        rows = [{"number": n, "chunk": chunk.text()} for n, chunk in enumerate(chunks)]
        outcomes = ray.data.from_items(rows, override_num_blocks=min(len(rows), MANY)).map(
            Doer,  # type: ignore[arg-type]  # a class is called where its instances are
            fn_constructor_args=(job.text(),),
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(rows))),
            num_cpus=1,
            num_gpus=1 if gpus else 0,
            ray_remote_args_fn=lambda: {"max_task_retries": RETRIES},
        )
        lost = dict(enumerate(chunks))
        for row in outcomes.iter_rows():
            del lost[row["number"]]
            yield Outcome(**json.loads(row["outcome"]))
        for chunk in lost.values():
            names = [job.what(item) for item in chunk.items]
            names = names or [job.key(number) for number in range(chunk.start, chunk.stop)]
            yield Outcome(0, [[name, LOST] for name in names])
