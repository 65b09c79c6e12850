"""Engines of small trained checkpoints, which several files ask."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from made_once import made_once
from tiny_recipes import tiny

from genimg.engine import Engine
from genimg.recipes import RECIPES
from genimg.training.sync import Alone

CPU = torch.device("cpu")
KINDS = {name: (name,) for name in RECIPES} | {
    "wgan": ("wgan", "loss.weight_clip=1"),  # or its critic would teach nothing in a few steps
    "gray": ("ffdnet", "data.channels=1"),
    "dcgan-by-class": ("dcgan", "model.conditional=true"),
    "sngan-by-class": ("sngan", "model.conditional=true"),
    "r3gan-by-class": ("r3gan", "model.conditional=true"),
    "progan-by-class": ("progan", "model.conditional=true"),
    "stylegan-by-class": ("stylegan", "model.conditional=true"),
    "flow-by-class": ("flow", "model.conditional=true"),
    "conv-vae-by-class": ("conv-vae", "model.conditional=true"),
    "mlp-vae": ("iwae", "model.network=mlp", "loss.importance=2"),
    "vq-vae-by-class": ("vq-vae", "model.conditional=true"),
    "hvae-by-class": ("hvae", "model.conditional=true"),
}
T = TypeVar("T")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What holds of engines in float32 is looked at in bfloat16 as well: quickly where their bits
    in any batch are concerned."""
    for item in items:
        params = getattr(item, "callspec", None) and item.callspec.params  # type: ignore[attr-defined]
        if params and params.get("engines") == "bfloat16" and item.path.stem != "test_engine":
            item.add_marker(pytest.mark.slow)


class Made(Mapping[str, T]):
    """Of every kind a value, which is made as it is first asked for."""

    def __init__(self, make: Callable[[str], T]) -> None:
        self.make = make
        self.made: dict[str, T] = {}

    def __getitem__(self, kind: str) -> T:
        if kind not in self.made:
            self.made[kind] = self.make(kind)
        return self.made[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(KINDS)

    def __len__(self) -> int:
        return len(KINDS)


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> Mapping[str, Path]:
    """A checkpoint of every recipe, and of some variants, each trained for some steps."""
    from jobs.runs.folder import RunFolder
    from jobs.runs.worker import Job, work

    def trained(kind: str) -> Path:
        name, *overrides = KINDS[kind]
        images = {"ffdnet": 640, "vq-vae": 320}.get(name, 160)
        length = [f"train.images={images}", f"train.checkpoint_every={images}"]
        quick = ["train.lr=3e-3", "train.warmup=0", "train.ema_half_life=0"]
        recipe = tiny(name, *length, *quick, *overrides)

        def train(storage: Path) -> None:
            work(Job(recipe.model_dump_json(), "run", str(storage)), Alone(), CPU)

        storage = made_once(tmp_path_factory, f"trained-{kind}", train)
        return RunFolder(str(storage), "run").fetch(images, storage)

    return Made(trained)


@pytest.fixture(scope="session", params=["float32", "bfloat16"])
def engines(folders, request) -> Mapping[str, Engine]:
    """Of both precisions: what holds of one holds of the other, natively multiplied or not."""
    return Made(lambda kind: Engine.load(folders[kind], CPU, request.param))
