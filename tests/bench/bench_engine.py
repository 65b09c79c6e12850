"""What an engine adds to its network, and what tiling costs. Nothing is demanded of these."""

import itertools

import numpy as np
import torch
from measuring import Row, compared, device, rate

from genimg import recipes
from genimg.data.scenes import render
from genimg.engine import Engine
from genimg.inference import CHUNK
from genimg.operations.drawing import Sample
from genimg.operations.restoring import Denoise


def measure(quick: bool) -> list[Row]:
    return [sampling(quick), tiling(quick)]


def fresh(name: str, *overrides: str) -> Engine:
    """An engine with initial weights: they take as long as trained ones."""
    networks = recipes.named(name).override(overrides).networks()
    for network in networks.values():
        network.to(device(), memory_format=torch.channels_last).eval().requires_grad_(False)
    return Engine(recipes.named(name).override(overrides), networks)


def sampling(quick: bool) -> Row:
    engine = fresh("dcgan")
    generator, count = engine.networks["generator"], CHUNK if quick else 16 * CHUNK
    seeds = itertools.count(step=count)

    def bare() -> None:
        for _ in range(count // CHUNK):
            generator(torch.randn(CHUNK, engine.recipe.model.latent, device=device())).cpu()

    return compared(
        "engine: dcgan samples",
        "images/s",
        lambda: rate(lambda: engine(Sample(n=count, seed=next(seeds))), count),
        lambda: rate(bare, count),
        rounds=3 if quick else 9,
        note="over the generator's forward pass alone",
    )


def tiling(quick: bool) -> Row:
    engine = fresh("ffdnet", "data.channels=1")
    side, tile = (256, 160) if quick else (1024, 512)
    image = np.asarray(render(torch.arange(1), side, channels=1)[0, 0])[..., None]
    return compared(
        "engine: ffdnet tiled",
        "megapixels/s",
        lambda: rate(lambda: engine(Denoise(sigma=25, tile=tile), image=image), side**2 / 1e6),
        lambda: rate(lambda: engine(Denoise(sigma=25, tile=0), image=image), side**2 / 1e6),
        rounds=3,
        note=f"{side} x {side} in tiles of {tile}, over all at once",
    )
