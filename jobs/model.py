"""From what a person calls a model to its checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genimg.engine import Engine


def folder_of(model: str, registry: str) -> tuple[Path, bool]:
    """(folder, whether every byte of it was verified) of a checkpoint path, or of NAME,
    NAME@ALIAS or NAME@7 in a registry.

    A run's folder on this machine stands for its newest checkpoint; a checkpoint in S3 is copied
    here once.
    """
    from cluster.places import open_storage
    from cluster.registry import Registry
    from genimg.checkpoint import MANIFEST

    if model.startswith("s3://"):
        return fetch_checkpoint(model), True
    path = Path(model).expanduser()
    if (path / MANIFEST).is_file():
        return path, False
    if (path / "checkpoints").is_dir():
        from jobs.runs.folder import RunFolder

        run = RunFolder(str(path.parent), path.name)
        if done := run.checkpoints():
            return Path(run.path(done[-1])), False
    if path.is_dir() or "/" in model:
        from genimg.errors import InputError

        raise InputError(f"{model}: not a checkpoint folder (no {MANIFEST}) nor a run with one")
    models = Registry(open_storage(registry))
    return models.fetch(models.resolve(model)), True


def fetch_checkpoint(address: str) -> Path:
    """The local copy of a checkpoint in S3, verified."""
    import hashlib

    from cluster.copies import cache_folder, copy_of
    from cluster.places import open_storage
    from cluster.storage import NotFound
    from genimg.checkpoint import MANIFEST, verify
    from genimg.errors import InputError

    parent, _, name = address.rstrip("/").rpartition("/")
    storage = open_storage(parent)
    try:
        manifest, _ = storage.read(f"{name}/{MANIFEST}")
    except NotFound:
        raise InputError(f"{address}: not a checkpoint folder (no {MANIFEST})") from None
    folder = cache_folder() / "checkpoints" / hashlib.sha256(manifest).hexdigest()[:16]
    return copy_of(storage, name, folder, verify, InputError)


def load_engine(model: str, registry: str, precision: str = "auto") -> Engine:
    from genimg.engine import Engine

    folder, verified = folder_of(model, registry)
    return Engine.load(folder, precision=precision, verified=verified)
