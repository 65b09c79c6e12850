"""`genimg recipes`: what can be trained, every key of a recipe, and how it varies its images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel

from jobs.console import run, say

if TYPE_CHECKING:
    import numpy as np

    from genimg.recipe import Recipe

SHOWN, TIMES = 8, 8  # images of a sheet, and how often each is varied: even, for they mix in pairs
LARGE = 128  # pixels, below which the images of a sheet are enlarged


def recipes(
    name: Annotated[str | None, typer.Argument(help="A recipe, to see all its keys.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, as for `genimg train`.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the recipe as JSON.")] = False,
    augmentation: Annotated[
        Path | None,
        typer.Option("--show-augmentation", help="Draw, into this file, how it varies images."),
    ] = None,
    data: Annotated[str, typer.Option(help="What images: scenes, a folder, s3://...")] = "scenes",
) -> None:
    """List the recipes; or one recipe with all its keys, their values and meaning.

    With --show-augmentation, draw images of the data, and each as training may see it, from its
    beginning at the left to its end, with the masks and boxes that the recipe trains on.

    Example: genimg recipes dcgan
    """
    from rich import box, print
    from rich.markup import escape
    from rich.table import Table

    from genimg import recipes
    from genimg.section import allowed

    table = Table(box=box.SIMPLE, header_style="bold", pad_edge=False)
    if name is None:
        for column in ("recipe", "can", "judged by", "what it is"):
            table.add_column(column)
        for each, make in recipes.RECIPES.items():
            recipe = make()
            metric, direction = recipe.chosen_by
            can = ", ".join(recipe.can())
            table.add_row(each, can, f"{metric} ({direction})", recipes.summary(recipe))
        print(table)
        return
    recipe = recipes.named(name).override([*(overrides or []), f"data.source={data!r}"])
    if augmentation:
        from genimg import images

        images.format_of(augmentation)
        images.save(varied_sheet(recipe), augmentation)
        typer.echo(augmentation)
        return
    if json:
        typer.echo(recipe.model_dump_json(indent=2))
        return
    table.add_column("key", no_wrap=True)
    table.add_column("default", style="cyan", max_width=20)
    table.add_column("takes", style="dim", max_width=32)
    table.add_column("meaning")
    keys = recipe.keys()
    for key, field in keys.items():
        if key != "recipe":
            shown = here(recipe, key) or f"({as_override(field.get_default())})"
            table.add_row(key, escape(shown), escape(allowed(field)), field.description or "")
    print(f"[bold]{name}[/]  {recipes.summary(recipe)}")
    print(table)
    if any(here(recipe, key) is None for key in keys):
        print("In parentheses: what there is with another model.network, which comes first.")


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
