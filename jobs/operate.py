"""The verbs of operations, made of their declarations: `genimg sample`, `genimg denoise`, ..."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genimg import bundled
from genimg.operations import DRAWN, OPERATIONS, Kind, Operation, Tiling, restoring
from genimg.section import allowed
from jobs.console import PrecisionOption, RegistryOption, say

if TYPE_CHECKING:
    from genimg.recipe import Recipe

MODEL = "NAME, NAME@ALIAS, NAME@7, or a checkpoint folder."
BESIDE = "a file for all, or a folder with the images' names"
LATENTS = "Latents as `encode` and `invert` write them: .npy, .json or .jsonl."
FORMAT = (
    "Of files in a folder: same (as each image; PNG where that cannot be written), png, jpeg, webp"
    " or tiff.  \\[default: png]"
)
QUALITY = "Of JPEG (95 if left out) and WebP (lossless if left out)."
SERVER = (
    "URL of a genimg server, as http://localhost:8000, that does it in the place of this machine;"
    " GENIMG_API_KEY is sent to it as the key."
)
_OUTPUTS = {  # what an operation gives -> (help of -o, default)
    Kind.PICTURE: ("An image; for several a folder or s3:// prefix.", None),
    Kind.PICTURES: ("An image for a grid; a folder or s3:// prefix for one each.", "grid.png"),
    Kind.FRAMES: (
        "A .webp or .gif that moves, a .png of all, or a folder.",
        "frames.webp",
    ),
    Kind.GRID: ("An image of all, or a folder.", "grid.png"),
    Kind.LATENTS: ("A .npy, .json or .jsonl file; without it, JSON is printed.", None),
    Kind.VALUES: ("A .json or .jsonl file; without it, JSON is printed.", None),
}


def verb(operation: type[Operation]) -> Callable[..., None]:
    """The command of an operation; that of Tiling asks a model for what it was made for."""

    def command(**given: Any) -> None:
        options = {name: given.pop(name) for name in operation.model_fields}
        beside = {name: given.pop(name) for name in operation.beside}
        perform(operation, options, beside=beside, **given)

    describe(command, operation)
    return command


def made_for(recipe: Recipe) -> type[Operation]:
    """The one restoring operation of a recipe's models, or InputError."""
    from genimg.errors import InputError

    every = recipe.can()
    able = restoring(every)
    if len(able) != 1:
        kind = recipe.recipe
        if able:
            raise InputError(f"{kind} models can {' and '.join(able)}; say which: genimg {able[0]}")
        raise InputError(f"{kind} models cannot restore; they can: {', '.join(every)}")
    return OPERATIONS[able[0]]


