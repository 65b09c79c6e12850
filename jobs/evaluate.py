"""`genimg evaluate`: a model's metrics on data of one's choice."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    from genimg.contracts import Dataset
    from genimg.judges import Judge

OF_THE_MODEL = (
    "data.size",
    "data.channels",
    "data.stack",
    "data.place",
    "data.given",
    "data.predicted",
)


def evaluate(
    model: Annotated[str, typer.Argument(help="NAME, NAME@ALIAS, NAME@7, or a checkpoint folder.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Dotted key=value of the recipe, e.g. evaluation.sigmas=[25]."),
    ] = None,
    data: Annotated[
        str, typer.Option(help="What to evaluate on: as for train, or 'scenes'.")
    ] = "scenes",
    split: SplitOption = "test",
    judge: Annotated[str | None, typer.Option(help=JUDGE)] = None,
    samples: SamplesOption = 10_000,
    gan_train: GanTrainOption = False,
    gan_images: GanImagesOption = 50_000,
    workers: WorkersOption = None,
    baselines: Annotated[
        bool, typer.Option(help="Of a restorer: beside what classical methods make of it. Slow.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Folder for a page (with --judge), or a restorer's sheet and CSV.",
        ),
    ] = None,
    json: JsonOption = False,
    precision: PrecisionOption = "auto",
    registry: RegistryOption = "registry",
) -> None:
    """Measure a model. Each recipe has its metrics: PSNR and SSIM, ELBO, accuracy, distances.

    On the very data that a model, or its judge, was trained on, only what was held out is looked
    at. How it was measured stands beside the metrics: data, split, number of images, seed,
    detector, method.

    With --judge, a generator is also judged by a classifier, or by Inception (inception: and
    torch-fidelity's file of its weights): FID, KID, precision, recall, density
    and coverage on its features, inception score, how much alike images of a class are (MS-SSIM),
    how many it is sure of (probability 0.9 or more), and authenticity: how many are no nearer to a
    training image than that is to another. Of a model that draws by class also GAN-test (how many
    images the judge takes for what was asked for) and FID within classes, and with --gan-train the
    accuracy on real images of a classifier that has learnt from generated ones alone. Beside it
    what training images, noise and one image repeated would get; -o leaves a page with samples and
    the training images nearest to them.

    Where the judge is a detector of captioned scenes, a model that draws by text is told captions
    of scenes, of combinations of colour and shape that are seen in training and of held-out ones:
    in which part of the images colour, shape, count and relation are right, and all of them, beside
    the product of the four; and the same of real images. Where gray images are placed
    (data.place=true) a classifier of these reads whether they stand where the text says.

    A restorer is judged beside the damaged images, with --baselines beside classical methods too;
    -o writes scores.csv, a line an image, and sheet.png, the worst and the best.

    Example: genimg evaluate denoiser evaluation.sigmas=[25] --data BSD68
    """
    from genimg.engine import Engine
    from genimg.errors import InputError
    from genimg.recipes.restoring import Restoring
    from genimg.yardsticks import Yardstick
    from jobs.judged_pages import write
    from jobs.judgements import (
        held_out_of,
        judge_images,
        load_judge,
        set_apart,
        split_of,
        training_images,
    )
    from jobs.model import folder_of, with_helpers
    from jobs.restorers import opened_for, restored, without_repeats
    from jobs.runs.addressed import helpers_of
    from jobs.tables import Table, as_json, tell, told
    from jobs.told import judged_by_text, reader_named

    part = split_of(split)
    if word := next((each for each in overrides or () if "=" not in each), None):
        raise InputError(
            f"{word!r} is not of the form key=value; several models: genimg compare {model} {word}"
        )
    if workers and judge is None:
        raise InputError(
            f"--workers {workers}: they draw a generator's images for --judge to look at; give"
            " it too, or leave them out"
        )
    if gan_train and judge is None:
        raise InputError("--gan-train: a classifier as the judge is trained; give --judge too")
    folder, verified = folder_of(model, registry)
    drawn_by = [each for each in overrides or () if each.startswith("sampler.")]
    engine = Engine.load(folder, precision=precision, verified=verified, overrides=drawn_by)
    only = {model: engine}
    critic: Judge | None = None
    of_judge: dict[str | None, int] = {}
    reader = reader_named(judge, registry, precision, engine) if judge else None
    if reader and (gan_train or workers):
        raise InputError(
            f"--judge {judge}: tells whether texts are followed, with which go neither --gan-train"
            " nor --workers"
        )
    if judge and not reader:
        critic, of_judge = load_judge(judge, registry, precision, only, gan_train)
    if critic and output:
        refuse_blocked(output)
    recipe = engine.recipe.override([*(overrides or []), f"data.source={data!r}"])
    recipe = with_helpers(recipe, registry, training=False)
    for key in engine.recipe.differences(recipe):
        if key.startswith("model.") or key in OF_THE_MODEL:
            raise InputError(f"{key} belongs to the trained model; leave it as it is")
    opened = opened_for(recipe, part, engine.device)
    dataset: Dataset = opened
    protocol: dict[str, Any] = {"data": data, "split": split, "fingerprint": opened.fingerprint}
    held_out = held_out_of(folder, engine.recipe)
    training: Dataset | None = None
    if apart := set_apart(opened, [held_out], of_judge):
        training, dataset = apart
        protocol["split"] = "held-out"
        who = model if opened.fingerprint in held_out else f"--judge {judge}"
        say(
            f"{who} was trained on {data}: "
            f"only the {len(dataset)} images that were held out are looked at"
        )
    recipe = recipe.resolve(dataset.classes)
    # where a judge is given, that which the recipe names is not asked
    helpers = {} if judge else helpers_of(recipe, engine.device, training=False).engines
    inference = replace(engine.inference, helpers=helpers)
    others: dict[str, dict[str, float]] = {}
    classes: Table | None = None
    yardstick: Yardstick | None = None
    if critic:
        if protocol["split"] != "held-out":
            training = training_images(recipe.data, recipe.columns, part, opened, held_out)
        yardstick = Yardstick(critic, dataset, training, samples, gan_images if gan_train else 0)
    if isinstance(recipe, Restoring):
        metrics, others = restored(recipe, inference, dataset, baselines, output)
    elif baselines:
        raise InputError("--baselines: only for models that restore")
    elif output and not critic:
        raise InputError("-o: only for models that restore, and with --judge")
    else:
        metrics = recipe.evaluate(inference, dataset)
    protocol |= {"precision": engine.precision, **recipe.protocol(dataset)}
    protocol |= {key: value for key, _, value in (each.partition("=") for each in drawn_by)}
    if reader:
        faithful, real, about = judged_by_text(
            engine, reader, recipe, dataset, samples, f"--judge {judge}"
        )
        metrics, others = metrics | faithful, {"real": real}
        protocol["judge"] = {"model": judge, **about}
    if yardstick:
        judged = judge_images(engine, model, yardstick, registry, workers, drawn_by)
        metrics, others = metrics | judged.verdict.metrics, yardstick.limits()
        protocol["judge"] = {"model": judge, **yardstick.protocol()}
        if "text" in recipe.wants:
            protocol["judge"]["texts"] = "of the images that it is compared with"
        classes = judged.classes(yardstick)
    brief = without_repeats(recipe, metrics) if isinstance(recipe, Restoring) else metrics
    table = Table({"model": brief, **others})
    report = metrics | ({"beside": others} if others else {}) | {"protocol": protocol}
    report |= {"classes": classes.columns} if classes else {}
    if yardstick and output:
        title, words = f"{model}, judged by {judge}", [model, *(overrides or [])]
        command = ["evaluate", *words, "--data", data, "--split", split, "--judge", str(judge)]
        write(output, title, command, table, [judged], yardstick, report)
    if json:
        typer.echo(as_json(report))
        return
    tell(table)
    if classes:
        typer.echo(f"\n{classes.text()}")
    say(told(protocol))


if __name__ == "__main__":
    run(evaluate)
