"""Fixtures of the server's tests: tiny trained models in a registry, and a server of them."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from command_line import command as command
from live_server import served
from made_once import made_once
from tiny_recipes import tiny

from cluster.places import open_storage
from cluster.promotion import promote
from cluster.registry import Registry
from genimg.engine import Engine
from genimg.recipes import RECIPES
from genimg.training.sync import Alone
from jobs.runs.folder import RunFolder
from jobs.runs.worker import Job, work
from serving.settings import Settings

_TINY = [
    "train.batch_size=32", "train.precision=float32", "train.images=64",
    "train.checkpoint_every=64", "train.lr=0.01", "data.size=16", "data.holdout=32",
]  # fmt: skip
_DCGAN = [
    *_TINY, "model.width=4", "model.latent=8", "model.depth=0", "evaluation.samples=32",
    "train.decay=constant",
]  # fmt: skip
_FFDNET = [*_TINY, "model.width=8", "evaluation.images=4", "train.warmup=0"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with two versions of `figures` (a dcgan) and one of `denoiser` (an ffdnet).

    Aliases: figures@production is version 1. Not to be changed.
    """
    from jobs.train import train

    def make(home: Path) -> None:
        for run, model, recipe, overrides in (
            ("first", "figures", "dcgan", [*_DCGAN, "train.seed=1"]),
            ("second", "figures", "dcgan", [*_DCGAN, "train.seed=2"]),
            ("denoiser", "denoiser", "ffdnet", _FFDNET),
        ):
            train(
                recipe,
                overrides,
                name=run,
                workers="0",
                storage=str(home / "runs"),
                register=model,
                registry=str(home / "registry"),
            )
        promote(Registry(open_storage(str(home / "registry"))), "figures@1", "production")

    return made_once(tmp_path_factory, "trained", make) / "registry"


@pytest.fixture
def registry(trained: Path, tmp_path: Path) -> Path:
    """A copy of the registry, for tests that change it."""
    return shutil.copytree(trained, tmp_path / "registry")


@pytest.fixture(scope="session")
def server(trained: Path) -> Iterator[str]:
    """The URL of a server of figures@production and denoiser, with small limits."""
    settings = Settings.validated(
        {
            "registry": str(trained),
            "models": [{"ref": "figures@production"}, {"ref": "denoiser"}],
            "limits": {"max_bytes": 2_000_000, "max_pixels": 1_000_000, "max_images": 32},
        }
    )
    with served(settings) as url:
        yield url


@pytest.fixture(scope="session")
def client(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def every_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with a model of each recipe, named after it."""
    import torch

    def make(home: Path) -> None:
        registry = Registry(open_storage(str(home / "registry")))
        for recipe in RECIPES:
            short = tiny(recipe, "train.images=32", "train.checkpoint_every=32")
            work(Job(short.model_dump_json(), recipe, str(home)), Alone(), torch.device("cpu"))
            run = RunFolder(str(home), recipe)
            registry.register(
                recipe, run.fetch(run.checkpoints()[-1], home), {}, {"recipe": recipe}
            )

    return made_once(tmp_path_factory, "operations", make)


@pytest.fixture(scope="session")
def asking(every_recipe: Path) -> Iterator[httpx.Client]:
    """A server of all, each of which it loads once it is asked for."""
    models = [{"ref": name, "resident": False} for name in RECIPES]
    settings = Settings.validated({"registry": str(every_recipe / "registry"), "models": models})
    with served(settings) as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.fixture(scope="session")
def engines(every_recipe: Path) -> Mapping[str, Engine]:
    """Those of the same models, likewise."""
    registry = Registry(open_storage(str(every_recipe / "registry")))

    class Engines(dict[str, Engine]):
        def __missing__(self, name: str) -> Engine:
            self[name] = Engine.load(registry.fetch(registry.resolve(name)), "cpu")
            return self[name]

    return Engines()
