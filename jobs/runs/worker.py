"""What one worker of a training does, from the recipe to the last checkpoint; knows no Ray."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import torch

from genimg import recipes
from genimg.contracts import Sync
from genimg.data.augment import augmenting
from genimg.data.loader import Loader
from genimg.data.opening import open_dataset
from genimg.inference import Inference
from genimg.passes import rows_at_once
from genimg.pixels import grid
from genimg.precision import resolved
from genimg.training.loop import fit
from genimg.training.memory import keep_freed
from genimg.training.method import Method
from jobs.console import in_a_line
from jobs.runs.addressed import helpers_of
from jobs.runs.folder import RunFolder
from jobs.runs.recorder import Recorder
from jobs.runs.resume import agree, resume


@dataclass(frozen=True)
class Job:
    """A training in plain values, as it travels to the workers."""

    recipe: str  # JSON
    run: str
    storage: str
    changed_data: bool = False  # whether to go on though the data changed since

    def plain(self) -> dict[str, Any]:
        return asdict(self)


class Lost(RuntimeError):
    """More workers failed than a training should recover from."""


class Unsaved(RuntimeError):
    """Worker 0 could not save a checkpoint, and says why; told to all other workers."""


def work(
    job: Job,
    sync: Sync,
    device: torch.device,
    *,
    progress: Callable[[int, dict[str, float]], None] = lambda seen, values: None,
    saved: Callable[[int, dict[str, float]], None] = lambda seen, metrics: None,
    warn: Callable[[str], None] = print,
    note: Callable[[str], None] = lambda text: None,
    should_stop: Callable[[], bool] = lambda: False,
    discard: Callable[[], bool] = lambda: False,
) -> bool:
    """Train a run to its end, or from where it was interrupted; whether it is at its end.

    progress(seen, values): rank 0, at each line of the log. saved(seen, metrics): every rank, at
    each checkpoint, with the metrics on rank 0 and none on the others. note(text): rank 0, what a
    person likes to hear. discard(): rank 0, whether the checkpoint that is due should not be made
    after all.
    """
    keep_freed()
    recipe = recipes.from_json(job.recipe)
    folder = RunFolder(job.storage, job.run)
    torch.manual_seed(recipe.train.seed)  # initial weights, alike on every worker
    method = recipe.method(device)
    helpers = helpers_of(recipe, device)
    recipe.helped(method, helpers.teachers)
    tell = warn if sync.rank == 0 else ignore
    data = open_dataset(recipe.data, recipe.columns, device=device, warn=tell)
    train_data, held_out = data.hold_out(recipe.data.holdout)
    past = resume(
        method,
        folder,
        sync,
        warn,
        fingerprint=data.fingerprint,
        changed_data=job.changed_data,
    )
    if method.seen >= recipe.train.images:
        return True
    if method.seen and sync.rank == 0:
        note(f"goes on at {method.seen:,} of {recipe.train.images:,} images")

    loader = Loader(
        train_data,
        batch_size=recipe.train.batch_size,
        seed=recipe.train.seed,
        device=device,
        augment=augmenting(recipe),
        draw=method.drawn,
        rank=sync.rank,
        world=sync.world,
        together=recipe.together,
        seen=method.seen,
    )
    precision = resolved("auto", device)  # in which engines of it serve, on such a device
    most = rows_at_once(recipe.data.size**2, device)
    protocol = recipe.protocol(held_out)
    baseline: dict[str, float] | None = None  # the same at all checkpoints
    with ExitStack() as stack:
        recorder = None
        if sync.rank == 0:
            recorder = stack.enter_context(
                Recorder(recipe, folder, past, data.fingerprint, sync.world)
            )
            if helpers.digests:
                named = recipe.helped_by()
                recorder.lineage["helpers"] = {
                    name: {"model": named[name], "digest": digest}
                    for name, digest in helpers.digests.items()
                }
            recorder.lineage["evaluation"] = {
                "split": "held-out",
                "precision": precision,
                **protocol,
            }

        def log(seen: int, values: dict[str, float]) -> None:
            if recorder:
                recorder.log(seen, values)
                progress(seen, values)

        def stop() -> bool:  # also at once, where a checkpoint could not be saved
            return should_stop() or (recorder is not None and recorder.saver.failed)

        def save(method: Method) -> None:
            nonlocal baseline
            if agree(recorder is not None and recorder.saver.failed, sync, device):
                if recorder:
                    recorder.saver.wait()  # raises what happened
                raise Unsaved("worker 0 could not save a checkpoint")
            if agree(recorder is not None and discard(), sync, device):
                saved(method.seen, {})
                return
            if recorder:
                count = protocol["images"]
                note(f"judging the checkpoint at {method.seen:,} images by {count} images")
            inference = Inference.of_copies(method.averages, precision, sync, most, helpers.engines)
            metrics = recipe.evaluate(inference, held_out)  # by all workers together
            if baseline is None:
                baseline = recipe.baseline(inference, held_out)
            if recorder:
                note(f"checkpoint at {method.seen:,} images: {in_a_line(metrics, baseline)}")
                recorder.save(method, metrics, grid(*recipe.preview(inference, held_out)))
            saved(method.seen, metrics if recorder else {})

        batches = iter(loader)
        stack.callback(batches.close)
        fit(method, batches, recipe.train, sync=sync, log=log, save=save, should_stop=stop)
    return method.seen >= recipe.train.images


def ignore(text: str) -> None:
    pass
