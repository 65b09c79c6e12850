"""Settings that change while processes of a cluster work by them, in Ray's own store of keys.

Here, in `local` and in `ray_privates` is all that touches Ray's privates in this room. Ray must
be connected.
"""

from __future__ import annotations

_SPACE = "genimg"


def publish(name: str, text: str) -> None:
    """Say a text under a name, to all processes of the cluster."""
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(name, text.encode(), namespace=_SPACE)


def published(name: str) -> str | None:
    """What was last said under a name. May raise anything where Ray cannot be reached."""
    from ray.experimental.internal_kv import _internal_kv_get

    data = _internal_kv_get(name, namespace=_SPACE)
    return None if data is None else data.decode()


def withdraw(name: str) -> None:
    """Forget all that was said under names that begin with this one."""
    from ray.experimental.internal_kv import _internal_kv_del

    _internal_kv_del(name, del_by_prefix=True, namespace=_SPACE)
