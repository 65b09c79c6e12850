"""`genimg recipes`: what can be trained, and every key of a recipe."""

from typing import Annotated

import typer

from jobs.console import run


def recipes(
    name: Annotated[str | None, typer.Argument(help="A recipe, to see all its keys.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the recipe as JSON.")] = False,
) -> None:
    """List the recipes; or one recipe with all its keys, their defaults and meaning.

    Example: genimg recipes dcgan
    """
    from rich import box, print
    from rich.table import Table

    from genimg import recipes
    from genimg.section import allowed, flat

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
    values = flat(recipe.model_dump())
    for key, field in recipe.keys().items():
        if key != "recipe":
            table.add_row(key, as_override(values[key]), allowed(field), field.description or "")
    print(f"[bold]{name}[/]  {recipes.summary(recipe)}")
    print(table)


def as_override(value: object) -> str:
    """A value as it is written in an override."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(as_override(item) for item in value) + "]"
    return str(value)


if __name__ == "__main__":
    run(recipes)
