"""Checkpoints become model versions: with what serving needs, or with the training state too."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.console import say

if TYPE_CHECKING:
    from cluster.versions import Version
    from jobs.runs.folder import RunFolder

WithTrainingState = Annotated[
    bool,
    typer.Option(
        "--with-training-state",
        help="Register also what resuming the training needs: about six times the bytes.",
    ),
]


def refuse_register(name: str, registry: str) -> None:
    """What would keep a model from being registered at the end is told at the beginning."""
    from cluster.places import open_storage
    from cluster.versions import check_name

    check_name("model", name)
    open_storage(registry).exists("models")


def register_run(
    name: str,
    folder: RunFolder,
    seen: int,
    registry: str,
    *,
    with_training_state: bool,
    origin: Mapping[str, Any] | None = None,
) -> Version:
    """Register a run's checkpoint at `seen` images; see `register_checkpoint`.

    If that is the last version already, as when a run that has ended is started again, it stays so.
    """
    with tempfile.TemporaryDirectory(prefix="genimg-") as scratch:
        return register_checkpoint(
            name,
            folder.fetch(seen, Path(scratch)),
            registry,
            with_training_state=with_training_state,
            origin=origin,
            once=True,
        )


def register_checkpoint(
    name: str,
    folder: Path,
    registry: str,
    *,
    with_training_state: bool = False,
    origin: Mapping[str, Any] | None = None,
    half: bool = False,
    card: str | None = None,
    once: bool = False,
) -> Version:
    """Register a verified checkpoint folder, with its own metrics and lineage.

    origin: what the lineage says besides. half, card: as for genimg.compact. once: not if the last
    version has the same files and lineage, which is given in its place. Where models of that name
    come with genimg, its number is above theirs, which keep their own. Raises InputError where a
    training state is asked for that is not there.
    """
    from cluster.places import open_storage
    from cluster.registry import Registry
    from cluster.versions import Unknown, fingerprint
    from genimg import bundled, checkpoint
    from genimg.compact import compact

    lineage = checkpoint.read_manifest(folder).lineage | dict(origin or {})
    metrics = checkpoint.read_json(folder, checkpoint.METRICS)
    with tempfile.TemporaryDirectory(prefix="genimg-") as scratch:
        if with_training_state:
            checkpoint.need_training_state(folder)
        else:
            folder = compact(folder, Path(scratch) / "version", half=half, card=card)
            lineage |= checkpoint.read_manifest(folder).lineage
        models = Registry(open_storage(registry))
        if once:
            with suppress(Unknown):
                last = models.get(name, models.numbers(name)[-1])
                if (last.files, last.lineage) == (fingerprint(folder), lineage):
                    return last
        theirs = bundled.newest(name)
        version = models.register(name, folder, metrics, lineage, above=theirs)
    if version.number == theirs + 1 > 1:
        say(f"{name} now means {version.reference}; {name}@{theirs} comes with genimg as before")
    return version
