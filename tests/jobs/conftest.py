"""Fixtures of the verbs' tests: one small Ray cluster a session, and tiny models of every kind."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import command as command
from local_s3 import free_port
from made_once import made_once
from photo_folders import write_photos

# Seconds, not minutes, on one core; float32 so that two ways to the same weights can be compared.
_SMALL = ["train.batch_size=32", "train.precision=float32", "data.holdout=32", "train.seed=7"]
TINY = {
    "dcgan": [
        *_SMALL, "data.size=16", "model.width=4", "model.latent=8", "model.depth=0", "loss.r1=1",
        "train.decay=constant", "evaluation.samples=32",
    ],
    "ffdnet": [*_SMALL, "data.size=16", "model.width=8", "evaluation.images=4"],
    "classifier": [
        *_SMALL, "data.size=16", "model.network=plain", "model.width=8", "model.features=8",
    ],
}  # fmt: skip
# Long enough that a run is still under way some tenths of a second after its first checkpoint.
_LONG = ["train.images=3840", "train.checkpoint_every=640", "train.log_every=320"]


@pytest.fixture(scope="session")
def tiny() -> dict[str, list[str]]:
    """By recipe: the overrides that make it tiny."""
    return TINY


@pytest.fixture(scope="session")
def ray_cluster(s3: str) -> Iterator[None]:
    """This process is connected to a Ray cluster of 2 CPUs, which ends with the session.

    Its workers know the S3 of the tests.
    """
    import ray

    from cluster.ray_privates import lean

    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
    # Ray starts its workers nice; on a busy machine these would starve until its patience ends.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Not in pytest's own folders: the paths of Ray's sockets may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="gt", ignore_cleanup_errors=True) as folder:
        with lean(dashboard=True):
            ray.init(
                address="local",
                num_cpus=2,
                num_gpus=0,
                object_store_memory=100_000_000,
                include_dashboard=True,  # Ray Tune's cleaner of what a killed trial held asks it
                dashboard_port=free_port(),
                logging_level="warning",
                log_to_driver=False,
                _temp_dir=folder,
            )
        try:
            yield
        finally:
            ray.shutdown()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs` and `registry`: a tiny dcgan, ffdnet and classifiers, all registered."""
    from jobs.train import train

    def make(home: Path) -> None:
        for name, recipe, more in (
            # Steps so long that images differ from one another, and restored ones from the given.
            ("dcgan", "dcgan", ["train.lr=0.01"]),
            ("ffdnet", "ffdnet", ["train.lr=0.01", "train.warmup=0", "data.channels=1"]),
            ("judge", "classifier", []),
            ("judge-8", "classifier", ["data.size=8"]),
        ):
            train(
                recipe,
                [*TINY[recipe], "train.images=64", "train.checkpoint_every=32", *more],
                name=name,
                workers="0",
                storage=str(home / "runs"),
                register=name,
                registry=str(home / "registry"),
            )

    return made_once(tmp_path_factory, "models", make)


@pytest.fixture(scope="session")
def dcgan(tiny: dict[str, list[str]]) -> list[str]:
    """Two networks, two optimizers, moving averages, and buffers of batch statistics."""
    return [*tiny["dcgan"], *_LONG]


@pytest.fixture(scope="session")
def classifier(tiny: dict[str, list[str]]) -> list[str]:
    """No batch statistics: any number of workers computes the same, to within rounding."""
    return [*tiny["classifier"], *_LONG, "train.warmup=0"]


@pytest.fixture(scope="session")
def alone(classifier: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a classifier in this process, without Ray."""
    import torch

    from jobs.train import train

    torch.set_num_threads(1)  # as a worker with one CPU
    storage = tmp_path_factory.mktemp("alone")
    train("classifier", classifier, workers="0", storage=str(storage))
    return storage / "classifier"


@pytest.fixture
def here(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a registry with dcgan, ffdnet, judge; and `photos`, 20 images."""
    shutil.copytree(models / "registry", tmp_path / "registry")
    write_photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path
