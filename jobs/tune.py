"""`genimg tune`: many trainings of a recipe, searched by Ray Tune; the best can be registered."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.console import Meter, RegistryOption, run, say, shown
from jobs.runs.registration import WithTrainingState, refuse_register, register_run

if TYPE_CHECKING:
    from jobs.sweeps.records import Sweep, Trial

SCHEDULERS = ("asha", "none")
SEARCHERS = ("optuna", "random")


def tune(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe; see `genimg recipes`.")],
    assignments: Annotated[
        list[str] | None,
        typer.Argument(help="What varies: 'train.lr=loguniform(1e-4,1e-2)'; and plain key=value."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="What to train on, as for train.  \\[default: the recipe's]"),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trainings in all.")] = 16,
    scheduler: Annotated[
        str, typer.Option(help="asha: stop the worse two thirds early, again and again; none.")
    ] = "asha",
    searcher: Annotated[
        str, typer.Option(help="optuna: learn from the trials that ended (TPE); random.")
    ] = "optuna",
    workers: Annotated[int, typer.Option(min=1, help="Workers of each training.")] = 1,
    name: Annotated[
        str | None,
        typer.Option(
            "--run",
            help="Name of the sweep; again, goes on.  \\[default: RECIPE-sweep]",
        ),
    ] = None,
    storage: Annotated[
        str, typer.Option(help="Folder or s3:// that sweeps and runs are kept in.")
    ] = "runs",
    register: Annotated[
        str | None, typer.Option(help="Register the best checkpoint under this model name.")
    ] = None,
    registry: RegistryOption = "registry",
    with_training_state: WithTrainingState = False,
    concurrent: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Trainings at once; say it with --autoscale."
            "  \\[default: what the cluster has CPUs, GPUs and memory for, 1 GB each]",
        ),
    ] = None,
    cpus_per_worker: Annotated[int, typer.Option(min=1, help="CPUs that a worker takes.")] = 1,
    gpu: Annotated[
        bool | None, typer.Option(help="A GPU a worker.  \\[default: if the cluster has as many]")
    ] = None,
    max_failures: Annotated[
        int, typer.Option(min=-1, help="Lost workers that a training recovers from.")
    ] = 3,
    autoscale: Annotated[
        bool, typer.Option("--autoscale", help="Wait for nodes that the cluster has not yet.")
    ] = False,
) -> None:
    """Search the values of keys for the best model, judged by the recipe's own evaluation.

    Ranges: uniform(low, high), loguniform(low, high), randint(low, high) and lograndint(low,
    high), both without high, choice(a, b, ...). A trial that diverges, fails or cannot be is named
    in the table, and the search goes on. Interrupted, the same command continues, and tries again
    what failed; with more --trials it goes on searching. One command at a time may run a sweep.

    Example: genimg tune dcgan 'train.lr=loguniform(1e-4,1e-2)' --trials 20 --register figures
    """
    import ray

    from cluster.local import connect
    from genimg.errors import InputError, nearest
    from jobs.sweeps.space import parse_space
    from jobs.train import complete_recipe

    for option, value, known in (
        ("--scheduler", scheduler, SCHEDULERS),
        ("--searcher", searcher, SEARCHERS),
    ):
        if value not in known:
            raise InputError(f"{option} {value!r}: not known; {nearest(value, known)}")
    from genimg import recipes

    plain, space = parse_space(recipes.named(recipe), assignments or [])
    base = complete_recipe(recipe, plain, data, registry)
    if register:
        refuse_register(register, registry)

    from cluster.places import everywhere
    from jobs.sweeps.records import Sweep

    sweep = Sweep(everywhere(storage), name or f"{recipe}-sweep", base, space)
    sweep.refuse_other()
    if trials > sweep.combinations:
        trials = int(sweep.combinations)
        say(f"there are only {trials} combinations; that many trials it is")
    with connect(dashboard=True):  # which Ray's cleaner of what killed trials held asks
        from jobs.runs.on_ray import refuse_infeasible
        from jobs.sweeps.on_tune import search
        from jobs.sweeps.trial_run import Task

        use_gpu = ray.cluster_resources().get("GPU", 0) >= workers if gpu is None else gpu
        if not autoscale:
            refuse_infeasible(workers, cpus_per_worker, use_gpu)
        sweep.start()
        task = Task(
            base.model_dump_json(), f"{sweep.url}/runs", workers, cpus_per_worker, use_gpu,
            max_failures,
        )  # fmt: skip
        with Meter(sweep.name, trials) as meter:
            follow = Follow(sweep, trials, meter)
            complete = search(
                sweep,
                task,
                trials=trials,
                scheduler=scheduler,
                searcher=searcher,
                concurrent=concurrent,
                changed=follow,
            )
    conclude(sweep, complete, register, registry, with_training_state)


class Follow:
    """Tells the person what becomes of the trials."""

    def __init__(self, sweep: Sweep, total: int, meter: Meter) -> None:
        self.sweep = sweep
        self.total = total
        self.meter = meter
        self.trials = {trial.name: trial for trial in sweep.trials()}

    def __call__(self, trial: Trial) -> None:
        before = self.trials.get(trial.name)
        self.trials[trial.name] = trial
        known = list(self.trials.values())
        if trial.over and not (before and before.over):
            values = " ".join(f"{key}={value}" for key, value in trial.values.items())
            best = self.sweep.best_value(trial)
            metric = "" if math.isnan(best) else f"  {self.sweep.metric} {shown(best)}"
            reason = f": {trial.reason}" if trial.reason else ""
            say(f"{trial.name} {trial.state}{reason}{metric}  {values}")
        best = self.sweep.best_value(self.sweep.ranked(known)[0])
        running = sum(not each.over for each in known)
        figures = {} if math.isnan(best) else {f"best {self.sweep.metric}": best}
        self.meter.update(len(known) - running, figures | {"running": running})


def conclude(
    sweep: Sweep, complete: bool, register: str | None, registry: str, with_training_state: bool
) -> None:
    """The table, the picture, and the best trial's best checkpoint."""
    found = [
        # its workers may have saved more between the scheduler's word and their end
        sweep.caught_up(trial) if trial.state == "stopped" else trial
        for trial in sweep.trials()
    ]
    from rich.console import Console

    from jobs.sweeps.report import picture, table

    Console().print(table(sweep, found))
    sweep.storage.write(f"{sweep.name}/sweep.png", picture(sweep, found))
    print(f"{sweep.url}/sweep.png")
    if not complete:
        over = sum(trial.over for trial in found)
        say(f"stopped after {over} trials; the same command goes on")
        sys.exit(130)
    best = next((trial for trial in sweep.ranked(found) if sweep.usable(trial)), None)
    if best is None:
        say("error: no trial came to a value and a checkpoint; the table says why")
        sys.exit(1)
    folder = sweep.run(best)
    chosen = folder.best(best.recipe(sweep.base))
    print(folder.path(chosen))
    if register:
        origin = {"name": sweep.name, "trial": best.name, "trials": len(found)}
        version = register_run(
            register,
            folder,
            chosen,
            registry,
            with_training_state=with_training_state,
            origin={"sweep": origin | {"values": best.values}},
        )
        print(version.reference)


if __name__ == "__main__":
    run(tune)
