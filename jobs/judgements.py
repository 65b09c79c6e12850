"""Generators judged by a classifier: what `evaluate` and `compare` have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from jobs.console import Meter, say
from jobs.tables import Table

if TYPE_CHECKING:
    import numpy as np

    from genimg.contracts import Dataset, Splittable
    from genimg.data.sources import Split
    from genimg.engine import Engine
    from genimg.judges import Judge
    from genimg.recipe import Data, Recipe
    from genimg.yardsticks import Verdict, Yardstick

FEWEST = 10  # images that are judged

JUDGE = "A classifier's model, which looks at a generator's images; or inception:FILE."
SplitOption = Annotated[
    str, typer.Option("--split", help="test, train or all, where the data tells them apart.")
]
SamplesOption = Annotated[
    int, typer.Option("--samples", min=FEWEST, help="Images of a generator that are looked at.")
]
GanTrainOption = Annotated[
    bool,
    typer.Option(
        "--gan-train",
        help="Of models that draw by class: train a classifier as the judge on their images. Slow.",
    ),
]
GanImagesOption = Annotated[
    int, typer.Option("--gan-images", min=1, help="Images that it then learns from.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Processes on a Ray cluster that draw a generator's images. Left out: this one.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")]


@dataclass(frozen=True)
class Judged:
    """A generator's images, seeds 0, 1, ..., and what a judge says of them."""

    name: str
    images: np.ndarray  # uint8 [N, H, W, C]
    verdict: Verdict

    def classes(self, yardstick: Yardstick) -> Table | None:
        """What is told of each class, if anything is."""
        if not self.verdict.classes:
            return None
        columns = yardstick.classes() | self.verdict.classes
        return Table(columns, models=len(columns), rows_are="class")


def judge_images(
    engine: Engine,
    name: str,
    yardstick: Yardstick,
    registry: str,
    workers: int | None,
    overrides: Sequence[str] = (),
) -> Judged:
    """Draw a generator's images and have them judged.

    name, registry, overrides: by which `workers` load the model as the engine was, in place of
    which they draw
    """
    import torch

    from genimg.by_class import numbered, student_of
    from genimg.engine import Engine
    from genimg.errors import InputError
    from genimg.operations.drawing import Sample
    from jobs.told import drawn_by_captions

    if yardstick.learnt_from and yardstick.truth is None:
        raise InputError("--gan-train: the data has classes that the judge does not tell")
    samples, learnt_from = yardstick.samples, yardstick.learnt_from
    count = max(samples, learnt_from)
    with Meter(f"{name}: drawing", count) as meter:

        def progress(done: int, _: int) -> None:
            meter.update(done, {})

        if "text" in engine.recipe.wants:
            if workers:
                raise InputError(
                    f"--workers {workers}: {name} draws by text, which they are not told; leave"
                    " them out"
                )
            drawn = drawn_by_captions(engine, name, yardstick.data, count, progress)
        elif workers:
            from jobs.drawn_on_ray import draw
            from jobs.model import address_of

            address = address_of(name, registry)
            drawn = draw(address, engine.precision, count, workers, progress, overrides)
        else:
            drawn = engine(Sample(n=count, seed=0), progress=progress)
    say(f"{name}: judging {samples:,} images")
    few, features = min(samples, len(yardstick.chosen)), yardstick.real.features.shape[1]
    if few <= features:
        say(f"{name}: FID of {few} images in {features} features says little; it falls with more")
    images = torch.from_numpy(drawn.images).permute(0, 3, 1, 2)
    labels = numbered(drawn.labels, yardstick.names)
    if labels is None:
        if drawn.labels:
            say(f"{name}: the judge does not tell the classes that it draws: no GAN-test")
        return Judged(name, drawn.images[:samples], yardstick.verdict(images[:samples]))
    student = None
    if learnt_from:
        judge = yardstick.judge
        assert isinstance(judge, Engine), "which `load_judge` sees to"
        learning = judge.recipe.train.images
        say(f"{name}: a classifier as the judge learns from {learnt_from:,} of its images, of which"
            f" it looks at {learning:,} all in all")  # fmt: skip
        with Meter(f"{name}: GAN-train", learning) as meter:
            student = student_of(judge, images[:learnt_from], labels[:learnt_from], meter.update)
    verdict = yardstick.verdict(images[:samples], labels[:samples], student)
    return Judged(name, drawn.images[:samples], verdict)


