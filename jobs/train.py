"""`genimg train`: one run of a recipe on Ray Train, or in this process with --workers 0."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from jobs.console import Meter, RegistryOption, in_a_line, parse_count, run, say
from jobs.runs.registration import WithTrainingState, refuse_register, register_run

if TYPE_CHECKING:
    from genimg.recipe import Recipe
    from jobs.runs.folder import RunFolder
    from jobs.runs.worker import Job

Progress = Callable[[int, dict[str, float]], None]
Launch = Callable[[threading.Event, Progress], None]


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe; see `genimg recipes`.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Dotted key=value, e.g. train.batch_size=256 model.width=96."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Folder, archive, IDX folder, .npz, shards, here or s3://; or 'scenes'."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--run", help="Name of the run; the same again resumes it.  \\[default: RECIPE]"
        ),
    ] = None,
    workers: Annotated[
        str, typer.Option(help="N, elastic as MIN..MAX, or 0 to train in this process.")
    ] = "1",
    storage: Annotated[str, typer.Option(help="Folder or s3:// that runs are kept in.")] = "runs",
    register: Annotated[
        str | None, typer.Option(help="Register the best checkpoint under this model name.")
    ] = None,
    registry: RegistryOption = "registry",
    with_training_state: WithTrainingState = False,
    cpus_per_worker: Annotated[int, typer.Option(min=1, help="CPUs that a worker takes.")] = 1,
    gpu: Annotated[
        bool | None, typer.Option(help="A GPU a worker.  \\[default: if the cluster has as many]")
    ] = None,
    max_failures: Annotated[
        int, typer.Option(min=-1, help="Lost workers to recover from; -1 for any number.")
    ] = 3,
    autoscale: Annotated[
        bool, typer.Option("--autoscale", help="Wait for nodes that the cluster has not yet.")
    ] = False,
    changed_data: Annotated[
        bool,
        typer.Option("--changed-data", help="Go on though the data changed since the checkpoint."),
    ] = False,
) -> None:
    """Train a recipe, or go on with the run of that name.

    The global batch belongs to the recipe: the same recipe means the same training on 1 or 64
    workers. A lost worker is replaced, and training goes on from the last checkpoint. Ctrl-C
    saves a checkpoint and stops; the same command goes on from there.

    Example: genimg train dcgan train.images=100000 --data scenes --run first --workers 2
    """
    from genimg.data.loader import refuse_small_batch

    low, high = worker_range(workers)
    chosen = complete_recipe(recipe, overrides or [], data, registry, workers=max(low, 1))
    refuse_small_batch(chosen.train.batch_size, high, chosen.together)
    if register:
        refuse_register(register, registry)
    folder = run_folder(storage, name or recipe)
    folder.refuse_other(chosen, changed_data)

    from jobs.runs.worker import Job

    job = Job(chosen.model_dump_json(), folder.name, folder.url, changed_data)

    for caution in (*chosen.cautions(), *idle(chosen, overrides or [])):
        say(caution)

    def here(stop: threading.Event, progress: Progress) -> None:
        folder.start(chosen, changed_data)
        train_here(job, stop, progress)

    def on_ray(stop: threading.Event, progress: Progress) -> None:
        import ray

        from cluster.local import connect
        from jobs.runs.on_ray import refuse_infeasible, train_on_ray

        with connect():
            use_gpu = ray.cluster_resources().get("GPU", 0) >= low if gpu is None else gpu
            if not autoscale:
                refuse_infeasible(low, cpus_per_worker, use_gpu)
            folder.start(chosen, changed_data)
            train_on_ray(
                job,
                workers=(low, high),
                cpus_per_worker=cpus_per_worker,
                use_gpu=use_gpu,
                max_failures=max_failures,
                progress=progress,
                warn=say,
                note=say,
                stop=stop,
            )

    finish(chosen, folder, on_ray if low else here, register, registry, with_training_state)


def idle(recipe: Recipe, overrides: Sequence[str]) -> list[str]:
    """What is said of keys that are given and change nothing."""
    given = [override.partition("=")[0] for override in overrides]
    return [f"{key} changes nothing: {why}" for key, why in recipe.idle().items() if key in given]


def worker_range(text: str) -> tuple[int, int]:
    """'4' -> (4, 4); '2..8' -> (2, 8); '0' -> (0, 0)."""
    from genimg.errors import InputError

    low, most = parse_count("--workers", text, example="2..8")
    high = low if most is None else most
    if high < low or (low == 0 and high > 0):
        raise InputError(f"--workers {text}: MIN must be at least 1 and at most MAX")
    return low, high


def complete_recipe(
    name: str,
    overrides: list[str],
    data: str | None,
    registry: str = "registry",
    workers: int = 1,
) -> Recipe:
    """The recipe that is trained: overridden, its data and helpers found, classes filled in.

    Data that has no room in this machine's memory is refused, unless workers are on others.
    """
    from cluster.places import everywhere
    from genimg import recipes
    from genimg.data.opening import SCENES, told_by
    from jobs.model import with_helpers

    recipe = with_helpers(recipes.named(name).override(overrides), registry)
    source = data or recipe.data.source
    if source != SCENES:
        source = everywhere(source)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"source": source})})
    here = 0 if os.environ.get("RAY_ADDRESS") else workers
    return recipe.resolve(
        *told_by(recipe.data, recipe.columns, copies=here, fewest=recipe.fewest_held_out, warn=say)
    )


def run_folder(storage: str, name: str) -> RunFolder:
    from cluster.places import everywhere
    from jobs.runs.folder import RunFolder

    return RunFolder(everywhere(storage), name)


def train_here(job: Job, stop: threading.Event, progress: Progress) -> None:
    """Train in this process."""
    import torch

    from genimg.training.sync import Alone
    from jobs.runs.worker import work

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    work(job, Alone(), device, progress=progress, warn=say, note=say, should_stop=stop.is_set)


def finish(
    recipe: Recipe,
    folder: RunFolder,
    launch: Launch,
    register: str | None,
    registry: str,
    with_training_state: bool,
) -> None:
    """Run to the end, then say where the checkpoints are and register the best one."""
    from genimg.training.loop import Diverged
    from jobs.runs.worker import Lost

    if not folder.complete(recipe):
        title = f"{folder.name} ({recipe.recipe})"
        try:
            with stop_requests() as stop, Meter(title, recipe.train.images) as meter:
                launch(stop, meter.update)
        except Diverged as error:
            give_up(folder, error, "try a lower train.lr under another --run")
        except Lost as error:
            give_up(folder, error, "the same command goes on from there")
    done = folder.checkpoints()
    if not done or done[-1] < recipe.train.images:
        seen = done[-1] if done else 0
        say(f"stopped at {seen:,} of {recipe.train.images:,} images; the same command goes on")
        sys.exit(130)

    chosen = folder.best(recipe)
    metric, _ = recipe.chosen_by
    best = "last (of a second stage the best)" if recipe.last_is_best else f"best (by {metric})"
    for seen, what in {done[-1]: "last", chosen: best}.items():
        values = in_a_line(folder.metrics(seen))
        say(f"{what} checkpoint: {values}")
        print(folder.path(seen))
    if register:
        version = register_run(
            register, folder, chosen, registry, with_training_state=with_training_state
        )
        print(version.reference)


def give_up(folder: RunFolder, reason: Exception, remedy: str) -> NoReturn:
    done = folder.checkpoints()
    kept = f"the last good checkpoint is {folder.path(done[-1])}" if done else "none was saved"
    say(f"error: {reason}; {kept}; {remedy}")
    sys.exit(1)


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; a second one ends the process at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: object) -> None:
        say("stopping at the next line of the log, after a checkpoint; again to stop at once")
        stop.set()
        for each, handler in previous.items():
            signal.signal(each, handler)

    for each in previous:
        signal.signal(each, request)
    try:
        yield stop
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)


if __name__ == "__main__":
    run(train)
