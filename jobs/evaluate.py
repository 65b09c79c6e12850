"""`genimg evaluate`: a model's metrics on data of one's choice."""

import json as json_
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.console import PrecisionOption, RegistryOption, run, say, shown

if TYPE_CHECKING:
    from genimg.contracts import Dataset
    from genimg.engine import Engine


def evaluate(
    model: Annotated[str, typer.Argument(help="NAME, NAME@ALIAS, NAME@7, or a checkpoint folder.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Dotted key=value of the recipe, e.g. evaluation.sigmas=[25]."),
    ] = None,
    data: Annotated[
        str, typer.Option(help="What to evaluate on: as for train, or 'scenes'.")
    ] = "scenes",
    split: Annotated[
        str, typer.Option(help="test, train or all, where the data tells them apart.")
    ] = "test",
    judge: Annotated[
        str | None, typer.Option(help="A classifier's model, to judge a generator's images.")
    ] = None,
    samples: Annotated[int, typer.Option(min=2, help="Images that --judge looks at.")] = 10_000,
    json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
    precision: PrecisionOption = "auto",
    registry: RegistryOption = "registry",
) -> None:
    """Measure a model. Each recipe has its metrics: PSNR and SSIM, ELBO, accuracy, distances.

    With --judge, a generator is also judged by a classifier: FID on its features, inception
    score, how many images it is sure of (probability 0.9 or more), and the share of each class.

    Example: genimg evaluate denoiser evaluation.sigmas=[25] --data BSD68
    """
    from genimg.data.opening import open_dataset
    from genimg.errors import InputError, nearest
    from jobs.model import load_engine

    if split not in ("train", "test", "all"):
        raise InputError(f"--split {split!r}; {nearest(split, ['train', 'test', 'all'])}")
    engine = load_engine(model, registry, precision)
    critic = None if judge is None else load_engine(judge, registry, precision)
    if critic:
        refuse_judge(engine, critic)
    recipe = engine.recipe.override([*(overrides or []), f"data.source={data!r}"])
    for key in engine.recipe.differences(recipe):
        if key.startswith("model.") or key in ("data.size", "data.channels"):
            raise InputError(f"{key} belongs to the trained model; leave it as it is")
    dataset = open_dataset(recipe.data, split, engine.device, warn=say)
    metrics = recipe.resolve(dataset.classes).evaluate(engine.inference, dataset)
    if critic:
        metrics |= judged(engine, critic, dataset, samples)
    if json:
        typer.echo(json_.dumps(metrics | {"precision": engine.precision}, indent=2))
    else:
        typer.echo(f"{'precision':24} {engine.precision}")
        for name, value in metrics.items():
            typer.echo(f"{name:24} {shown(value)}")


def refuse_judge(engine: "Engine", judge: "Engine") -> None:
    """InputError where the judge cannot look at the model's images."""
    from genimg.errors import InputError

    engine.need("sample")
    judge.need("classify")
    mine, its = engine.recipe.data, judge.recipe.data
    if (mine.size, mine.channels) != (its.size, its.channels):
        raise InputError(
            f"--judge takes {its.channels} x {its.size} x {its.size} images, the model makes "
            f"{mine.channels} x {mine.size} x {mine.size}; train a classifier of that size"
        )


def judged(engine: "Engine", judge: "Engine", dataset: "Dataset", samples: int) -> dict[str, float]:
    """What a classifier sees in a generator's images, beside the same of real images."""
    import torch

    from genimg.inference import real_images
    from genimg.metrics.distributions import (
        FeatureStatistics,
        class_shares,
        confident_share,
        frechet_distance,
        inception_score,
    )

    fake = engine.sample(samples, seed=0)
    real = real_images(dataset, min(samples, len(dataset))).permute(0, 2, 3, 1).numpy()
    statistics = [
        FeatureStatistics.of(torch.from_numpy(judge.features(images))) for images in (fake, real)
    ]
    probabilities = torch.from_numpy(judge.classify(fake))
    shares = class_shares(probabilities)
    score, _ = inception_score(probabilities)
    return {
        "judge_fid": frechet_distance(*statistics),
        "judge_inception_score": score,
        "judge_confident": confident_share(probabilities),
        "judge_confident_real": confident_share(torch.from_numpy(judge.classify(real))),
        "judge_smallest_class": float(shares.min()),
        "judge_largest_class": float(shares.max()),
    }


if __name__ == "__main__":
    run(evaluate)
