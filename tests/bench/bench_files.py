"""The models that come with genimg on a photo of 12 megapixels, file to file, over bare networks.

Ours decodes a JPEG, measures its noise where the network wants to know it, cuts it into tiles with
what the network sees around them, computes, joins and encodes a JPEG. The baseline is the same
prepared network, in the same precision, given the whole photo as floats in memory, and does nothing
else. Both on one thread.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measuring import Row, compared
from PIL import Image

from genimg import bundled, images
from genimg.data.scenes import render
from genimg.engine import Engine
from genimg.inference import to_floats
from genimg.operations import OPERATIONS
from genimg.recipes.restoring import Restoring

SIDES = (3000, 4000)  # of what comes out
AT_LEAST = 0.9
MOST_GB = 2.0  # of the process that denoises such a photo
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def measure(quick: bool) -> list[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            rows = [file_to_file(name, Path(folder), quick) for name in bundled.names()]
            return [*rows, memory(Path(folder), quick)]
    finally:
        torch.set_num_threads(threads)


def file_to_file(name: str, folder: Path, quick: bool) -> Row:
    path = bundled.FOLDER / "models" / name / "versions" / "00001"
    engine = Engine.load(path, verified=True)
    assert isinstance(engine.recipe, Restoring)
    (operation,) = engine.abilities
    ability = engine.abilities[operation]
    height, width = (side // (ability.scale * (4 if quick else 1)) for side in SIDES)
    source = photo(folder / f"{name}.jpg", height, width, ability.channels)
    megapixels = height * width * ability.scale**2 / 1e6
    mask = np.zeros((height, width, 1), np.uint8)
    mask[height // 3 : height // 2, ::3] = 255
    given = {"mask": mask} if operation == "inpaint" else {}
    pixels = torch.from_numpy(images.load(source, ability.channels)).permute(2, 0, 1)[None]
    rows: dict[str, torch.Tensor] = {"image": to_floats(pixels, torch.device("cpu"))}
    if "sigma" in ability.takes:
        rows["sigma"] = torch.full((1,), 15.0)
    if "mask" in ability.takes:
        rows["mask"] = torch.from_numpy(mask[None, ..., 0]).bool().long()

    def ours() -> float:
        began = time.perf_counter()
        made = engine(OPERATIONS[operation](), image=images.load(source), **given)
        images.save(made.images[0], folder / "made.jpg")
        return megapixels / (time.perf_counter() - began)

    def bare() -> float:
        began = time.perf_counter()
        engine.rows(operation, rows)  # type: ignore[arg-type]
        return megapixels / (time.perf_counter() - began)

    return compared(
        f"file to file: {name}",
        "megapixels/s",
        ours,
        bare,
        rounds=1,
        at_least=AT_LEAST,
        note=f"{width * ability.scale} x {height * ability.scale} pixels, {engine.precision}",
    )


def photo(path: Path, height: int, width: int, channels: int) -> Path:
    scene = render(torch.arange(1), 500, channels)[0].permute(1, 2, 0).numpy()
    picture = Image.fromarray(scene[..., 0] if channels == 1 else scene)
    picture.resize((width, height)).save(path, quality=95)
    return path


def memory(folder: Path, quick: bool) -> Row:
    """Of a process of its own, as one types it."""
    height, width = (side // (4 if quick else 1) for side in SIDES)
    source = photo(folder / "large.jpg", height, width, 3)
    line = [sys.executable, "-m", "jobs.cli", "denoise", source, "-o", folder / "clean.png"]
    # from a small process: of one that a large one starts, the peak is at least that one's size
    told = subprocess.run([sys.executable, "-c", PEAK, *line], check=True, capture_output=True)
    peak = int(told.stdout.split()[-1]) * 1024
    return Row(
        f"peak memory of `genimg denoise` of {width} x {height} pixels",
        "GB",
        ours=peak / 1e9,
        at_most=MOST_GB,
    )