def describe(command: Callable[..., None], operation: type[Operation]) -> None:
    """Give a command the signature, help and example that Typer reads."""
    command.__name__ = operation.name
    command.__doc__ = f"{operation.about()}\n\nExample: {example(operation)}\n"
    parameters: list[tuple[str, Any, Any]] = []
    reads = reads_images(operation)
    draws = operation.gives in DRAWN
    latents = Kind.LATENTS in operation.takes.values()
    if reads or operation.needs():
        files = LATENTS
        if reads:
            files = "An image." if draws else "Images, folders or s3:// prefixes of images."
            if Kind.FRAMES in operation.takes.values():
                files = "A clip (GIF, WebP), a folder of its frames, or an image."
            files += f" Or {LATENTS[0].lower()}{LATENTS[1:]}" if latents else ""
        argument = typer.Argument(help=files)
        if operation.needs():
            parameters.append(("sources", Annotated[list[str], argument], ...))
        else:
            parameters.append(("sources", Annotated[list[str] | None, argument], None))
        here = bundled.model_for(operation.name)
        instead = f"  \\[default: {here}, which comes with genimg]" if here else ""
        option = typer.Option(
            "--model", "-m", help=f"{'' if here else 'Required. '}{MODEL}{instead}"
        )
        parameters.append(("model", Annotated[str | None, option], None))
    else:
        parameters.append(("model", Annotated[str, typer.Argument(help=MODEL)], ...))
        if latents:
            given = typer.Option("--latents", help=f"In place of seeds. {LATENTS}")
            parameters.append(("latents", Annotated[str | None, given], None))
    for name, about in operation.beside.items():
        required = "Required. " if name in operation.must_have() else ""
        place = typer.Option(f"--{name}", help=f"{required}{about} ({BESIDE})")
        parameters.append((name, Annotated[str | None, place], None))
    text, default = _OUTPUTS[operation.gives]
    text += " An image or a folder: drawn on what was given." if operation.shows else ""
    parameters.append(
        ("output", Annotated[str | None, typer.Option("-o", "--output", help=text)], default)
    )
    if operation.gives is Kind.PICTURE or operation.shows:
        formats = typer.Option("--format", help=FORMAT)
        parameters.append(("format", Annotated[str | None, formats], None))
        fine = typer.Option("--save-quality", min=1, max=100, help=QUALITY)
        parameters.append(("save_quality", Annotated[int | None, fine], None))
    for key, field in operation.model_fields.items():
        flag = f"-{key}" if len(key) == 1 else f"--{key.replace('_', '-')}"
        if field.annotation is bool:
            option = typer.Option(flag, help=field.description, show_default=False)
            parameters.append((key, Annotated[bool | None, option], None))
            continue
        about = f"{field.description} ({allowed(field)})"
        shown = "" if field.default is None else f"  \\[default: {field.default}]"
        option = typer.Option(flag, help=about + shown, show_default=False)
        parameters.append((key, Annotated[str | None, option], None))
    if operation.gives is Kind.PICTURES:
        columns = typer.Option("--columns", help="Columns of the grid.")
        parameters.append(("columns", Annotated[int | None, columns], None))
    if operation.gives is Kind.PICTURES and not reads:
        shards = typer.Option("--shard-rows", help="Parquet shards of so many, in a folder.")
        parameters.append(("shard_rows", Annotated[int | None, shards], None))
    if not draws or (operation.gives is Kind.PICTURES and not reads):
        workers = typer.Option("--workers", help="Processes on a Ray cluster. Left out: this one.")
        parameters.append(("workers", Annotated[int | None, workers], None))
        replaced = "Replace what another job has left there, or the image itself."
        overwrite = typer.Option("--overwrite", help=replaced)
        parameters.append(("overwrite", Annotated[bool, overwrite], False))
    url = typer.Option("--server", help=SERVER)
    parameters.append(("server", Annotated[str | None, url], None))
    parameters.append(("precision", PrecisionOption, "auto"))
    parameters.append(("registry", RegistryOption, "registry"))
    kinds = inspect.Parameter
    command.__signature__ = inspect.Signature([  # type: ignore[attr-defined]
        kinds(key, kinds.KEYWORD_ONLY, annotation=kind,
              default=kinds.empty if value is ... else value)
        for key, kind, value in parameters
    ])  # fmt: skip
    command.__annotations__ = {key: kind for key, kind, _ in parameters}


def reads_images(operation: type[Operation]) -> bool:
    return not {Kind.PICTURE, Kind.FRAMES}.isdisjoint(operation.takes.values())


def example(operation: type[Operation]) -> str:
    """A command line that works, given the files and the model."""
    reads = reads_images(operation)
    given = "image.png" if reads else "latents.npy"
    given = "clip.gif" if Kind.FRAMES in operation.takes.values() else given
    named = "" if bundled.model_for(operation.name) else " -m MODEL"
    model = f"{given}{named}" if reads or operation.needs() else "figures@best"
    output = {
        Kind.PICTURE: " -o result.png",
        Kind.PICTURES: " -o grid.png",
        Kind.GRID: " -o grid.png",
        Kind.FRAMES: " -o frames.webp",
    }.get(operation.gives, "")
    beside = next((f" --{name} {name}.png" for name in operation.beside), "")
    count = 4 if operation.gives is Kind.GRID else 64
    many = f" -n {count}" if "n" in operation.model_fields else ""
    seeded = operation.model_fields.keys() - operation.conditions
    seed = " --seed 0" if "seed" in seeded else ""
    return f"genimg {operation.name} {model}{beside}{many}{seed}{output}"


