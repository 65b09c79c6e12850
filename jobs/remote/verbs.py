"""What a verb of an operation does with --server: the same is read and written as without."""

from __future__ import annotations

import io
from pathlib import Path
from typing import assert_never

import httpx
import numpy as np
import typer
from PIL import Image

from genimg import images, moving
from genimg.operations import Kind, Operation
from genimg.operations.drawing import Seeded
from genimg.results import Frames, Pictures
from jobs.console import say
from jobs.offline.inputs import latents_in
from jobs.operated import MOVING, Drawing, Many, Single, has_latents, tell_seed
from jobs.remote.by_server import (
    AT_ONCE,
    ByServer,
    as_file,
    drawn_by,
    in_flight,
    pictures_of,
    tell_model,
)
from jobs.remote.server import MODELS, Server


def ask(url: str, work: Drawing | Single | Many, operation: Operation, model: str | None) -> None:
    """Have a server do an operation on what was arranged. Raises InputError."""
    with Server(url) as server:
        match work:
            case Single():
                restored(work, server, operation, model)
            case Drawing():
                drawn(work, server, operation, model)
            case Many():
                address = f"{server.url}{MODELS}/{model}" if model else f"{server.url}{MODELS}"
                work.do(operation, address, lambda job: ByServer(job, server, model))
            case _:
                assert_never(work)


def restored(work: Single, server: Server, operation: Operation, model: str | None) -> None:
    """An image that becomes another."""
    answer = server.ask(
        operation,
        {name: read(path) for name, path in {"image": work.source, **work.beside}.items()},
        model=model,
        response_format="image",
        output_format=images.format_of(work.output),
        output_compression=work.quality,
    )
    tell_model(server, model, answer)
    work.output.parent.mkdir(parents=True, exist_ok=True)
    images.write(work.output, answer.content)
    typer.echo(work.output)


def drawn(work: Drawing, server: Server, operation: Operation, model: str | None) -> None:
    """A grid, an animation, a few images."""
    files: dict[str, bytes] = {}
    latents: np.ndarray | None = None
    if work.source is not None:
        if has_latents(operation, work.source):
            latents = latents_in(str(work.source))
            files["latents"] = as_file(latents)
        elif work.source.is_dir():
            files["image"] = as_pages(moving.load(work.source))
        else:
            files["image"] = read(work.source)
    if operation.gives is Kind.PICTURES:
        pictures(work, server, operation, model, files, latents)
        return
    suffix = work.output.suffix.lower()
    each = not suffix or work.columns is not None
    format = MOVING.get(suffix, "jpeg" if suffix in (".jpg", ".jpeg") else "png")
    answer = server.ask(
        operation,
        files,
        model=model,
        response_format="frames" if each else "image",
        output_format="png" if each else format,
    )
    tell_model(server, model, answer)
    tell_seed(operation, seeds_of(answer))
    if each:
        work.write(Frames(*gathered([answer])))
        return
    data = answer.content
    if format == "png" and suffix != ".png":  # the route writes no such
        data = images.encode(images.decode(data), images.format_of(work.output))
    work.output.parent.mkdir(parents=True, exist_ok=True)
    images.write(work.output, data)
    typer.echo(work.output)


def pictures(
    work: Drawing,
    server: Server,
    operation: Operation,
    model: str | None,
    files: dict[str, bytes],
    latents: np.ndarray | None,
) -> None:
    """Images that do not follow one another, of which a request draws a few."""
    count = len(latents) if latents is not None else 1
    told = operation
    if isinstance(operation, Seeded):
        count = operation.drawn
        if count > AT_ONCE:  # the seeds of all are those behind the first
            operation = operation.model_copy(update={"seed": operation.first_seed()})
    spans = [(start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE)]
    answers = list(
        in_flight(
            server,
            lambda span: drawn_by(server, operation, model, span, files, latents),
            spans,
        )
    )
    tell_model(server, model, answers[0])
    for note in answers[0].json().get("notes", ()):
        say(note)
    tell_seed(told, seeds_of(answers[0]))
    work.write(Pictures(*gathered(answers)))


def gathered(answers: list[httpx.Response]) -> tuple[np.ndarray, tuple[int, ...]]:
    """(images [N, H, W, C], their seeds, if each has one) of answers in JSON."""
    made = [pair for answer in answers for pair in pictures_of(answer)]
    seeds = tuple(entry["seed"] for _, entry in made if "seed" in entry)
    return np.stack([pixels for pixels, _ in made]), seeds


def seeds_of(answer: httpx.Response) -> tuple[int, ...]:
    seed = answer.headers.get("x-seed")
    return () if seed is None else (int(seed),)


def read(path: Path) -> bytes:
    with images.reading(path):
        return path.read_bytes()


def as_pages(frames: np.ndarray) -> bytes:
    """uint8 [N, H, W, 3] as a TIFF of as many pages: animations join frames that are equal."""
    first, *others = map(Image.fromarray, frames)
    out = io.BytesIO()
    first.save(out, "TIFF", compression="tiff_adobe_deflate", save_all=True, append_images=others)
    return out.getvalue()
