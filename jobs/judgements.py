"""Generators judged by a classifier: what `evaluate` and `compare` have in common."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from jobs.console import Meter, say
from jobs.pages import Section
from jobs.tables import Table, as_json

if TYPE_CHECKING:
    import numpy as np

    from genimg.contracts import Dataset, Splittable
    from genimg.data.sources import Split
    from genimg.engine import Engine
    from genimg.judges import Judge
    from genimg.recipe import Data, Recipe
    from genimg.yardsticks import Verdict, Yardstick

INCEPTION = "inception:"  # begins what is no model, but the file of its weights
FEWEST = 10  # images that are judged
GRID = 64  # samples that a page shows, in so many columns:
COLUMNS = 16
OF_A_CLASS = 10  # samples of each class that it shows
MOST_CLASSES = 40  # that it shows
SUSPECTS = 8  # samples that it shows beside training images
BESIDE = 7  # of these, to each
LIMITS = """real: as many training images judged likewise; the authenticity is that of the images \
compared with, and GAN-test and GAN-train are the judge's accuracy on these. noise: each pixel at \
random. repeated: one real image over and over. Of both GAN-test and GAN-train are chance."""

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
    from jobs.model import Model

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


def told(protocol: Mapping[str, Any]) -> str:
    """How something was measured, in a line; of fingerprints and digests their beginnings."""
    brief = {
        name: value[:12] if name.endswith(("fingerprint", "digest")) else value
        for name, value in flat(protocol).items()
    }
    return "; ".join(f"{name}: {value}" for name, value in brief.items())


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


def write(
    folder: Path,
    title: str,
    command: Sequence[str],
    table: Table,
    judged: Sequence[Judged],
    yardstick: Yardstick,
    metrics: Mapping[str, Any],
) -> None:
    """metrics.json, report.md and index.html, whose pictures are inside it."""
    from genimg import images
    from jobs import pages

    folder.mkdir(parents=True, exist_ok=True)
    asked = ["--samples", str(yardstick.samples)]
    if yardstick.learnt_from:
        asked += ["--gan-train", "--gan-images", str(yardstick.learnt_from)]
    line = shlex.join(["genimg", *command, *asked])
    told = "; ".join(f"{name}: {value}" for name, value in flat(metrics["protocol"]).items())
    scores = Section("Scores")
    scores.command(line)
    scores.table(table.head(), table.shown(), table.marked())
    legend = table.legend("bold")
    scores.text(legend)
    limits = LIMITS if "real" in table.columns else LIMITS[LIMITS.index("noise") :]
    scores.text(limits)
    scores.text(told)
    sections = [scores]
    by_class = ""
    for each in judged:
        section = Section(each.name)
        if classes := each.classes(yardstick):
            section.table(classes.head(), classes.rows(), classes.marked())
            by_class += f"\n## {each.name}, by class\n\n{classes.markdown()}\n"
        for picture, caption in pictures(each, yardstick):
            section.picture(images.encode(picture), caption)
        sections.append(section)
    images.write(folder / "metrics.json", f"{as_json(metrics)}\n".encode())
    parts = (f"# {title}", f"    {line}", table.markdown(), legend, limits, f"{told}\n{by_class}")
    markdown = "\n\n".join(parts)
    images.write(folder / "report.md", markdown.encode())
    pages.write(folder / "index.html", title, sections)
    say(f"{folder}: index.html, report.md and metrics.json")


def pictures(judged: Judged, yardstick: Yardstick) -> list[tuple[np.ndarray, str]]:
    """(picture, caption): samples; samples by class; those most like training images."""
    import numpy as np

    from genimg.judging import classes_of, labels_of
    from genimg.pixels import grid, to_tensor
    from genimg.sheets import shelves

    few = judged.images[:GRID]
    found = [(grid(to_tensor(few), COLUMNS), f"{len(few)} samples, seeds 0 to {len(few) - 1}")]
    labels = labels_of(judged.verdict.seen).cpu().numpy()
    stacked = judged.verdict.seen.probabilities.dim() > 2
    classes = classes_of(yardstick.judge, stacked)
    counts = np.bincount(labels, minlength=len(classes))
    most = np.sort(counts.argsort(kind="stable")[::-1][:MOST_CLASSES])  # all, where they are few
    of_each = [judged.images[labels == label][:OF_A_CLASS] for label in most]
    shares = [f"{classes[label]}: {counts[label] / len(labels):.1%}" for label in most]
    found.append((shelves(shares, of_each), "samples that the judge takes for each class"))
    if (nearest := yardstick.nearest(judged.verdict, SUSPECTS, BESIDE)) and judged.verdict.likeness:
        places, beside = nearest
        ratios = judged.verdict.likeness.ratios[places].tolist()
        rows = [
            np.concatenate([judged.images[place][None], real.permute(0, 2, 3, 1).numpy()])
            for place, real in zip(places.tolist(), beside, strict=True)
        ]
        names = [
            f"seed {place}: at {ratio:.2f} of that training image's distance to its nearest other"
            for place, ratio in zip(places.tolist(), ratios, strict=True)
        ]
        found.append((
            shelves(names, rows),
            "the samples that are most like training images, and to each the nearest of these",
        ))  # fmt: skip
    return found


def flat(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """With what is nested under dotted names."""
    found: dict[str, Any] = {}
    for name, value in protocol.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": each for inner, each in value.items()}
        else:
            found[name] = value
    return found
