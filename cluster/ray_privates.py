"""What touches the privates of Ray (2.60) here: the one place to look at with the next version."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

_FIGURES = "RAY_enable_metrics_collection"


@contextmanager
def lean(dashboard: bool) -> Iterator[None]:
    """Within the block `ray.init` starts none of the processes that a local cluster does without.

    Those are the autoscaler's, that which reads other processes' logs for a driver, and, without
    the dashboard, one of usage statistics, for whose start it would wait. Nor are its own figures
    collected without the dashboard, which nobody sees then: they hold up all else for 0.2 s of
    every ten, unless `RAY_enable_metrics_collection=1` asks for them.

    Those that it starts are a process group of their own, so that what ends our group, as a signal
    of `timeout` or of a shell, lets us end them in their order. (Elsewhere than on Linux Ray ends
    them by that group.)
    """
    import ray._private.node
    import ray._private.parameter
    import ray._private.services

    private: Any = ray._private
    node, parameter, services = private.node.Node, private.parameter, private.services

    def no_server(self: Any, **_: object) -> None:
        self._webui_url = ""

    params, server = parameter.RayParams, node.start_api_server
    started = services.ConsolePopen
    if sys.platform == "linux":
        services.ConsolePopen = partial(started, process_group=0)
    parameter.RayParams = partial(params, no_monitor=True, include_log_monitor=False)
    figures = dashboard or _FIGURES in os.environ
    if not dashboard:
        node.start_api_server = no_server
    if not figures:
        os.environ[_FIGURES] = "0"
    try:
        yield
    finally:
        if not figures:
            del os.environ[_FIGURES]
        parameter.RayParams, node.start_api_server = params, server
        services.ConsolePopen = started
