"""From a name to an engine: what is registered serves, and every byte is read once to check it."""

import hashlib
import shlex
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from engine_calls import sample

from cluster.places import open_storage
from cluster.registry import Registry
from genimg import checkpoint
from genimg.engine import Engine
from jobs.model import load_engine
from jobs.runs.registration import register_checkpoint


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENIMG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def newest(models: Path) -> Path:
    """The last checkpoint of the run `dcgan`."""
    return max((models / "runs/dcgan/checkpoints").iterdir())


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was hashed, by name."""
    counts: Counter[str] = Counter()
    file_digest = hashlib.file_digest

    def counted(file, digest):
        counts[Path(file.name).name] += 1
        return file_digest(file, digest)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return counts


def test_every_byte_is_hashed_once_a_load(models: Path, newest: Path, bucket: str, hashed):
    registry = str(models / "registry")
    store = open_storage(bucket)
    store.upload(newest, "run/checkpoints/64")
    register_checkpoint("far", newest, f"{bucket}/registry", with_training_state=False)
    for model, place in (
        ("dcgan", registry),
        (str(newest), registry),
        ("far", f"{bucket}/registry"),  # downloaded
        ("far", f"{bucket}/registry"),  # from the cache
        (f"{bucket}/run/checkpoints/64", registry),
        (f"{bucket}/run/checkpoints/64", registry),
    ):
        hashed.clear()
        load_engine(model, place)
        assert hashed[checkpoint.WEIGHTS] == 1, model
        assert set(hashed.values()) == {1}, model


def test_a_version_has_what_serving_needs_and_draws_the_same(models: Path, newest: Path):
    registry = Registry(open_storage(str(models / "registry")))
    version = registry.resolve("dcgan@1")
    assert sorted(version.files) == [
        "manifest.json", "metrics.json", "recipe.json", "samples.png", "weights.safetensors",
    ]  # fmt: skip
    folder = registry.fetch(version)
    manifest = checkpoint.verify(folder)
    whole = checkpoint.verify(newest.parent / f"{version.lineage['seen']:012d}")
    assert manifest.lineage == whole.lineage == version.lineage
    assert sum(f["size"] for f in manifest.files.values()) < 0.5 * sum(
        f["size"] for f in whole.files.values()
    )


def test_versions_with_the_training_state_serve_as_before(models: Path, newest: Path, tmp_path):
    registry = str(tmp_path / "registry")
    for whole in (False, True):
        register_checkpoint("dcgan", newest, registry, with_training_state=whole)
    store = Registry(open_storage(registry))
    assert set(store.get("dcgan", 2).files) - set(store.get("dcgan", 1).files) == {
        checkpoint.TRAINING, checkpoint.PROGRESS,
    }  # fmt: skip
    assert store.verify("dcgan") == []
    drawn = [
        sample(Engine.load(store.fetch(store.get("dcgan", n)), "cpu"), 4, seed=3) for n in (1, 2)
    ]
    assert np.array_equal(*drawn)


def test_no_training_goes_on_from_a_version_without_its_state(
    models: Path, command, tiny, tmp_path: Path
):
    train = f"train dcgan {shlex.join(tiny['dcgan'])} train.lr=0.01 train.checkpoint_every=32"
    train += f" --workers 0 --storage {tmp_path}/runs --run dcgan"
    assert command(f"{train} train.images=32").code == 0
    place = tmp_path / f"runs/dcgan/checkpoints/{32:012d}"
    version = checkpoint.without_training_state(place, tmp_path / "version")
    shutil.rmtree(place)
    shutil.copytree(version, place)
    refused = command(f"{train} train.images=64")
    assert refused.code == 2
    assert "has no training state (training.safetensors)" in refused.err
    assert "register with --with-training-state" in refused.err
    again = command(
        f"models register dcgan {place} --registry {tmp_path}/registry --with-training-state"
    )
    assert again.code == 2
    assert "has no training state" in again.err
    assert not (tmp_path / "registry").exists()
