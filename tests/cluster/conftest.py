"""Registries and small checkpoints for the tests of this room."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.places import open_storage
from cluster.registry import Registry
from cluster.versions import Version

Register = Callable[..., Version]


@pytest.fixture
def registry(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """An empty registry, on disk and on S3."""
    monkeypatch.setenv("GENIMG_CACHE", str(tmp_path / "cache"))
    return Registry(open_storage(place))


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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of two files beside each other, one of them empty, and one further down."""
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "a.bin").write_bytes(b"a" * 1000)
    (source / "empty").write_bytes(b"")
    (source / "deep" / "er" / "b.json").write_text("{}")
    return source
