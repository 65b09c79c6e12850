"""`genimg evaluate`: a model's metrics on data of one's choice."""

import json as json_
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from jobs.console import PrecisionOption, RegistryOption, run, say, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from genimg.contracts import Dataset
    from genimg.engine import Engine
    from genimg.metrics.distributions import FeatureStatistics

FEWEST_JUDGED = 10  # the inception score is a mean over ten parts
JUDGED_AT_ONCE = 512  # images


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
    samples: Annotated[
        int, typer.Option(min=FEWEST_JUDGED, help="Images that --judge looks at.")
    ] = 10_000,
    json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
    precision: PrecisionOption = "auto",
    registry: RegistryOption = "registry",
) -> None:
    """Measure a model. Each recipe has its metrics: PSNR and SSIM, ELBO, accuracy, distances.

    On the very data that a model was trained on, only what was held out is looked at. How it was
    measured stands beside the metrics: data, split, number of images, seed, detector, method.

    With --judge, a generator is also judged by a classifier: FID on its features, inception
    score, how many images it is sure of (probability 0.9 or more), and the share of each class.

    Example: genimg evaluate denoiser evaluation.sigmas=[25] --data BSD68
    """
    from genimg import checkpoint
    from genimg.data.opening import open_dataset
    from genimg.data.sources import Split
    from genimg.engine import Engine
    from genimg.errors import InputError, nearest
    from jobs.model import folder_of, load_engine

    if split not in get_args(Split):
        raise InputError(f"--split {split!r}; {nearest(split, get_args(Split))}")
    folder, verified = folder_of(model, registry)
    engine = Engine.load(folder, precision=precision, verified=verified)
    critic = None if judge is None else load_engine(judge, registry, precision)
    if critic:
        refuse_judge(engine, critic)
    recipe = engine.recipe.override([*(overrides or []), f"data.source={data!r}"])
    for key in engine.recipe.differences(recipe):
        if key.startswith("model.") or key in ("data.size", "data.channels"):
            raise InputError(f"{key} belongs to the trained model; leave it as it is")
    wants, device = recipe.wants, engine.device
    opened = open_dataset(recipe.data, wants, cast(Split, split), device, warn=say)
    dataset: Dataset = opened
    protocol: dict[str, Any] = {"data": data, "split": split, "fingerprint": opened.fingerprint}
    if opened.fingerprint in trained_on(checkpoint.read_manifest(folder).lineage):
        _, dataset = opened.hold_out(engine.recipe.data.holdout)
        protocol["split"] = "held-out"
        say(
            f"{model} was trained on {data}: "
            f"only the {len(dataset)} images that were held out are looked at"
        )
    recipe = recipe.resolve(dataset.classes)
    metrics = recipe.evaluate(engine.inference, dataset)
    protocol |= {"precision": engine.precision, **recipe.protocol(dataset)}
    if critic:
        metrics |= judge_samples(engine, critic, dataset, samples)
        protocol["judge"] = {"model": judge, "images": min(samples, len(dataset)),
                             "samples": samples, "seed": 0}  # fmt: skip
    if json:
        typer.echo(json_.dumps(metrics | {"protocol": protocol}, indent=2))
        return
    for name, value in metrics.items():
        typer.echo(f"{name:24} {shown(value)}")
    say("; ".join(f"{name}: {value}" for name, value in protocol.items()))


def trained_on(lineage: dict[str, Any]) -> set[str | None]:
    """Fingerprints of the data that a checkpoint was trained on, and of those before they changed.

    What was held out of earlier data may have been trained on since; all else surely was.
    """
    data = lineage.get("data", {})
    return {each.get("fingerprint") for each in (data, *data.get("earlier", ()))}


def refuse_judge(engine: "Engine", judge: "Engine") -> None:
    """InputError where the judge cannot look at the model's images."""
    from genimg.errors import InputError

    engine.recipe.need("sample", engine.abilities)
    judge.recipe.need("classify", judge.abilities)
    mine, its = engine.recipe.data, judge.recipe.data
    if (mine.size, mine.channels) != (its.size, its.channels):
        raise InputError(
            f"--judge takes {its.channels} x {its.size} x {its.size} images, the model makes "
            f"{mine.channels} x {mine.size} x {mine.size}; train a classifier of that size"
        )


def judge_samples(
    engine: "Engine", judge: "Engine", dataset: "Dataset", samples: int
) -> dict[str, float]:
    """What a classifier sees in a generator's images, beside the same of real images."""
    import torch

    from genimg.inference import real_images, to_floats
    from genimg.metrics.distributions import (
        FeatureStatistics,
        class_shares,
        confident_share,
        frechet_distance,
        inception_score,
    )
    from genimg.operations.drawing import Sample

    chosen = dataset.choose(samples)

    def generated(start: int, stop: int) -> "torch.Tensor":
        drawn = engine(Sample(n=stop - start, seed=start)).images
        return torch.from_numpy(drawn).permute(0, 3, 1, 2)

    def real(start: int, stop: int) -> "torch.Tensor":
        return real_images(dataset, chosen[start:stop])

    features = judge.networks["classifier"].features

    def seen(
        draw: "Callable[[int, int], torch.Tensor]", count: int
    ) -> "tuple[FeatureStatistics, torch.Tensor]":
        """Statistics of features, and probabilities [count, classes], some images at a time."""
        statistics: FeatureStatistics | None = None
        parts = []
        for start in range(0, count, JUDGED_AT_ONCE):
            images = to_floats(draw(start, min(start + JUDGED_AT_ONCE, count)), judge.device)
            batch = FeatureStatistics.of(judge.inference.run(features, images).cpu())  # type: ignore[arg-type]
            if statistics:
                statistics.merge(batch)
            else:
                statistics = batch
            parts.append(judge.rows("classify", {"image": images})["scores"].cpu())
        assert statistics is not None, "there is at least one image"
        return statistics, torch.cat(parts)

    fake_statistics, probabilities = seen(generated, samples)
    real_statistics, of_real = seen(real, len(chosen))
    shares = class_shares(probabilities)
    score, _ = inception_score(probabilities)
    return {
        "judge_fid": frechet_distance(fake_statistics, real_statistics),
        "judge_inception_score": score,
        "judge_confident": confident_share(probabilities),
        "judge_confident_real": confident_share(of_real),
        "judge_smallest_class": float(shares.min()),
        "judge_largest_class": float(shares.max()),
    }


if __name__ == "__main__":
    run(evaluate)
