"""`genimg recipes`: what can be trained, every key of a recipe, and how it varies its images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from rich.markup import escape

from jobs.console import run, say

if TYPE_CHECKING:
    import numpy as np
    from pydantic.fields import FieldInfo
    from rich.table import Table

    from genimg.recipe import Recipe

OFF = ("0", "0.0", "false", "null", "[]")  # values of keys that then do nothing, or nothing special
SHOWN, TIMES = 8, 8  # images of a sheet, and how often each is varied: even, for they mix in pairs
LARGE = 128  # pixels, below which the images of a sheet are enlarged


def recipes(
    name: Annotated[str | None, typer.Argument(help="A recipe, to see all its keys.")] = None,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE|KEYS]...",
            help="key=value, as for `genimg train`; or which keys to see, as train or loss.r1.",
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="All keys, and what each takes, also those at 0 or off.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the recipe as JSON.")] = False,
    augmentation: Annotated[
        Path | None,
        typer.Option("--show-augmentation", help="Draw, into this file, how it varies images."),
    ] = None,
    data: Annotated[str, typer.Option(help="What images: scenes, a folder, s3://...")] = "scenes",
) -> None:
    """List the recipes; or one recipe with its keys, their values and meaning.

    Keys that are off, unless they are given, are explained with --all, or by the beginning of their
    names; so is what each takes.

    With --show-augmentation, draw images of the data, and each as training may see it, from its
    beginning at the left to its end, with the masks and boxes that the recipe trains on.

    Example: genimg recipes dcgan loss model.width=96
    """
    from genimg import recipes

    if name is None:
        list_all()
        return
    parts = [word for word in words or [] if "=" not in word]
    overrides = [word for word in words or [] if "=" in word]
    recipe = recipes.named(name).override([*overrides, f"data.source={data!r}"])
    if augmentation:
        from genimg import images

        images.format_of(augmentation)
        images.save(varied_sheet(recipe), augmentation)
        typer.echo(augmentation)
        return
    if json:
        typer.echo(recipe.model_dump_json(indent=2))
        return
    explain(recipe, parts, every)


def list_all() -> None:
    """Print all recipes; what those can that follow one another, and are judged by, once."""
    from rich import print

    from genimg import recipes

    table, before = columns("recipe", "what it is"), ""
    for name, make in recipes.RECIPES.items():
        recipe = make()
        metric, direction = recipe.chosen_by
        able = f"{', '.join(recipe.can())}; judged by {metric} ({direction})"
        if able != before:
            table.add_row("", f"\n[dim]{able}[/]")
        before = able
        table.add_row(f"[bold]{name}[/]", escape(recipes.summary(recipe)))
    print(table)


def columns(*names: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    first, *others = names
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name)
    return table


def explain(recipe: "Recipe", parts: Sequence[str], every: bool) -> None:
    """Print a table of keys: those whose names begin with some parts, or every one; or else those
    that are not off, with the names of the others."""
    from rich import print

    from genimg import recipes
    from genimg.errors import InputError, nearest

    own = recipe.keys()
    keys = {key: field for key, field in own.items() if key != "recipe"}
    listed = {key: kinds for key, field in keys.items() if (kinds := keys_of_kinds(key, field))}
    opened = [key for key in listed if any(part.startswith(key) for part in parts)]
    for key in opened:
        keys |= listed[key]
    for part in parts:
        if not any(key.startswith(part) for key in keys):
            sections = {key.partition(".")[0] for key in keys}
            raise InputError(f"no key begins with {part!r}; {nearest(part, {*keys, *sections})}")
    elsewhere = [key for key in own if here(recipe, key) is None]
    off = [key for key in keys if here(recipe, key) in OFF]
    left_out: set[str] = set()
    if not parts and not every:
        left_out = {*elsewhere, *off}
    seen = [key for key in keys if key not in left_out and key.startswith(tuple(parts) or "")]
    table = columns("key", "value", "meaning")
    table.columns[1].max_width = 20
    for key in seen:
        default = as_override(keys[key].get_default())
        shown = here(recipe, key) or (f"({default})" if key in elsewhere else default)
        table.add_row(key, f"[cyan]{escape(shown)}[/]", meaning(keys[key], bool(parts) or every))
    print(f"[bold]{recipe.recipe}[/]  {recipes.summary(recipe)}\n")
    print(table)
    for key in listed:
        if key in seen and not opened:
            print(f"\nKeys of each kind: genimg recipes {recipe.recipe} {key}")
    if not left_out:
        if any(key in elsewhere for key in seen):
            print("\nIn parentheses: what there is with another model.network, which comes first.")
        return
    print(f"\n[bold]Off, unless they are given[/] (0, false, null, []): {', '.join(off)}")
    if elsewhere:
        print(f"\n[bold]With another model.network[/]: {', '.join(elsewhere)}")
    again = f"genimg recipes {recipe.recipe}"
    print(f"\nTheir meaning, and what each key takes: {again} --all; or of some: {again} {off[-1]}")


def keys_of_kinds(key: str, field: "FieldInfo") -> dict[str, "FieldInfo"]:
    """{key.kind.name: field} of a key that is a list of sections, each of its kind; else empty."""
    if get_origin(field.annotation) is not tuple:
        return {}
    return {
        f"{key}.{section.model_fields['kind'].default}.{name}": each
        for section in sections_in(field.annotation)
        if "kind" in section.model_fields
        for name, each in section.model_fields.items()
        if name != "kind"
    }


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """All that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [each for part in get_args(annotation) for each in sections_in(part)]