def load_judge(
    judge: str, registry: str, precision: str, models: Mapping[str, Engine], gan_train: bool
) -> tuple[Judge, dict[str | None, int]]:
    """(who judges these generators: a classifier's model, or Inception by inception:PATH; what a
    model has not learnt from, see `held_out_of`).

    InputError where it cannot, or where one of them draws nothing.
    """
    from genimg.judges import InceptionJudge
    from genimg.judging import refuse_judge
    from jobs.model import INCEPTION, Model

    for engine in models.values():
        engine.recipe.need("sample", engine.abilities)
    critic: Judge
    held_out: dict[str | None, int] = {}
    if judge.startswith(INCEPTION):
        critic = InceptionJudge.load(Path(judge.removeprefix(INCEPTION)).expanduser())
    else:
        model = Model.named(judge, registry, precision)
        critic = classifier = model.engine()
        held_out = held_out_of(model.folder, classifier.recipe)
        for engine in models.values():
            refuse_judge(engine.recipe.data, classifier.recipe, f"--judge {judge}")
    for name, engine in models.items() if gan_train else ():
        refuse_gan_train(engine, name, critic)
    return critic, held_out


def refuse_gan_train(engine: Engine, name: str, judge: Judge) -> None:
    """InputError where GAN-train cannot be told of a model."""
    from genimg.errors import InputError

    drawn, told = (
        each.abilities[of].classes for each, of in ((engine, "sample"), (judge, "classify"))
    )
    if not drawn:
        raise InputError(f"--gan-train: {name} does not draw by class; leave it out")
    if unknown := sorted(set(drawn) - set(told)):
        raise InputError(
            f"--gan-train: the judge does not tell {unknown[0]!r}, which {name} draws, it tells "
            f"{', '.join(told[:10])}; train a judge of the same classes"
        )


def split_of(text: str) -> Split:
    """What a person gave as --split, or InputError."""
    from genimg.data.sources import Split
    from genimg.errors import InputError, nearest

    if text not in (known := get_args(Split)):
        raise InputError(f"--split {text!r}; {nearest(text, known)}")
    return cast("Split", text)


def held_out_of(folder: Path, recipe: Recipe) -> dict[str | None, int]:
    """How many images a checkpoint was not trained on, of each data that it was.

    By fingerprint, also of data as they were before they changed: what was held out of these may
    have been trained on since; all else surely was.
    """
    from genimg import checkpoint

    data = checkpoint.read_manifest(folder).lineage.get("data", {})
    every = {each.get("fingerprint") for each in (data, *data.get("earlier", ()))}
    return dict.fromkeys(every, recipe.data.holdout)


def set_apart(
    opened: Splittable,
    models: Sequence[Mapping[str | None, int]],
    judge: Mapping[str | None, int],
) -> tuple[Dataset | None, Dataset] | None:
    """(what models were trained on, if any was on this data; what neither they nor their judge
    were), where any of them was trained on this very data.

    models, judge: of each, by the fingerprint of data that it was trained on, images that it was
        not. InputError where these cannot be told to be the same ones.
    """
    from genimg.errors import InputError

    every = (*models, judge)
    counts = {each[opened.fingerprint] for each in every if opened.fingerprint in each}
    if not counts:
        return None
    if len(counts) > 1 and not opened.at_hand:  # where more of them are others, too
        raise InputError(
            f"data.holdout={', '.join(map(str, sorted(counts)))}: of so large data models that hold"
            " out different numbers of images share none for sure; judge by data that neither they"
            " nor the judge were trained on"
        )
    rest, unseen = opened.hold_out(min(counts))
    return rest if any(opened.fingerprint in each for each in models) else None, unseen


def training_images(
    data: Data,
    wants: tuple[str, ...],
    split: Split,
    judged_on: Dataset,
    held_out: Mapping[str | None, int],
) -> Dataset | None:
    """The training images beside the test images that generators are judged on, if there are any.

    held_out: by the fingerprint of data that a model was trained on, images that it was not
    """
    from genimg.data.opening import open_dataset
    from genimg.errors import InputError

    if split != "test":
        return None
    try:
        opened = open_dataset(data, wants, "train", judged_on.device or "cpu", warn=say)
    except InputError as error:
        say(f"no training images to judge beside: {error}")
        return None
    if opened.fingerprint == judged_on.fingerprint:
        say(f"{data.source} is not divided into train/ and test/: no training images are known")
        return None
    if opened.fingerprint in held_out:
        return opened.hold_out(held_out[opened.fingerprint])[0]
    say(f"authenticity is by the training images of {data.source}: the model had others")
    return opened
