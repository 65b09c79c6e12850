"""Two pretended nodes of Ray as Serve is started on clusters, for test_chaos.

Prints their address; at a line of stdin the second is lost, at its end the first goes as well.
"""

import os
import sys
import tempfile
from pathlib import Path

from jobs.server.ray_privates import private_places, set_flags

SIZE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100_000_000}


def main() -> None:
    set_flags(within=False)
    with (
        tempfile.TemporaryDirectory(prefix="gt", ignore_cleanup_errors=True) as folder,
        private_places(60.0),
    ):
        os.environ["RAY_TMPDIR"] = folder
        (Path(folder) / "ray").mkdir()
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **SIZE})
        other = cluster.add_node(**SIZE)
        print(cluster.address, flush=True)
        if sys.stdin.readline():
            cluster.remove_node(other, allow_graceful=False)
            print("lost", flush=True)
        sys.stdin.read()
        cluster.shutdown()


if __name__ == "__main__":
    main()
