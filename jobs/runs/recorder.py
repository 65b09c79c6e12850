"""Rank 0's records of a run: event files, evaluations, sample grids, checkpoints."""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

import genimg
from genimg import checkpoint, images
from genimg.recipe import Recipe
from genimg.training.method import Method
from jobs.runs.folder import RunFolder, best
from jobs.runs.resume import Past
from jobs.runs.saver import BackgroundSaver


class Recorder:
    """Writes down what becomes of a training; ends with what is pending being saved."""

    def __init__(
        self, recipe: Recipe, folder: RunFolder, past: Past, fingerprint: str, world: int
    ) -> None:
        self.recipe = recipe
        self.history = history = past.history
        data: dict[str, Any] = {"source": recipe.data.source, "fingerprint": fingerprint}
        if past.earlier_data:
            data["earlier"] = list(past.earlier_data)
        self.lineage = {
            "recipe": recipe.recipe,
            "run": folder.name,
            "data": data,
            "code": {"genimg": genimg.__version__, "commit": commit(), "torch": torch.__version__},
            "workers": world,
        }
        self.folder = folder
        self.seen = history[-1][0] if history else 0
        # where the run's folder is elsewhere: written here, copied at each checkpoint
        self.scratch = None if folder.log_folder() else tempfile.TemporaryDirectory()
        place = self.scratch.name if self.scratch else folder.log_folder()
        # purge_step hides what an interrupted run logged after its last checkpoint
        self.events = SummaryWriter(place, purge_step=self.seen)
        self.saver = BackgroundSaver(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Publish what is pending, also when training failed: the last good checkpoint counts."""
        try:
            self.saver.wait()  # first: it publishes event files as well
        finally:
            with self.save_errors():
                self.events.close()
            self.publish_logs()
            if self.scratch:
                self.scratch.cleanup()

    def log(self, seen: int, values: dict[str, float]) -> None:
        self.seen = seen
        with self.save_errors():
            for name, value in values.items():
                self.events.add_scalar(f"train/{name}", value, seen)

    def save(self, method: Method, metrics: dict[str, float], picture: np.ndarray) -> None:
        """Save the method's state with its evaluation and the picture of its samples.

        Returns as soon as the state is copied; all else happens in a thread.
        """
        self.saver.wait()  # its snapshot is let go before there is another
        seen = method.seen
        self.history = [*self.history, (seen, metrics)]
        snapshot = method.snapshot()
        snapshot.progress["history"] = self.history

        def fill(path: Path) -> None:
            for name, value in metrics.items():
                self.events.add_scalar(f"evaluation/{name}", value, seen)
            self.events.add_image("samples", picture, seen, dataformats="HWC")
            checkpoint.fill(
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
        self.saver.save(seen, fill, keep={*newest, best(self.recipe, self.history)})

    def publish_logs(self) -> None:
        if self.scratch:
            self.events.flush()
            self.folder.publish_logs(Path(self.scratch.name))

    def save_errors(self) -> AbstractContextManager[None]:
        """For event files: turns what the system refuses into an error that names the place."""
        place = f"{self.scratch.name} (TMPDIR)" if self.scratch else self.folder.url
        return self.folder.save_errors(self.seen, place)


@cache  # a process runs what it has imported
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
