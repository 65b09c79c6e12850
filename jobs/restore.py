"""`genimg restore`: an image, or every image of a folder, through a restorer."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.console import Meter, PrecisionOption, RegistryOption, refuse_blocked, run


def restore(
    model: Annotated[str, typer.Argument(help="NAME, NAME@ALIAS, NAME@7, or a checkpoint folder.")],
    source: Annotated[Path, typer.Argument(help="An image, or a folder of images.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Likewise an image or a folder.")],
    sigma: Annotated[
        float | None,
        typer.Option(help="Noise level on the scale of 0 to 255.  [default: estimated]"),
    ] = None,
    strength: Annotated[float, typer.Option(help="0 leaves the image, 1 restores it.")] = 1.0,
    tile: Annotated[
        str, typer.Option(help="Side of tiles in pixels, for large images; 0 is off.")
    ] = "auto",
    precision: PrecisionOption = "auto",
    registry: RegistryOption = "registry",
) -> None:
    """Restore images of any size and mode. Transparency and colour profiles are kept.

    Example: genimg restore denoiser@production noisy.png -o clean.png --sigma 25
    """
    from genimg import images
    from genimg.errors import InputError
    from jobs.model import load_engine

    if tile != "auto" and not tile.isdigit():
        raise InputError(f"--tile {tile!r}: give 'auto' or a number of pixels")
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    if source.is_dir():
        work = [
            (path, output / path.relative_to(source).with_suffix(".png"))
            for path in sorted(source.rglob("*"))
            if path.suffix.lower() in images.READABLE_SUFFIXES
        ]
        if not work:
            raise InputError(f"{source}: no images in it")
        if output.suffix.lower() in images.WRITABLE_SUFFIXES:
            raise InputError(f"-o {output}: give a folder, as the source is one")
        refuse_same_names(work)
        refuse_blocked(output)
    else:
        if output.suffix.lower() not in images.WRITABLE_SUFFIXES:
            known = " ".join(images.WRITABLE_SUFFIXES)
            raise InputError(f"-o {output}: give a name that ends in one of {known}")
        work = [(source, output)]
        refuse_blocked(output.parent)
    engine = load_engine(model, registry, precision)
    engine.need("restore")
    with Meter("restore", len(work)) as meter:
        for done, (path, target) in enumerate(work, start=1):
            image = images.load(path, keep_alpha=True)
            result = engine.restore(
                image, sigma=sigma, strength=strength, tile="auto" if tile == "auto" else int(tile)
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            images.save(result, target, profile=images.profile(path.read_bytes()))
            meter.update(done, {})
    typer.echo(output)


def refuse_same_names(work: list[tuple[Path, Path]]) -> None:
    """InputError where two images of a folder, as a.jpg and a.png, would become one."""
    from genimg.errors import InputError

    taken: dict[Path, Path] = {}
    for path, target in work:
        if (other := taken.setdefault(target, path)) != path:
            raise InputError(f"{other} and {path} would both become {target}; rename one of them")


if __name__ == "__main__":
    run(restore)
