"""What an engine adds to its networks' passes; and what going on with clips and tiling cost, with
nothing demanded."""

import itertools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from made_data import CLASSES
from measuring import Row, compared, device, rate

from genimg import recipes
from genimg.data.beside import BYTES
from genimg.data.scenes import render
from genimg.engine import Engine
from genimg.operations.drawing import Sample
from genimg.operations.moving import Animate
from genimg.operations.restoring import Denoise
from genimg.passes import CHUNK
from genimg.recipes import RECIPES

AT_LEAST = 0.97
SECONDS = 1.0  # of one measurement, about
FEW = 3  # passes in it, of which one that is disturbed counts for much


def measure(quick: bool) -> list[Row]:
    drawing = [name for name, recipe in RECIPES.items() if "sample" in recipe().can()]
    moving = [name for name, recipe in RECIPES.items() if "animate" in recipe().can()]
    drawn = (sampling(name, quick) for name in drawing)
    gone_on = (going_on(name, quick) for name in moving)
    return [*drawn, *gone_on, tiling(quick)]


def fresh(name: str, *overrides: str) -> Engine:
    """An engine with initial weights: they take as long as trained ones."""
    recipe = recipes.named(name).override(overrides)
    recipe = recipe.resolve(CLASSES)
    networks = recipe.networks()
    for network in networks.values():
        network.to(device(), memory_format=torch.channels_last).eval().requires_grad_(False)
    return Engine(recipe, networks)


def sampling(name: str, quick: bool) -> Row:
    engine = fresh(name)
    ability = engine.abilities["sample"]
    kinds = len(ability.classes)

    @torch.no_grad()
    def bare(passes: int) -> np.ndarray:
        """Images are kept, as an engine's are."""
        side = engine.recipe.data.size
        images = np.empty((passes, CHUNK, side, side, ability.channels), np.uint8)
        for done in range(passes):
            rows: Any = {"latent": torch.randn(CHUNK, ability.latent, device=device())}
            if kinds:
                chosen = torch.randint(kinds, (CHUNK,), device=device())
                rows["classes"] = F.one_hot(chosen, kinds).float()
            if "text" in ability.takes:  # none
                rows["text"] = torch.zeros(CHUNK, BYTES, dtype=torch.int64, device=device())
            made = ability.compute(rows)["image"]
            levels = made.add(1).mul(127.5).round().clamp(0, 255).byte()
            images[done] = levels.permute(0, 2, 3, 1).cpu().numpy()
        return images

    bare(1)
    seconds = 1 / rate(lambda: bare(1), 1)
    passes = 1 if quick else max(1, round(SECONDS / seconds))
    count, seeds = passes * CHUNK, itertools.count(step=passes * CHUNK)
    return compared(
        f"engine: {name} samples",
        "images/s",
        lambda: rate(lambda: engine(Sample(n=count, seed=next(seeds))), count),
        lambda: rate(lambda: bare(passes), count),
        rounds=1 if quick else 9 if passes > FEW else 15,
        at_least=AT_LEAST,
        note="over the passes alone of its networks, and bytes",
    )


def going_on(name: str, quick: bool) -> Row:
    """A clip goes on for several passes, each of which sees what the one before it has made."""
    engine = fresh(name)
    ability = engine.abilities["animate"]
    (known, step), side = ability.frames, engine.recipe.data.size
    clip = [np.asarray(each).transpose(1, 2, 0) for each in render(torch.arange(known), side, 3)]
    passes = 1 if quick else 4
    frames = passes * step

    @torch.no_grad()
    def bare() -> np.ndarray:
        seen = torch.from_numpy(np.stack(clip)).permute(0, 3, 1, 2)[None].to(device())
        seen = seen.float().div(127.5).sub(1)
        for _ in range(passes):
            rows: Any = {"frames": seen[:, -known:]}
            if ability.latent:
                rows["latent"] = torch.randn(1, ability.latent, device=device())
            seen = torch.cat([seen, ability.compute(rows)["frames"]], dim=1)
        levels = seen[0].add(1).mul(127.5).round().clamp(0, 255).byte()
        return levels.permute(0, 2, 3, 1).cpu().numpy()

    asked = Animate(frames=frames, seed=0 if ability.latent else None)
    return compared(
        f"engine: {name} goes on",
        "frames/s",
        lambda: rate(lambda: engine(asked, image=clip), frames),
        lambda: rate(bare, frames),
        rounds=1 if quick else 9,
        note="over the passes alone of its network, a clip at a time",
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
