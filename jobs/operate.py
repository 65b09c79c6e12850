"""The verbs of operations, made of their declarations: `genimg sample`, `genimg denoise`, ..."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genimg.operations import OPERATIONS, Kind, Operation, Tiling, restoring
from genimg.section import allowed, problem
from jobs.console import PrecisionOption, RegistryOption, refuse_blocked

if TYPE_CHECKING:
    from genimg.engine import Engine

MODEL = "NAME, NAME@ALIAS, NAME@7, or a checkpoint folder."
_OUTPUTS = {  # what an operation gives -> (help of -o, default)
    Kind.PICTURE: ("An image, or a folder for a folder's images.", None),
    Kind.PICTURES: ("An image for a grid, or a folder for one each.", "grid.png"),
    Kind.FRAMES: ("A .webp or .gif that moves, or a folder for one each.", "frames.webp"),
    Kind.LATENTS: ("A .npy file; without it, JSON is printed.", None),
    Kind.VALUES: ("A .json file; without it, JSON is printed.", None),
}


def verb(operation: type[Operation]) -> Callable[..., None]:
    """The command of an operation."""

    def command(**given: Any) -> None:
        options = {name: given.pop(name) for name in operation.model_fields}
        perform(lambda engine: operation, operation, options, **given)

    described(command, operation, operation.model_fields)
    return command


def restore() -> Callable[..., None]:
    """The command that asks a model for what it was made for."""

    def command(**given: Any) -> None:
        options = {name: given.pop(name) for name in Tiling.model_fields}
        perform(made_for, Tiling, options, **given)

    described(command, Tiling, Tiling.model_fields)
    return command


def made_for(engine: Engine) -> type[Operation]:
    """The one restoring operation of a model, or InputError."""
    from genimg.errors import InputError

    able = restoring(engine.abilities)
    if len(able) != 1:
        kind = engine.recipe.recipe
        if able:
            every = " and ".join(able)
            raise InputError(f"a {kind} model can {every}; say which: genimg {able[0]}")
        raise InputError(f"a {kind} model cannot restore; it can: {', '.join(engine.abilities)}")
    return OPERATIONS[able[0]]


def described(command: Callable[..., None], operation: type[Operation], fields: Any) -> None:
    """Give a command the signature, help and example that Typer reads."""
    takes_files = bool(operation.takes)
    name = operation.name
    if takes_files:
        example = f"genimg {name} image.png{_example_output(operation)} -m MODEL"
    else:
        example = f"genimg {name} shapes@best{_example_output(operation)}"
    command.__name__ = name
    command.__doc__ = f"{operation.about()}\n\nExample: {example}\n"
    parameters: list[tuple[str, Any, Any]] = []
    if takes_files:
        word = (
            "Images, or folders of images."
            if Kind.PICTURE in operation.takes.values()
            else ("A .npy file of latents.")
        )
        parameters.append(("sources", Annotated[list[str], typer.Argument(help=word)], ...))
        option = typer.Option("--model", "-m", help=MODEL)
        parameters.append(("model", Annotated[str | None, option], None))
    else:
        parameters.append(("model", Annotated[str, typer.Argument(help=MODEL)], ...))
    text, default = _OUTPUTS[operation.gives]
    parameters.append(
        ("output", Annotated[str | None, typer.Option("-o", "--output", help=text)], default)
    )
    for key, field in fields.items():
        flags = (f"-{key}",) if len(key) == 1 else (f"--{key.replace('_', '-')}",)
        about = f"{field.description} ({allowed(field)})"
        shown = "" if field.default is None else f"  \\[default: {field.default}]"
        option = typer.Option(*flags, help=about + shown, show_default=False)
        parameters.append((key, Annotated[str | None, option], None))
    if operation.gives is Kind.PICTURES:
        columns = typer.Option("--columns", help="Columns of the grid.")
        parameters.append(("columns", Annotated[int | None, columns], None))
    parameters.append(("precision", PrecisionOption, "auto"))
    parameters.append(("registry", RegistryOption, "registry"))
    kinds = inspect.Parameter
    command.__signature__ = inspect.Signature([  # type: ignore[attr-defined]
        kinds(key, kinds.KEYWORD_ONLY, annotation=kind,
              default=kinds.empty if value is ... else value)
        for key, kind, value in parameters
    ])  # fmt: skip
    command.__annotations__ = {key: kind for key, kind, _ in parameters}


def _example_output(operation: type[Operation]) -> str:
    match operation.gives:
        case Kind.PICTURE:
            return " -o result.png"
        case Kind.PICTURES:
            return f"{' -n 64 --seed 0' if 'n' in operation.model_fields else ''} -o grid.png"
        case Kind.FRAMES:
            return " --seed 0 -o frames.webp"
        case _:
            return ""


def perform(
    choose: Callable[[Engine], type[Operation]],
    declared: type[Operation],
    options: dict[str, str | None],
    model: str | None,
    output: str | None,
    precision: str,
    registry: str,
    sources: list[str] | None = None,
    columns: int | None = None,
) -> None:
    """Do an operation; everything that a person may have got wrong is found before it begins."""
    from pydantic import ValidationError

    from genimg.errors import InputError
    from jobs.model import load_engine
    from jobs.operated import prepared

    name = declared.name
    if model is None:
        first, *others = sources or [""]
        files = " ".join(others) or "image.png"
        raise InputError(
            f"no model is given: name it with -m, as in genimg {name} {files} -m {first}"
            if others
            else f"no model is given: name it with -m, as in genimg {name} {first} -m denoiser"
        )
    given = {key: value for key, value in options.items() if value is not None}
    try:
        declared.model_validate(given) if declared is not Tiling else None
    except ValidationError as error:
        raise InputError(str(problem(error, declared))) from None
    job = prepared(declared, sources, None if output is None else Path(output), columns)
    if job.folder is not None:
        refuse_blocked(job.folder)
    engine = load_engine(model, registry, precision)
    operation = choose(engine).validated(given)
    engine.need(operation.name)
    job.run(engine, operation)
