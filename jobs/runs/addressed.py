"""Checkpoints by addresses that do not change, and the models among them that help a training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

    from genimg.engine import Engine
    from genimg.recipe import Recipe


BUNDLED = "bundled:"  # begins the address of a model that comes with genimg


def fetch_checkpoint(address: str) -> Path:
    """The local copy of a checkpoint in S3, verified."""
    import hashlib

    from cluster.copies import cache_folder, copy_of
    from cluster.places import open_storage, split
    from cluster.storage import NotFound
    from genimg.checkpoint import MANIFEST, verify
    from genimg.errors import InputError

    parent, name = split(address)
    storage = open_storage(parent)
    try:
        manifest, _ = storage.read(f"{name}/{MANIFEST}")
    except NotFound:
        raise InputError(f"{address}: not a checkpoint folder (no {MANIFEST})") from None
    folder = cache_folder() / "checkpoints" / hashlib.sha256(manifest).hexdigest()[:16]
    return copy_of(storage, name, folder, verify, InputError)


def folder_at(address: str) -> tuple[Path, bool]:
    """(folder, whether every byte of it was verified) of a checkpoint that any process finds."""
    from cluster.places import open_storage
    from cluster.registry import Registry
    from genimg import bundled

    if address.startswith(BUNDLED):  # wherever genimg lies on this machine
        models = Registry(open_storage(str(bundled.FOLDER)))
        return models.fetch(models.resolve(address.removeprefix(BUNDLED))), True
    remote = address.startswith("s3://")
    return (fetch_checkpoint(address) if remote else Path(address)), remote


def digest_of(folder: Path) -> str:
    """Equal for checkpoint folders of equal content."""
    from genimg import checkpoint

    return checkpoint.read_manifest(folder).digest()


@dataclass(frozen=True)
class Helpers:
    """A recipe's helpers, by what they are for."""

    engines: dict[str, Engine] = field(default_factory=dict)  # that judge
    teachers: dict[str, dict[str, nn.Module]] = field(default_factory=dict)  # see Recipe.helped
    digests: dict[str, str] = field(default_factory=dict)  # of all


def helpers_of(recipe: Recipe, device: torch.device, training: bool = True) -> Helpers:
    """A recipe's helpers, which it names by address. training: with its teachers."""
    from genimg.engine import Engine, trained

    helpers = Helpers()
    for name, address in recipe.helped_by(training).items():
        folder, verified = folder_at(address)
        if name in recipe.teachers:
            _, helpers.teachers[name] = trained(folder, device, verified=verified)
        else:
            helpers.engines[name] = Engine.load(folder, device, verified=verified)
        helpers.digests[name] = digest_of(folder)
    return helpers
