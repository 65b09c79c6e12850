"""An operation over a folder on Ray, over the bare engine on the same cores."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measuring import Row

from genimg import images
from genimg.data.scenes import render
from genimg.engine import Engine
from genimg.operations.restoring import Denoise
from jobs.train import train

MODEL = ["data.channels=1", "data.holdout=32", "train.images=64", "evaluation.images=4"]
SIDE = 512  # pixels
_DIFFERENT = 16  # scenes that are drawn, and then repeated


def measure(quick: bool) -> list[Row]:
    """2,000 gray images through the default denoiser, a worker a core."""
    count, seconds = (40, 2.0) if quick else (2_000, 30.0)
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as place:
        train(
            "ffdnet", MODEL, name="bench", workers="0", storage=f"{place}/runs",
            register="bench", registry=f"{place}/registry",
        )  # fmt: skip
        folder = Path(place, "registry", "models", "bench", "versions", "00001")
        photos = Path(place, "photos")
        photos.mkdir()
        scenes = render(torch.arange(_DIFFERENT), SIDE, channels=1).permute(0, 2, 3, 1).numpy()
        files = [images.encode(scene) for scene in scenes]
        for number in range(count):
            (photos / f"{number:05d}.png").write_bytes(files[number % _DIFFERENT])
        before = bare(folder, scenes, cores, seconds)
        began = time.perf_counter()
        command = [
            sys.executable, "-m", "jobs.cli", "denoise", str(photos), "-o", f"{place}/clean",
            "--model=bench", "--sigma=25", f"--registry={place}/registry", f"--workers={cores}",
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        ours = count / (time.perf_counter() - began)
        after = bare(folder, scenes, cores, seconds)
    alone = (before + after) / 2
    return [
        Row(
            "offline: ffdnet on a folder", "images/s", ours, alone, (ours / alone,), at_least=0.9,
            note=f"{count:,} of {SIDE} x {SIDE}, Ray's start, decoding and encoding included, "
            "over engines that do neither",
        )
    ]  # fmt: skip


def bare(folder: Path, scenes: np.ndarray, cores: int, seconds: float) -> float:
    """Images a second of an engine a core, each on one thread."""
    context = multiprocessing.get_context("spawn")
    results, ready = context.Queue(), context.Barrier(cores)
    arguments = (folder, scenes, seconds, ready, results)
    workers = [context.Process(target=one, args=arguments) for _ in range(cores)]
    for worker in workers:
        worker.start()
    total = sum(results.get() for _ in workers)
    for worker in workers:
        worker.join()
    return total


def one(folder: Path, scenes: np.ndarray, seconds: float, ready: object, results: object) -> None:
    torch.set_num_threads(1)
    engine = Engine.load(folder)
    engine(Denoise(sigma=25), image=scenes[0])
    ready.wait()  # type: ignore[attr-defined]
    made, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        engine(Denoise(sigma=25), image=scenes[made % len(scenes)])
        made += 1
    results.put(made / took)  # type: ignore[attr-defined]
