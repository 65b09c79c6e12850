"""What touches the privates of Ray (2.60) here: the one place to look at with the next version."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any


@contextmanager
def lean(dashboard: bool) -> Iterator[None]:
    """Within the block `ray.init` starts none of the processes that a local cluster does without.

    Those are the autoscaler's, that which reads other processes' logs for a driver, and, without
    the dashboard, one of usage statistics, for whose start it would wait.

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
    if not dashboard:
        node.start_api_server = no_server
    try:
        yield
    finally:
        parameter.RayParams, node.start_api_server = params, server
        services.ConsolePopen = started
