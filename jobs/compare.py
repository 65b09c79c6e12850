"""`genimg compare`: several models side by side: generators by one classifier, or restorers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from jobs.console import PrecisionOption, RegistryOption, refuse_blocked, run, say
from jobs.judgements import (
    JUDGE,
    GanImagesOption,
    GanTrainOption,
    JsonOption,
    SamplesOption,
    SplitOption,
    WorkersOption,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from genimg.contracts import Dataset
    from genimg.data.sources import Split
    from genimg.engine import Engine
    from genimg.recipe import Recipe
    from jobs.model import Model

DECIDING = ("size", "channels", "stack", "fit", "scenes")  # keys of data that say what images are


def compare(
    models: Annotated[
        list[str], typer.Argument(help="NAME, NAME@ALIAS, NAME@7, or checkpoint folders.")
    ],
    judge: Annotated[str | None, typer.Option(help=JUDGE)] = None,
    data: Annotated[
        str, typer.Option(help="Real images to compare with: as for train, or 'scenes'.")
    ] = "scenes",
    split: SplitOption = "test",
    samples: SamplesOption = 10_000,
    gan_train: GanTrainOption = False,
    gan_images: GanImagesOption = 50_000,
    workers: WorkersOption = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for a page with the scores.")
    ] = None,
    json: JsonOption = False,
    precision: PrecisionOption = "auto",
    registry: RegistryOption = "registry",
) -> None:
    """Judge several models on the same images, side by side: generators, or restorers.

    Generators need a --judge: the scores are those of `genimg evaluate --judge`. Restorers, of the
    same damage, have those of `genimg evaluate`, beside the damaged images. The best of each line
    has a star. Where models, or the judge, were trained on the very data, only what all held out is
    looked at.

    Example: genimg compare dcgan wgan-gp@best --judge eyes --data scenes -o compared
    """
    from genimg.errors import InputError
    from genimg.recipes.restoring import Restoring
    from genimg.yardsticks import Yardstick
    from jobs.judged_pages import write
    from jobs.judgements import judge_images, load_judge, split_of
    from jobs.model import Model
    from jobs.tables import Table, as_json, tell, told

    part = split_of(split)
    if twice := sorted({name for name in models if models.count(name) > 1}):
        raise InputError(f"{twice[0]} is given twice; give different models")
    if output:
        refuse_blocked(output)
    every = [Model.named(name, registry, precision) for name in models]
    recipes = [each.recipe() for each in every]
    if any(isinstance(recipe, Restoring) for recipe in recipes):
        given = {"--judge": judge, "--workers": workers, "--gan-train": gan_train, "-o": output}
        if option := next((name for name, value in given.items() if value), None):
            raise InputError(f"{option}: only for generators; leave it out with a restorer")
        compare_restorers(every, recipes, data, part, json)
        return
    if judge is None:
        raise InputError("--judge is missing; name a classifier's model, as generators need one")
    engines = [each.engine() for each in every]
    named = dict(zip(models, engines, strict=True))
    critic, of_judge = load_judge(judge, registry, precision, named, gan_train)
    for name, engine in named.items():
        refuse_other_data(models[0], engines[0], name, engine)
    dataset, training, judged_on = opened(every, engines, of_judge, data, part)
    yardstick = Yardstick(critic, dataset, training, samples, gan_images if gan_train else 0)
    judged = [
        judge_images(engine, name, yardstick, registry, workers) for name, engine in named.items()
    ]
    metrics = {each.name: each.verdict.metrics for each in judged}
    limits = yardstick.limits()
    beside = {f"{who} images" if who in metrics else who: each for who, each in limits.items()}
    table = Table({**metrics, **beside}, models=len(models))
    protocol: dict[str, Any] = {
        "data": data,
        "split": judged_on,
        "fingerprint": dataset.fingerprint,
        "precision": engines[0].precision,
        "judge": {"model": judge, **yardstick.protocol()},
    }
    report = {"models": metrics, "best": table.best(), "beside": limits, "protocol": protocol}
    by_class = {
        each.name: classes.columns for each in judged if (classes := each.classes(yardstick))
    }
    report |= {"classes": by_class} if by_class else {}
    if output:
        command = ["compare", *models, "--data", data, "--split", split, "--judge", judge]
        title = f"{', '.join(models)}, judged by {judge}"
        write(output, title, command, table, judged, yardstick, report)
    if json:
        typer.echo(as_json(report))
        return
    tell(table)
    say(told(protocol))


def compare_restorers(
    models: "list[Model]", recipes: "list[Recipe]", data: str, split: "Split", json: bool
) -> None:
    """Print what restorers score, beside the damaged images."""
    from jobs.restorers import side_by_side
    from jobs.tables import Table, as_json, tell, told

    metrics, damaged, protocol = side_by_side(models, recipes, data, split)
    names = list(next(iter(metrics.values())))
    better: dict[str, Literal["min", "max"]] = dict.fromkeys(names, "max")
    beside = "damaged images" if "damaged" in metrics else "damaged"
    table = Table({**metrics, beside: damaged}, models=len(models), better=better)
    if json:
        report = {"models": metrics, "best": table.best(), "beside": {"damaged": damaged}}
        typer.echo(as_json(report | {"protocol": protocol}))
        return
    tell(table)
    say(told(protocol))


def refuse_other_data(first: str, engine: "Engine", name: str, other: "Engine") -> None:
    """InputError where two models make images of different kinds."""
    from genimg.errors import InputError

    mine, its = (each.recipe.data.model_dump() for each in (engine, other))
    for key in DECIDING:
        if mine[key] != its[key]:
            raise InputError(
                f"{name} was trained with data.{key}={its[key]}, {first} with {mine[key]}: real "
                "images would not be the same for both; compare each with models of its kind"
            )


def opened(
    models: "list[Model]",
    engines: "list[Engine]",
    of_judge: "Mapping[str | None, int]",
    data: str,
    split: "Split",
) -> "tuple[Dataset, Dataset | None, str]":
    """(what the models are judged on, training images if known, which part of the data it is)."""
    from genimg.data.opening import open_dataset
    from jobs.judgements import held_out_of, set_apart, training_images

    recipe = engines[0].recipe.override([f"data.source={data!r}"])
    wants = tuple(dict.fromkeys(name for each in engines for name in each.recipe.columns))
    several = [
        held_out_of(model.folder, engine.recipe)
        for model, engine in zip(models, engines, strict=True)
    ]
    held_out: dict[str | None, int] = {}
    for each in several:
        for fingerprint, count in each.items():
            held_out[fingerprint] = min(count, held_out.get(fingerprint, count))
    whole = open_dataset(recipe.data, wants, split, engines[0].device, warn=say)
    if apart := set_apart(whole, several, of_judge):
        training, dataset = apart
        who = "models were" if whole.fingerprint in held_out else "--judge was"
        say(f"{who} trained on {data}: only {len(dataset)} images that all had held out"
            " are looked at")  # fmt: skip
        return dataset, training, "held-out"
    return whole, training_images(recipe.data, wants, split, whole, held_out), split


if __name__ == "__main__":
    run(compare)
