"""Which models of a registry are served without being named."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from cluster.registry import Registry
from cluster.versions import Damaged, Unknown
from serving.model_settings import Discovery, ModelSettings


def discovered(
    registry: Registry, discover: Sequence[Discovery], but: Collection[str] = ()
) -> list[ModelSettings]:
    """Models that are there now, each once: by the order of `discover`, then by name.

    but: names that are served anyway. Raises StorageError where it cannot be looked at.
    """
    found: list[ModelSettings] = []
    left = [name for name in registry.names() if name not in but] if discover else []
    for each in discover:
        fits = [name for name in left if fnmatchcase(name, each.pattern)]
        if each.alias:
            fits = [name for name in fits if _may_have(registry, name, each.alias)]
        found += [each.model(name) for name in fits]
        left = [name for name in left if name not in fits]
    return found


def _may_have(registry: Registry, name: str, alias: str) -> bool:
    """Whether a model has an alias; one whose aliases are damaged may, and is told to be broken."""
    try:
        return alias in registry.aliases(name).holders
    except Unknown:  # it has just gone
        return False
    except Damaged:
        return True
