"""A job done on a cluster by Ray Data: each worker an actor that loads the model once."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator, Sequence
from dataclasses import asdict
from typing import Any

import ray
import ray.data
from ray.exceptions import RayError

from cluster.local import connect
from genimg.errors import InputError
from jobs.offline.job import MANY, Chunk, Job, Outcome
from jobs.runs.on_ray import refuse_infeasible

RETRIES = 3  # of a chunk whose worker died


class Doer:
    """A worker as Ray Data calls it."""

    def __init__(self, job: str) -> None:
        from jobs.offline.worker import Worker

        self.worker = Worker(Job.read(job))

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        return {"outcome": json.dumps(asdict(self.worker(Chunk.read(row["chunk"]))))}


def do_on_ray(job: Job, chunks: Sequence[Chunk], workers: int) -> Generator[Outcome, None, None]:
    """Outcomes of chunks as they come, in any order.

    Workers have a CPU each, and where the cluster has GPUs one each. One that dies is replaced, and
    its chunk done again but for what had been written, up to RETRIES times: raises InputError
    where that does not help.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    with connect():
        gpus = ray.cluster_resources().get("GPU", 0) > 0
        refuse_infeasible(workers, 1, gpus)
        ray.data.DataContext.get_current().enable_progress_bars = False  # there is the Meter
        rows = [{"chunk": chunk.text()} for chunk in chunks]
        outcomes = ray.data.from_items(rows, override_num_blocks=min(len(rows), MANY)).map(
            Doer,  # type: ignore[arg-type]  # a class is called where its instances are
            fn_constructor_args=(job.text(),),
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(rows))),
            num_cpus=1,
            num_gpus=1 if gpus else 0,
            max_task_retries=RETRIES,
        )
        try:
            for row in outcomes.iter_rows():
                yield Outcome(**json.loads(row["outcome"]))
        except RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(
                f"a worker was lost {RETRIES + 1} times over the same images ({reason}); if it had"
                " no memory left, ask for fewer --workers or a smaller --tile; the same command"
                " goes on with what is left"
            ) from error
