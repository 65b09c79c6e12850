"""Restorers judged on whole images: what `evaluate` and `compare` have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genimg import images
from genimg.data.opening import open_dataset
from genimg.errors import InputError
from genimg.recipes.looked import Looked
from genimg.recipes.report import report, sheet_of
from genimg.recipes.restoring import Restoring
from jobs.console import refuse_blocked, say
from jobs.judgements import held_out_of, set_apart

if TYPE_CHECKING:
    import torch

    from genimg.contracts import Dataset, Splittable
    from genimg.data.sources import Split
    from genimg.inference import Inference
    from genimg.recipe import Recipe
    from jobs.model import Model

SMALLEST = 12  # pixels, of images that a restorer is judged by


def opened_for(recipe: Recipe, split: Split, device: torch.device) -> Splittable:
    """The data that a recipe's models are judged on."""
    try:
        return open_dataset(recipe.data, recipe.columns, split, device, warn=say)
    except InputError:
        if not isinstance(recipe, Restoring) or recipe.data.fit != "crop":
            raise
        # It looks at whole images, which may be smaller than the patches that it learned from.
        smaller = recipe.data.model_copy(update={"size": SMALLEST})
        return open_dataset(smaller, recipe.columns, split, device, warn=say)


def restored(
    recipe: Restoring,
    inference: Inference,
    data: Dataset,
    classical: bool,
    output: Path | None,
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """(a restorer's metrics, those of others by their names); what is asked for is written."""
    if output is not None:
        refuse_blocked(output)
        output.mkdir(parents=True, exist_ok=True)
    made = report(recipe, inference, data, classical)
    if made.left_out:
        say(
            f"left out: {', '.join(made.left_out)}, for want of a package: pip install"
            " 'genimg[baselines]' bm3d"
        )
    means = made.means()
    metrics = recipe.summary(means.pop("model"))
    if output is not None:
        images.write(output / "scores.csv", made.csv().encode())
        sheet = sheet_of(recipe, inference, data, made.scores["model"])
        images.save(sheet, output / "sheet.png")
        say(f"{output}: scores.csv and sheet.png")
    return metrics, means


def side_by_side(
    models: Sequence[Model], recipes: Sequence[Recipe], data: str, split: Split
) -> tuple[dict[str, dict[str, float]], dict[str, float], dict[str, Any]]:
    """(metrics by model, those of the damaged images, how they were measured), of restorers."""
    names = [model.name for model in models]
    restoring: list[Restoring] = []
    for name, recipe in zip(names, recipes, strict=True):
        if not isinstance(recipe, Restoring):
            raise InputError(f"{name} is no restorer, as others are; compare models of one kind")
        restoring.append(recipe.override([f"data.source={data!r}"]))
    first = restoring[0]
    for name, recipe in zip(names, restoring, strict=True):
        refuse_other_protocol(names[0], first, name, recipe)
    engines = [model.engine() for model in models]
    whole = opened_for(first, split, engines[0].device)
    protocol: dict[str, Any] = {"data": data, "split": split, "fingerprint": whole.fingerprint}
    dataset: Dataset = whole
    held_out = [held_out_of(m.folder, r) for m, r in zip(models, recipes, strict=True)]
    if apart := set_apart(whole, held_out, {}):
        _, dataset = apart
        protocol["split"] = "held-out"
        say(f"models were trained on {data}: only {len(dataset)} images that all had held out"
            " are looked at")  # fmt: skip
    metrics: dict[str, dict[str, float]] = {}
    for name, recipe, engine in zip(names, restoring, engines, strict=True):
        say(f"judging {name}")
        metrics[name] = recipe.evaluate(engine.inference, dataset)
    damaged = first.baseline(engines[0].inference, dataset)
    protocol |= {"precision": engines[0].precision, **first.protocol(dataset)}
    return metrics, damaged, protocol


def refuse_other_protocol(first: str, mine: Restoring, name: str, its: Restoring) -> None:
    """InputError where two restorers are not judged by the same images and damage, seen alike."""
    facts = {
        "channels": (mine.data.channels, its.data.channels),
        "columns": (" and ".join(mine.wants), " and ".join(its.wants)),
        "damage": (mine.tests(), its.tests()),
        **{key: (getattr(mine.looked, key), getattr(its.looked, key)) for key in Looked._fields},
    }
    for key, (ours, theirs) in facts.items():
        if ours != theirs:
            if key == "damage":
                ours, theirs = (
                    f"({', '.join(each.tests())}: {each.damage_told()})" for each in (mine, its)
                )
            raise InputError(
                f"{name} is judged by {key} {theirs}, {first} by {ours}: scores would not compare;"
                " leave one out, or judge each alone: genimg evaluate"
            )


def without_repeats(recipe: Restoring, metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics for a table: of a single damage `psnr`, the mean over damages, says nothing new."""
    few = len(recipe.tests()) == 1
    return {name: value for name, value in metrics.items() if not (few and name == "psnr")}
