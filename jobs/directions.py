"""`genimg directions`: find what changes an attribute of a generator's images, and keep it."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.console import PrecisionOption, RegistryOption, run, say

if TYPE_CHECKING:
    from genimg.directions import Direction
    from genimg.engine import Engine


def directions(
    model: Annotated[str, typer.Argument(help="NAME, NAME@ALIAS, NAME@7, or a checkpoint folder.")],
    judge: Annotated[
        str | None,
        typer.Option(help="A classifier's model: a direction towards each of its classes too."),
    ] = None,
    samples: Annotated[int, typer.Option(min=64, help="Images that they are found from.")] = 4096,
    register: Annotated[
        str | None,
        typer.Option(help="Name of the model of which a version has them. [default: its own]"),
    ] = None,
    precision: PrecisionOption = "auto",
    registry: RegistryOption = "registry",
) -> None:
    """Find directions among a generator's latents, and register a version that knows them.

    By linear regression of what is measured of its samples (brightness, thickness, slant, width,
    height, saturation) and, with --judge, of the log odds of a classifier's classes. R2 is the
    share of an attribute's variance that is explained, of samples that it was not found from; those
    below 0.1 are left out. One step is a standard deviation of the attribute; of models that draw
    by class, of that within a class. They are then asked for as --direction thickness=1.5,slant=-1.

    Example: genimg directions digits --judge judge
    """
    from cluster.versions import check_name, parse_reference
    from genimg.directions import LEAST, add, clear, refuse_few
    from genimg.errors import InputError
    from genimg.judging import refuse_judge
    from jobs.model import Model, load_engine
    from jobs.runs.registration import register_checkpoint
    from jobs.tables import Table

    if register is None and ("/" in model or Path(model).expanduser().is_dir()):
        raise InputError(
            f"{model} is a folder: give --register NAME, the model that is to have them"
        )
    name = register or parse_reference(model)[0]
    check_name("model", name)
    wanted = Model.named(model, registry, precision)
    recipe = wanted.recipe()
    refuse_few(samples, recipe.need("sample").latent)
    if judge and recipe.data.stack:
        raise InputError(
            f"--judge {judge}: tells classes of each channel of stacked images, and none that a"
            " direction could lead to; leave it out"
        )
    critic = None if judge is None else load_engine(judge, registry, precision)
    if critic:
        refuse_judge(recipe.data, critic.recipe, f"--judge {judge}")
    found = found_of(wanted.engine(), critic, samples)
    kept = clear(found)
    if left := [each for each in found if each not in kept]:
        told = ", ".join(f"{each} ({found[each].r2:.3f})" for each in left)
        say(f"left out, as they do not follow the latents (R2 below {LEAST}): {told}")
    if not kept:
        raise InputError("no attribute follows the latents; nothing is registered")
    columns = {
        "R2": {each: one.r2 for each, one in kept.items()},
        "standard deviation": {each: one.deviation for each, one in kept.items()},
    }
    typer.echo(Table(columns).text())
    with tempfile.TemporaryDirectory(prefix="genimg-") as scratch:
        place = add(wanted.folder, Path(scratch) / "directed", kept)
        origin = {"directions": {"judge": judge, "samples": samples, "of": model}}
        version = register_checkpoint(name, place, registry, origin=origin)
    typer.echo(f"registered {version.reference}")


def found_of(engine: "Engine", critic: "Engine | None", count: int) -> "dict[str, Direction]":
    """Of the attributes of an engine's first `count` samples, and of a judge's classes."""
    import torch

    from genimg.directions import find, log_odds
    from genimg.drawn import own_classes
    from genimg.inference import latents, to_floats
    from genimg.judging import AT_ONCE
    from genimg.metrics.attributes import attributes
    from genimg.operations.drawing import Sample

    made = engine(Sample(n=count, seed=0)).images
    images = torch.from_numpy(made).permute(0, 3, 1, 2)
    found = attributes(images)
    if critic:
        able = critic.abilities["classify"]
        scores = torch.cat([
            critic.rows("classify", {"image": to_floats(few, critic.device)})["scores"].cpu()
            for few in images.split(AT_ONCE)
        ])  # fmt: skip
        for number, odds in enumerate(log_odds(scores).unbind(dim=1)):
            found[able.classes[number]] = odds
    ability, seeds = engine.abilities["sample"], torch.arange(count)
    groups = own_classes(ability, seeds) if ability.classes else None
    return find(latents(seeds, ability.latent), found, groups)


if __name__ == "__main__":
    run(directions)
