"""A Ray cluster to work on: the one that is there, or a local one that ends with the work."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_AUTHENTICATION = "ray._private.authentication.authentication_token_setup"
_OBJECT_STORE = 200_000_000  # bytes; little passes through it


@contextmanager
def connect(cpus: int | None = None, dashboard: bool = False) -> Iterator[None]:
    """Within the block Ray is connected; afterwards nothing that was started here is left.

    Connects to RAY_ADDRESS where that is set (`ray job submit` sets it), keeps a connection that
    the process has already, or else starts a local cluster of `cpus` (None: all of them), with
    Ray's dashboard on this machine if asked. Its folder is short, for the sockets in it, and
    private, for the authentication token.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told that we train
    import ray

    if ray.is_initialized():
        yield
    elif os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING)
        try:
            yield
        finally:
            ray.shutdown()
    else:
        # It warns that a token guards the cluster, which is as it should be.
        logging.getLogger(_AUTHENTICATION).setLevel(logging.ERROR)
        # Beside our processes Ray has many that wait; it would warn of them on stdout.
        os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "16")
        with tempfile.TemporaryDirectory(prefix="gi", ignore_cleanup_errors=True) as folder:
            ray.init(
                address="local",
                num_cpus=cpus,
                object_store_memory=_OBJECT_STORE,
                include_dashboard=dashboard,
                logging_level=logging.WARNING,
                log_to_driver=False,
                _temp_dir=folder,
            )
            try:
                yield
            finally:
                ray.shutdown()
