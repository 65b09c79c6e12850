"""`genimg sample`: images out of a generator, as a grid or one by one."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.console import PrecisionOption, RegistryOption, refuse_blocked, run


def sample(
    model: Annotated[str, typer.Argument(help="NAME, NAME@ALIAS, NAME@7, or a checkpoint folder.")],
    n: Annotated[int, typer.Option("-n", help="How many images.")] = 64,
    seed: Annotated[int, typer.Option(help="Image i is that of seed SEED + i.")] = 0,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="An image for a grid, or a folder for one each.")
    ] = Path("grid.png"),
    columns: Annotated[int | None, typer.Option(help="Columns of the grid.")] = None,
    truncation: Annotated[
        float, typer.Option(help="Factor on the latents; less is more typical, less varied.")
    ] = 1.0,
    precision: PrecisionOption = "auto",
    registry: RegistryOption = "registry",
) -> None:
    """Make images. The same seed gives the same image, whatever else is asked for with it.

    Example: genimg sample shapes@best -n 64 --seed 0 -o grid.png
    """
    import math

    from genimg import images
    from genimg.errors import InputError
    from jobs.model import load_engine

    as_grid = bool(output.suffix)
    if as_grid and output.suffix.lower() not in images.WRITABLE_SUFFIXES:
        known = " ".join(images.WRITABLE_SUFFIXES)
        raise InputError(f"-o {output}: {output.suffix} is not an image; known: {known}")
    if columns is not None and columns < 1:
        raise InputError(f"--columns {columns}: at least 1")
    refuse_blocked(output.parent if as_grid else output)
    made = load_engine(model, registry, precision).sample(n, seed, truncation=truncation)
    if as_grid:
        output.parent.mkdir(parents=True, exist_ok=True)
        columns = columns or math.ceil(math.sqrt(n))
        images.save(images.grid(images.to_tensor(made), columns), output)
        typer.echo(output)
    else:
        output.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(made):
            images.save(image, output / f"seed-{seed + i:06d}.png")
        typer.echo(f"{output}: {n} images")


if __name__ == "__main__":
    run(sample)
