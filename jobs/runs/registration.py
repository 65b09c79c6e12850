"""A checkpoint becomes a model version: with what serving needs, or with the training state too."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cluster.versions import Version

WithTrainingState = Annotated[
    bool,
    typer.Option(
        "--with-training-state",
        help="Register also what resuming the training needs: about six times the bytes.",
    ),
]


def register_checkpoint(
    name: str,
    folder: Path,
    registry: str,
    *,
    with_training_state: bool,
    origin: Mapping[str, Any] | None = None,
) -> Version:
    """Register a verified checkpoint folder, with its own metrics and lineage.

    origin: what the lineage says besides. Raises InputError where a training state is asked for
    that is not there.
    """
    from cluster.registry import Registry
    from cluster.storage import open_storage
    from genimg import checkpoint

    lineage = checkpoint.read_manifest(folder).lineage | dict(origin or {})
    metrics = checkpoint.read_json(folder, checkpoint.METRICS)
    with tempfile.TemporaryDirectory(prefix="genimg-") as scratch:
        if with_training_state:
            checkpoint.need_training_state(folder)
        else:
            folder = checkpoint.without_training_state(folder, Path(scratch) / "version")
        return Registry(open_storage(registry)).register(name, folder, metrics, lineage)