def perform(
    operation: type[Operation],
    options: dict[str, str | bool | None],
    model: str | None,
    output: str | None,
    precision: str,
    registry: str,
    sources: list[str] | None = None,
    beside: Mapping[str, str | None] = {},
    latents: str | None = None,
    columns: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    shard_rows: int | None = None,
    format: str | None = None,
    save_quality: int | None = None,
    server: str | None = None,
) -> None:
    """Do an operation; everything that a person may have got wrong is found before it begins."""
    given = {key: value for key, value in options.items() if value is not None}
    if server is not None:
        refuse_local(workers=workers, precision=precision, registry=registry)
    if model is None:
        refuse_old_form(operation, sources or [])
    valid = operation.validated(given)

    from jobs.arranged import prepared
    from jobs.operated import Asked

    given_files = sources or ([latents] if latents else [])
    places = {name: place for name, place in beside.items() if place is not None}
    asked = Asked(
        given_files, output, columns, workers, overwrite, shard_rows, places, format, save_quality
    )
    work = prepared(valid, asked)
    if server is not None:
        from jobs.remote.verbs import ask  # which imports an HTTP client

        ask(server, work, valid, model)
        return
    from jobs.model import Model

    wanted = Model.named(model or bundled_model(valid, sources or []), registry, precision)
    recipe = wanted.recipe()
    if operation is Tiling:
        valid = made_for(recipe).validated(given)
    ability = recipe.allow(valid, wanted.abilities(recipe))
    for caution in valid.cautions(ability):
        say(caution)
    work.run(wanted, valid, ability)


def refuse_local(workers: int | None, precision: str, registry: str) -> None:
    """InputError for what concerns this machine, where a server does the work."""
    from genimg.errors import InputError

    usual = ("registry", os.environ.get("GENIMG_REGISTRY"))  # which was not given for this verb
    for option, value, left_out in (
        ("--workers", workers, workers is None),
        ("--precision", precision, precision == "auto"),
        ("--registry", registry, registry in usual),
    ):
        if not left_out:
            raise InputError(f"{option} {value}: with --server, that is the server's; leave it out")


def refuse_old_form(operation: type[Operation], sources: Sequence[str]) -> None:
    """InputError for what was written `genimg restore MODEL FILE` once."""
    from genimg.errors import InputError

    first, *others = sources or [""]
    if others and not (Path(first).exists() or first.startswith("s3://")):
        line = f"genimg {operation.name} {' '.join(others)} -m {first}"
        raise InputError(f"no model is given: name it with -m, as in {line}")


def bundled_model(operation: Operation, sources: Sequence[str]) -> str:
    """The model that comes with genimg for an operation, or InputError."""
    from genimg.errors import InputError

    scale = operation.option("scale")
    if operation.name == "denoise" and len(sources) == 1 and is_gray(sources[0]):
        say("model: denoise-gray, as the image is gray; -m names another")
        return "denoise-gray"
    if name := bundled.model_for(operation.name, scale):
        say(f"model: {name}; -m names another")
        return name
    line = f"genimg {operation.name} {' '.join(sources or ['image.png'])} -m MODEL"
    by = "" if scale is None else f" that enlarges by {scale} (but by 2 and 4)"
    raise InputError(
        f"no model is given, and none{by} comes with genimg: name it with -m, as in {line}"
        " (`genimg recipes` tells what can be trained)"
    )


def is_gray(source: str) -> bool:
    """Whether it is one image on this machine, of one channel and perhaps alpha."""
    from genimg import images

    try:
        with Path(source).open("rb") as file:
            image = images.opened(file, sys.maxsize)
    except (OSError, images.BrokenImage):
        return False  # what is wrong with it is told where it is read
    return image.getbands() in (("L",), ("L", "A"), ("1",), ("I",)) or image.mode == "I;16"
