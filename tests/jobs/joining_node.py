"""An elastic training that a second pretended node joins, for test_train_on_own_cluster.

It is stopped once a checkpoint of two workers is there.

Usage: python joining_node.py STORAGE RECIPE KEY=VALUE...
"""

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from genimg import checkpoint
from jobs.runs import on_ray
from jobs.runs.folder import RunFolder
from jobs.runs.worker import Job
from jobs.train import complete_recipe

SIZE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100_000_000}


def main(storage: str, name: str, *overrides: str) -> None:
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.1"
    on_ray.RESIZE_EVERY = 1.0
    recipe = complete_recipe(name, list(overrides), None)
    folder = RunFolder(storage, name)
    folder.start(recipe)
    stop = threading.Event()
    errors: list[BaseException] = []

    def train() -> None:
        try:
            on_ray.train_on_ray(
                Job(recipe.model_dump_json(), name, storage),
                workers=(1, 2),
                cpus_per_worker=1,
                use_gpu=False,
                max_failures=0,
                warn=print,
                stop=stop,
            )
        except BaseException as error:
            errors.append(error)

    training = threading.Thread(target=train)
    with tempfile.TemporaryDirectory(prefix="gt", ignore_cleanup_errors=True) as scratch:
        os.environ["RAY_TMPDIR"] = scratch
        (Path(scratch) / "ray").mkdir()
        cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **SIZE})
        ray.init(address=cluster.address, log_to_driver=False)
        try:
            training.start()
            while training.is_alive() and not (Path(storage) / name / "tensorboard").exists():
                time.sleep(0.1)
            cluster.add_node(**SIZE)
            while training.is_alive() and 2 not in workers(folder):
                time.sleep(0.2)
            stop.set()
            training.join()
        finally:
            ray.shutdown()
            cluster.shutdown()
    if errors:
        raise errors[0]


def workers(folder: RunFolder) -> set[int]:
    """How many workers there were at the checkpoints that there are."""
    places = [Path(folder.path(seen)) for seen in folder.checkpoints()]
    return {checkpoint.read_manifest(place).lineage["workers"] for place in places}


if __name__ == "__main__":
    main(*sys.argv[1:])
