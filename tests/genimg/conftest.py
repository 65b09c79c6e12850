"""Engines of small trained checkpoints, which several files ask."""

from pathlib import Path

import pytest
import torch
from tiny_recipes import tiny

from genimg import recipes
from genimg.engine import Engine
from genimg.recipes import RECIPES
from genimg.training.sync import Alone

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A checkpoint of every recipe, and of a gray denoiser, each trained for some steps."""
    from jobs.runs.folder import RunFolder
    from jobs.runs.worker import Job, work

    storage = tmp_path_factory.mktemp("trained")
    kinds = {name: (name,) for name in RECIPES} | {"gray": ("ffdnet", "data.channels=1")}
    for kind, (name, *overrides) in kinds.items():
        images = 1280 if "denoise" in recipes.named(name).can() else 320
        length = [f"train.images={images}", f"train.checkpoint_every={images}"]
        quick = ["train.lr=3e-3", "train.warmup=0", "train.ema_half_life=0"]
        recipe = tiny(name, *length, *quick, *overrides)
        work(Job(recipe.model_dump_json(), kind, str(storage)), Alone(), CPU)
    runs = {kind: RunFolder(str(storage), kind) for kind in kinds}
    return {kind: run.fetch(run.checkpoints()[-1], storage) for kind, run in runs.items()}


@pytest.fixture(scope="session", params=["float32", "bfloat16"])
def engines(folders, request) -> dict[str, Engine]:
    """Of both precisions: what holds of one holds of the other, natively multiplied or not."""
    return {kind: Engine.load(folder, CPU, request.param) for kind, folder in folders.items()}
