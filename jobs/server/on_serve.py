"""An application on Ray Serve, for as long as a command runs."""

from __future__ import annotations

import io
import logging
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from typing import Any, NoReturn

from genimg.errors import InputError
from jobs.console import say
from jobs.server.config_file import Http, ServeFile
from jobs.server.ray_privates import address, delete_soon, inside, start

_STOP_S = 90  # seconds until a stop that hangs is cut short


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
            "give --host 0.0.0.0 and --keys FILE, and guard their network"
        )


def serve_until_stopped(
    app: Any,
    file: ServeFile,
    ready: Callable[[str], None],
    keep_serve: bool,
    looks: Sequence[Callable[[], None]] = (),
) -> None:
    """Run an application on the connected cluster until Ctrl-C or SIGTERM.

    ready: called with its URL once it answers; keep_serve: the cluster is not ours, so that
    nothing but the application is taken away at the end; looks: called every second from then on.
    """
    import ray
    from ray import serve
    from ray.serve.exceptions import RayServeException

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    name = file.application.name
    try:
        http = file.http_options.model_dump() | {"host": inside(file.http_options.host)}
        start(file.proxy_location, http)
        try:
            serve.run(app, name=name, route_prefix=file.application.route_prefix)
        except RuntimeError as error:
            status = serve.status().applications.get(name)
            deployments = status.deployments.values() if status else ()
            reasons = {each.message.rstrip().rpartition("\n")[2] for each in deployments}
            give_up(f"{error} {' '.join(sorted(reasons))}")
        url = listening(file).url if keep_serve else file.url
        wait_until_healthy(url)
        ready(url)
        while True:
            time.sleep(1)
            for look in looks:
                look()
    except KeyboardInterrupt:
        say("stopping")
    finally:
        signal.alarm(_STOP_S)  # whose default is to end the process: Ray may be beyond answering
        if keep_serve:
            delete_soon(name)
        else:
            with redirect_stdout(io.StringIO()):  # where Ray calls its controller's end a failure
                with suppress(RayServeException, TimeoutError):
                    serve.delete(name)  # first: HAProxy stays for the requests that still end
                serve.shutdown()
                ray.shutdown()


def listening(file: ServeFile) -> ServeFile:
    """With the address at which Serve listens: where it ran already, that remains."""
    host, port = address()
    there = Http(host=host, port=port)
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
