"""A Ray cluster to work on: the one that is there, or a local one that ends with the work."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from cluster.ray_privates import lean

_AUTHENTICATION = "ray._private.authentication.authentication_token_setup"
_OBJECT_STORE = 200_000_000  # bytes; little passes through it


@contextmanager
def connect(cpus: int | None = None, dashboard: bool = False) -> Iterator[None]:
    """Within the block Ray is connected; afterwards nothing that was started here is left.

    Connects to RAY_ADDRESS where that is set (`ray job submit` sets it), keeps a connection that
    the process has already, or else starts a local cluster of `cpus` (None: all of them), with
    Ray's dashboard on this machine if asked. Its folder is short, for the sockets in it, and
    private, for the authentication token. SIGTERM is there what Ctrl-C is.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told that we train
    import ray

    if ray.is_initialized():
        yield
    elif os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING)
        try:
            with _terminated_like_interrupted():
                yield
        finally:
            ray.shutdown()
    else:
        # It warns that a token guards the cluster, which is as it should be.
        logging.getLogger(_AUTHENTICATION).setLevel(logging.ERROR)
        # Beside our processes Ray has many that wait; it would warn of them on stdout.
        os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "16")
        with tempfile.TemporaryDirectory(prefix="gi", ignore_cleanup_errors=True) as folder:
            with lean(dashboard):
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    object_store_memory=_OBJECT_STORE,
                    include_dashboard=dashboard,
                    logging_level=logging.WARNING,
                    log_to_driver=False,
                    _temp_dir=folder,
                )
            _tighten_token()
            try:
                with _terminated_like_interrupted():
                    yield
            finally:
                ray.shutdown()


def _tighten_token() -> None:
    """Ray writes the token that guards its ports so that others can read it."""
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    with suppress(OSError):  # there is none, or it is somebody else's
        (Path(given) if given else Path.home() / ".ray" / "auth_token").chmod(0o600)


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Ray's own handler of SIGTERM dumps a stack and ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):  # as in the background of a script, where Ctrl-C is ignored
            raise KeyboardInterrupt
        handler(signal.SIGINT, frame)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
