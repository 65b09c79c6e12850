"""Which models of a registry are served without being named."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from cluster.registry import Registry
from serving.model_settings import Discovery, ModelSettings


def discovered(
    registry: Registry, discover: Sequence[Discovery], but: Collection[str] = ()
) -> list[ModelSettings]:
    """Models that are there now, each once: by the order of `discover`, then by name.

    but: names that are served anyway. Raises RegistryError or StorageError where it cannot be
    looked at.
    """
    found: list[ModelSettings] = []
    left = [name for name in registry.names() if name not in but] if discover else []
    for each in discover:
        fits = [name for name in left if fnmatchcase(name, each.pattern)]
        if each.alias:
            fits = [name for name in fits if each.alias in registry.aliases(name).holders]
        found += [each.model(name) for name in fits]
        left = [name for name in left if name not in fits]
    return found
