"""Who listens where: on a machine of one's own, nothing but the API's port is open to others.

All that depends on the ports that Ray 2.60 opens is here. Its own listen on this machine alone
where its node does (see jobs/server/ray_privates.py); here are those that would not.
"""

from __future__ import annotations

import os
import re
from typing import Any

HOST = "GENIMG_HOST"  # variable: where HAProxy is to listen, where Serve is told this machine alone
_HERE = "127.0.0.1"


def narrowed(config: str) -> str:
    """Ray's configuration of HAProxy, with its statistics and metrics on this machine alone, and
    the API where it is to be."""
    config = re.sub(
        r"(?m)^(frontend prometheus\n +bind |listen stats\n +bind )\S*:(\d+)$",
        rf"\g<1>{_HERE}:\2",
        config,
    )
    if host := os.environ.get(HOST):
        here = re.search(r"(?m)^frontend http_frontend\n +bind (\S+:(\d+))$", config)
        assert here, "there is a frontend for HTTP"
        binds = f"bind {host}:{here[2]}"
        if not is_all(host) and host != _HERE:  # where Serve looks whether it answers
            binds += f"\n    bind {_HERE}:{here[2]}"
        config = config.replace(f"bind {here[1]}", binds, 1)
    return config


def is_all(host: str) -> bool:
    """Whether an address stands for all interfaces."""
    return host in ("", "*", "0.0.0.0", "::")


def host() -> str:
    """Where the API listens, of which a replica is asked."""
    if host := os.environ.get(HOST):
        return host
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    assert client is not None, "it raises where there is none"
    return client.http_config.host or "0.0.0.0"


def keep_inside() -> None:
    """Have the port between deployments, which a replica is about to open to all, listen on this
    machine alone, if Ray's node does."""
    from ray._private import ray_constants
    from ray.serve._private import replica as module

    replica: Any = module
    if ray_constants.ENABLE_RAY_CLUSTER:
        return
    anywhere = replica.add_port_to_grpc_server

    def here(server: Any, address: str) -> int:
        return anywhere(server, address.replace("[::]:", f"{_HERE}:"))

    replica.add_port_to_grpc_server = here