def meaning(field: "FieldInfo", takes: bool) -> str:
    """What a key means, as rich's markup; with what it takes, or only with its choices."""
    from genimg.section import allowed

    annotations = (field.annotation, *get_args(field.annotation))
    choices = any(get_origin(each) is Literal for each in annotations)
    said = f" [dim]({escape(allowed(field))})[/]" if takes or choices else ""
    return f"{escape(field.description or '')}{said}"


def varied_sheet(recipe: "Recipe") -> "np.ndarray":
    """uint8 [H, W, 3]: a row an image of its data, first as it is, then varied for training."""
    import numpy as np
    import torch

    from genimg import rng
    from genimg.data.augment import augmenting
    from genimg.data.opening import open_dataset, told_by
    from genimg.drawing import outline, overlay
    from genimg.pixels import grid

    drawn = ("image", "mask", "boxes")
    columns = tuple(each for each in recipe.columns if each in drawn)
    told_by(recipe.data, columns)
    dataset = open_dataset(recipe.data, columns, warn=say)
    chosen = np.arange(min(SHOWN, len(dataset)))
    crops = rng.fold(recipe.train.seed, torch.from_numpy(chosen))
    stored = dataset.fetch(chosen, crops)
    again = torch.arange(len(chosen)).repeat(TIMES)  # so that neighbours are different images
    keys = rng.fold(recipe.train.seed, torch.arange(len(again)))
    seen = torch.linspace(0, recipe.train.images, TIMES).repeat_interleave(len(chosen))
    varied = augmenting(recipe)({name: each[again] for name, each in stored.items()}, keys, seen)

    def pictures(of: dict[str, torch.Tensor]) -> np.ndarray:
        arrays = [each.permute(1, 2, 0).numpy() for each in of["image"]]
        if "mask" in of:
            masks = of["mask"][:, 0].numpy()
            arrays = [overlay(image, mask) for image, mask in zip(arrays, masks, strict=True)]
        if "boxes" in of:
            boxes = of["boxes"].numpy()
            arrays = [outline(image, each) for image, each in zip(arrays, boxes, strict=True)]
        return np.stack(arrays)

    made = pictures(varied)
    times = made.reshape(TIMES, len(chosen), *made.shape[1:]).swapaxes(0, 1)
    plain = pictures({name: each for name, each in stored.items() if name in varied})
    rows = np.concatenate([plain[:, None], times], axis=1)
    factor = -(-LARGE // rows.shape[3])
    large = rows.repeat(factor, axis=2).repeat(factor, axis=3)
    return grid(torch.from_numpy(large).flatten(0, 1).permute(0, 3, 1, 2), TIMES + 1)


def here(recipe: "Recipe", key: str) -> str | None:
    """The value of a dotted key as an override has it; None where a section has no such key."""
    value: Any = recipe
    for part in key.split("."):
        if not hasattr(value, part):
            return None
        value = getattr(value, part)
    return as_override(value)


def as_override(value: object) -> str:
    """A value as it is written in an override."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, BaseModel):
        kind = {name: getattr(value, name) for name in ("kind",) if hasattr(value, name)}
        value = kind | value.model_dump(exclude_defaults=True)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {as_override(each)}" for key, each in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(as_override(item) for item in value) + "]"
    return str(value)


if __name__ == "__main__":
    run(recipes)
