"""What one worker of a training does, from the recipe to the last checkpoint; knows no Ray."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

import genimg
from genimg import checkpoint, images, recipes
from genimg.contracts import Sync
from genimg.data.augment import augment
from genimg.data.loader import Loader
from genimg.data.opening import open_dataset
from genimg.errors import InputError
from genimg.inference import Inference
from genimg.precision import resolved
from genimg.recipe import Recipe
from genimg.training.loop import fit
from genimg.training.method import Method, Snapshot
from jobs.run_folder import BackgroundSaver, History, RunFolder, best


@dataclass(frozen=True)
class Job:
    """A training in plain values, as it travels to the workers."""

    recipe: str  # JSON
    run: str
    storage: str

    def plain(self) -> dict[str, str]:
        return asdict(self)


class Lost(RuntimeError):
    """More workers failed than a training should recover from."""


def work(
    job: Job,
    sync: Sync,
    device: torch.device,
    *,
    progress: Callable[[int, dict[str, float]], None] = lambda seen, values: None,
    saved: Callable[[int, dict[str, float]], None] = lambda seen, metrics: None,
    warn: Callable[[str], None] = print,
    should_stop: Callable[[], bool] = lambda: False,
    discard: Callable[[], bool] = lambda: False,
) -> None:
    """Train a run to its end, or from where it was interrupted.

    progress(seen, values): rank 0, at each line of the log. saved(seen, metrics): every rank, at
    each checkpoint, with the metrics on rank 0 and none on the others. discard(): rank 0, whether
    the checkpoint that is due should not be made after all.
    """
    recipe = recipes.from_json(job.recipe)
    folder = RunFolder(job.storage, job.run)
    torch.manual_seed(recipe.train.seed)  # initial weights, alike on every worker
    method = recipe.method(device)
    data = open_dataset(recipe.data, device=device, warn=warn if sync.rank == 0 else ignore)
    train_data, held_out = data.hold_out(recipe.data.holdout)
    history = resume(method, folder, sync, warn)
    if method.seen >= recipe.train.images:
        return

    loader = Loader(
        train_data,
        batch_size=recipe.train.batch_size,
        seed=recipe.train.seed,
        device=device,
        augment=lambda batch, keys: augment(batch, keys, recipe.data.augment),
        rank=sync.rank,
        world=sync.world,
        seen=method.seen,
    )
    with ExitStack() as stack:
        recorder = None
        if sync.rank == 0:
            recorder = Recorder(recipe, folder, history, data.fingerprint, sync.world)
            stack.push(recorder)

        def log(seen: int, values: dict[str, float]) -> None:
            if recorder:
                recorder.log(seen, values)
                progress(seen, values)

        def save(method: Method) -> None:
            if agreed(recorder is not None and discard(), sync, device):
                saved(method.seen, {})
                return
            precision = resolved("auto", device)  # in which engines of it serve, on such a device
            inference = Inference.of_copies(method.averages, precision, sync)
            metrics = recipe.evaluate(inference, held_out)  # by all workers together
            if recorder:
                recorder.lineage.setdefault("evaluation", {})["precision"] = precision
                recorder.save(method, metrics, images.grid(*recipe.preview(inference, held_out)))
            saved(method.seen, metrics if recorder else {})

        batches = iter(loader)
        stack.callback(batches.close)  # type: ignore[attr-defined]
        fit(method, batches, recipe.train, sync=sync, log=log, save=save, should_stop=should_stop)


def ignore(text: str) -> None:
    pass


def agreed(wish: bool, sync: Sync, device: torch.device) -> bool:
    """Whether any worker wishes so; all must ask in step."""
    return bool(sync.gather(torch.tensor([wish], device=device)).any())


def resume(method: Method, folder: RunFolder, sync: Sync, warn: Callable[[str], None]) -> History:
    """Bring the method to the newest whole checkpoint, if any; returns the evaluations so far.

    Rank 0 chooses and the others follow, or workers that look at different moments could differ.
    """
    with tempfile.TemporaryDirectory(prefix="genimg-") as scratch:
        chosen = 0
        if sync.rank == 0:
            for seen in reversed(folder.checkpoints()):
                try:
                    place = folder.fetch(seen, Path(scratch))
                    chosen = seen
                    break
                except InputError as error:
                    warn(f"passed over a damaged checkpoint: {error}")
        choice = torch.tensor([chosen], dtype=torch.float64, device=method.device)
        chosen = int(sync.mean(choice, 1.0 if sync.rank == 0 else 0.0).item())
        if not chosen:
            return []
        if sync.rank != 0:
            place = folder.fetch(chosen, Path(scratch))
        progress = checkpoint.read_json(place, checkpoint.PROGRESS)
        weights = checkpoint.read_tensors(place, checkpoint.WEIGHTS)
        training = checkpoint.read_tensors(place, checkpoint.TRAINING)
        method.restore(Snapshot(weights, training, progress))
    return [(seen, metrics) for seen, metrics in progress["history"]]


class Recorder:
    """Rank 0's records of a run: event files, evaluations, sample grids, checkpoints."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        history: History,
        fingerprint: str,
        world: int,
    ) -> None:
        self.recipe = recipe
        self.history = history
        self.lineage = {
            "recipe": recipe.recipe,
            "run": folder.name,
            "data": {"source": recipe.data.source, "fingerprint": fingerprint},
            "code": {"genimg": genimg.__version__, "commit": commit(), "torch": torch.__version__},
            "workers": world,
        }
        self.folder = folder
        seen = history[-1][0] if history else 0
        # where the run's folder is elsewhere: written here, copied at each checkpoint
        self.scratch = None if folder.log_folder() else tempfile.TemporaryDirectory()
        place = self.scratch.name if self.scratch else folder.log_folder()
        # purge_step hides what an interrupted run logged after its last checkpoint
        self.events = SummaryWriter(place, purge_step=seen)
        self.saver = BackgroundSaver(folder)

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Publish what is pending, also when training failed: the last good checkpoint counts."""
        try:
            self.saver.close()  # first: it publishes event files as well
        finally:
            self.events.close()
            self.publish_logs()
            if self.scratch:
                self.scratch.cleanup()

    def log(self, seen: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.events.add_scalar(f"train/{name}", value, seen)

    def publish_logs(self) -> None:
        if self.scratch:
            self.events.flush()
            self.folder.publish_logs(Path(self.scratch.name))

    def save(self, method: Method, metrics: dict[str, float], picture: np.ndarray) -> None:
        """Save the method's state with its evaluation and the picture of its samples."""
        seen = method.seen
        self.history = [*self.history, (seen, metrics)]
        for name, value in metrics.items():
            self.events.add_scalar(f"evaluation/{name}", value, seen)
        self.events.add_image("samples", picture, seen, dataformats="HWC")
        snapshot = method.snapshot()
        snapshot.progress["history"] = self.history

        def write(path: Path) -> None:
            checkpoint.write(
                path,
                recipe=self.recipe.model_dump_json(indent=2),
                weights=snapshot.weights,
                training=snapshot.training,
                progress=snapshot.progress,
                metrics=metrics,
                samples=images.encode(picture, "png"),
                lineage=self.lineage
                | {"seen": seen, "created": datetime.now(UTC).isoformat(timespec="seconds")},
            )
            self.publish_logs()

        newest = [seen for seen, _ in self.history][-self.recipe.train.keep :]
        self.saver.save(seen, write, keep={*newest, best(self.recipe, self.history)})


def commit() -> str | None:
    """The commit of the code that runs: from the environment of a built image, or from git."""
    if "GENIMG_COMMIT" in os.environ:
        return os.environ["GENIMG_COMMIT"]
    described: Any = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(genimg.__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or None
