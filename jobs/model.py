"""From what a person calls a model to its checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genimg.engine import Engine


def folder_of(model: str, registry: str) -> Path:
    """The folder of a checkpoint path, or of NAME, NAME@ALIAS or NAME@7 in a registry.

    A run's folder stands for its newest checkpoint.
    """
    from cluster.registry import Registry
    from cluster.storage import open_storage
    from genimg.checkpoint import MANIFEST

    path = Path(model).expanduser()
    if (path / MANIFEST).is_file():
        return path
    if (path / "checkpoints").is_dir():
        from jobs.run_folder import RunFolder

        run = RunFolder(str(path.parent), path.name)
        if done := run.checkpoints():
            return Path(run.path(done[-1]))
    if path.is_dir() or "/" in model:
        from genimg.errors import InputError

        raise InputError(f"{model}: not a checkpoint folder (no {MANIFEST}) nor a run with one")
    models = Registry(open_storage(registry))
    return models.fetch(models.resolve(model))


def load_engine(model: str, registry: str) -> Engine:
    from genimg.engine import Engine

    return Engine.load(folder_of(model, registry))
