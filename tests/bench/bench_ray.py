"""Ray Train with one worker against the same training in this process.

Both are whole runs, as `genimg train --workers 1` and `--workers 0` are: data from files, log,
evaluation, checkpoint. Compared is the speed between start and end, as the workers' own log
states it; what starting takes is in the note. Both compute on one thread, as one worker does by
default: Ray's own processes need some of the machine too. The cluster is up only while it is used.
"""

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import made_data
import torch
from measuring import Row

from cluster.local import connect
from genimg import recipes
from genimg.recipe import Recipe
from jobs.runs.folder import RunFolder
from jobs.runs.on_ray import train_on_ray
from jobs.runs.worker import Job
from jobs.train import train_here

AT_LEAST = 0.95
Launch = Callable[[Job, Callable[[int, dict[str, float]], None]], None]


def measure(quick: bool) -> list[Row]:
    window, windows = (128, 4) if quick else (1_280, 10)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = made_data.write_idx(Path(folder) / "data", 6_000 if quick else made_data.MNIST)
        lines = [f"train.log_every={window}", "train.log_seconds=0"]
        recipe = mnist_sized(data, f"train.images={window * windows}", *lines)
        pairs = [
            (run(on_ray, recipe, f"{folder}/ray", turn), run(here, recipe, f"{folder}/here", turn))
            for turn in range(1 if quick else 5)
        ]
    torch.set_num_threads(threads)
    return [
        Row(
            "ray: one worker, dcgan",
            "images/s",
            ours=median(ray for (ray, _), _ in pairs),
            baseline=median(plain for _, (plain, _) in pairs),
            ratios=tuple(ray / plain for (ray, _), (plain, _) in pairs),
            at_least=AT_LEAST,
            note=f"starts in {median(start for (_, start), _ in pairs):.1f} s, "
            f"in this process in {median(start for _, (_, start) in pairs):.1f} s",
        )
    ]


def mnist_sized(data: Path, *overrides: str) -> Recipe:
    about_data = [f"data.source={data}", "data.channels=1", "data.fit=pad"]
    return recipes.named("dcgan").override([*about_data, *overrides])


def run(launch: Launch, recipe: Recipe, storage: str, turn: int) -> tuple[float, float]:
    """(images a second after the first window, seconds from the command to the first image)."""
    job = Job(recipe.model_dump_json(), f"run-{turn}", storage)
    RunFolder(storage, job.run).start(recipe)
    speeds: list[float] = []
    starts: list[float] = []
    began = time.perf_counter()

    def progress(seen: int, values: dict[str, float]) -> None:
        if not speeds:
            elapsed = time.perf_counter() - began
            starts.append(elapsed - seen / values["images_per_second"])
        speeds.append(values["images_per_second"])

    launch(job, progress)
    return median(speeds[1:]), starts[0]


def on_ray(job: Job, progress: Callable[[int, dict[str, float]], None]) -> None:
    with connect():
        train_on_ray(
            job,
            workers=(1, 1),
            cpus_per_worker=1,
            use_gpu=torch.cuda.is_available(),
            max_failures=0,
            progress=progress,
            warn=print,
            stop=threading.Event(),
        )


def here(job: Job, progress: Callable[[int, dict[str, float]], None]) -> None:
    train_here(job, threading.Event(), progress)
