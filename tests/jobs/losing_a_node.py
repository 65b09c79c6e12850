"""An elastic training on two pretended nodes, one of which is lost, for test_train_on_own_cluster.

Usage: python losing_a_node.py STORAGE FIRST_CHECKPOINT RECIPE KEY=VALUE...
"""

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from jobs.train import train

SIZE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100_000_000}


def main(storage: str, first: str, recipe: str, *overrides: str) -> None:
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.1"
    # How long Ray waits for the lost node to come back, on what it still believes to have.
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = "5"
    with tempfile.TemporaryDirectory(prefix="gt", ignore_cleanup_errors=True) as folder:
        os.environ["RAY_TMPDIR"] = folder
        (Path(folder) / "ray").mkdir()
        cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **SIZE})
        other = cluster.add_node(**SIZE)
        ray.init(address=cluster.address, log_to_driver=False)

        def lose_a_node() -> None:
            while not Path(first).exists():
                time.sleep(0.01)
            cluster.remove_node(other, allow_graceful=False)

        watcher = threading.Thread(target=lose_a_node, daemon=True)
        watcher.start()
        try:
            train(recipe, list(overrides), storage=storage, workers="1..2")
        finally:
            ray.shutdown()
            cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
