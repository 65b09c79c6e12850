"""`genimg recipes`: what can be trained, and every key of a recipe."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel

from jobs.console import run

if TYPE_CHECKING:
    from genimg.recipe import Recipe


def recipes(
    name: Annotated[str | None, typer.Argument(help="A recipe, to see all its keys.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the recipe as JSON.")] = False,
) -> None:
    """List the recipes; or one recipe with all its keys, their defaults and meaning.

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
    recipe = recipes.named(name)
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
        value = value.model_dump(exclude_defaults=True) | {
            name: getattr(value, name) for name in ("kind",) if hasattr(value, name)
        }
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {as_override(each)}" for key, each in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(as_override(item) for item in value) + "]"
    return str(value)


if __name__ == "__main__":
    run(recipes)
