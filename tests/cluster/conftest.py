"""Registries and small checkpoints for the tests of this room."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.registry import Registry, Version
from cluster.storage import LocalStorage

Register = Callable[..., Version]


class RemoteStorage(LocalStorage):
    """A storage whose files cannot be read in place, as on S3."""

    def local_path(self, prefix: str) -> None:
        return None


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(LocalStorage(tmp_path / "registry"))


@pytest.fixture
def remote(tmp_path: Path) -> Registry:
    """The same place as `registry`, reached from afar."""
    return Registry(RemoteStorage(tmp_path / "registry"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(bytes(range(256)) * 4)
    (folder / "recipe.json").write_text('{"recipe": "dcgan"}\n')
    return folder


@pytest.fixture
def register(registry: Registry, checkpoint: Path) -> Register:
    """Register the checkpoint, by default as `dcgan`, with these metrics."""

    def one(name: str = "dcgan", **metrics: float) -> Version:
        return registry.register(name, checkpoint, metrics, {"run": "night"})

    return one
