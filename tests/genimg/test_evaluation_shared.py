"""Evaluations divided over real processes give what one process measures, with and without work.

Three processes are started once, and evaluate as three workers, and then some cases as two.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.distributed.nn  # before there is a group: its default arguments would keep it alive
from gang import gang
from tiny_recipes import tiny

from genimg.data.memory import Images
from genimg.data.opening import open_dataset
from genimg.data.storage import Ragged
from genimg.engine import Engine
from genimg.inference import Inference
from genimg.training.sync import Alone, Collective

JUDGED = ("evaluation.samples=40", "evaluation.judge=it")
HELPERS = {"judge": "classifier", "segmenter": "segmenter"}
ASKED = ("evaluation.judge=its", "evaluation.segmenter=its")
CASES = {
    "dcgan": ("dcgan", "evaluation.samples=50"),
    "dcgan-few": ("dcgan", "evaluation.samples=16", "data.size=32"),
    "judged": (
        "dcgan",
        "evaluation.samples=40",
        "evaluation.judge=its",
        "evaluation.best=judge_kid",
    ),
    "covering": (
        "dcgan",
        "evaluation.samples=40",
        "evaluation.judge=its",
        "evaluation.best=judge_coverage",
    ),
    "flow-by-class": ("flow", "model.conditional=true", "evaluation.samples=20"),
    "segmenter": ("segmenter", "evaluation.images=20"),
    "detector": ("detector", "evaluation.images=20"),
    "pix2pix": ("pix2pix", "evaluation.images=20", *ASKED),
    "cyclegan": ("cyclegan", "evaluation.images=2"),
    "adain": ("adain", "evaluation.images=3"),
    "conv-vae": ("conv-vae", "evaluation.images=40"),
    "conv-vae-one": ("conv-vae", "evaluation.images=1", "evaluation.importance=3"),
    "conv-vae-bits": (
        "conv-vae",
        "model.conditional=true",
        "loss.likelihood=bernoulli",
        "loss.binarise=dynamic",
        "evaluation.images=40",
        "evaluation.importance=5",
    ),
    "hvae": ("hvae", "evaluation.images=4", "evaluation.importance=2"),
    "vq-vae": ("vq-vae", "evaluation.samples=17"),
    "conv-mixer": ("conv-mixer", "evaluation.images=7"),
    "frame-vae": ("frame-vae", "evaluation.images=5"),
    "conv-mixer-one": ("conv-mixer", "evaluation.images=1"),
    "classifier": ("classifier", "evaluation.images=40"),
    "classifier-two": ("classifier", "evaluation.images=2"),
    "ffdnet": ("ffdnet", "evaluation.images=7", "data.size=16"),
    "ffdnet-one": ("ffdnet", "evaluation.images=1", "data.size=16"),
    "photos": ("ffdnet", "evaluation.images=9", "data.size=16"),
    "photos-two": ("ffdnet", "evaluation.images=2", "data.size=16"),
}

WORLDS = {3: (*CASES,), 2: ("dcgan", "judged", "conv-vae", "classifier", "photos")}


def photos() -> Images:
    """Images of very different sizes, the last of which is as large as all others together."""
    draw = np.random.default_rng(0)
    sizes = [(16, 40), (40, 16), (16, 40), (31, 17), (20, 20), (20, 20), (64, 23), (16, 16)]
    images = [draw.integers(0, 256, (3, *size), np.uint8) for size in [*sizes, (100, 90)]]
    return Images({"image": Ragged.joined(images, 16)})


def measured(case: str, sync) -> dict[str, float]:
    name, *overrides = CASES[case]
    recipe = tiny(name, *overrides)
    data = (
        photos() if case.startswith("photos") else open_dataset(recipe.data, recipe.wants, "test")
    )
    torch.manual_seed(0)
    networks = recipe.networks()
    for network in networks.values():
        network.eval()
        for parameter in network.parameters():  # nowhere the identity
            parameter.data.add_(torch.randn_like(parameter) * 0.05)
    helpers = {each: helper(HELPERS[each]) for each in recipe.helped_by()}
    return recipe.evaluate(replace(Inference(networks), sync=sync, helpers=helpers), data)


def helper(name: str) -> Engine:
    recipe = tiny(name)
    torch.manual_seed(1)
    networks = recipe.networks()
    for network in networks.values():
        network.eval().requires_grad_(False)
    return Engine(recipe, networks)


def worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    for world, cases in WORLDS.items():
        if rank >= world:
            return
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/store-{world}", rank=rank, world_size=world
        )
        found = {case: measured(case, Collective()) for case in cases}
        (folder / f"{world}-{rank}.json").write_text(json.dumps(found))
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def left(tmp_path_factory) -> Path:
    return gang(worker, tmp_path_factory.mktemp("gang"), 3)


@pytest.mark.parametrize("case", CASES)
def test_any_number_of_workers_measures_the_same(left, case):
    alone = measured(case, Alone())
    for world in (world for world, cases in WORLDS.items() if case in cases):
        each = [json.loads((left / f"{world}-{rank}.json").read_text()) for rank in range(world)]
        assert all(found[case] == each[0][case] for found in each)
        assert each[0][case] == pytest.approx(alone, rel=1e-5, abs=1e-6)
