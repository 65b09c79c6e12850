"""A request on its way through an engine: checked, decoded, planned, computed, encoded."""

from __future__ import annotations

import io
import math
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from genimg import images, moving
from genimg.contracts import Plan
from genimg.engine import Engine
from genimg.errors import InputError
from genimg.operations import DRAWN, AnySize, Kind, Operation
from genimg.pixels import on_white, painted
from genimg.results import Frames, Grid, Latents, Pictures, Values
from genimg.tiled import SYMMETRIES
from serving.errors import ApiError, bad_value
from serving.formats import quality, unsupported, written_as
from serving.requests import Request, Timings, given_or_made
from serving.settings import Limits


@dataclass
class Work:
    """A plan on the engine that it will end on, and what became of it when."""

    request: Request
    engine: Engine
    plan: Plan
    most: int  # rows in a pass
    submitted: float  # time.perf_counter()
    pixels: int  # given or made, whichever are more
    begun: float | None = None
    ended: float = 0.0
    watch: Callable[[int], None] | None = None  # told after a pass up to which row all is computed

    @property
    def count(self) -> int:
        return self.plan.count

    def lap(self, row: int) -> tuple[Hashable, int]:
        key, stop = self.plan.lap(row)
        return (self.engine, self.request.operation.name, key), stop


@dataclass(frozen=True)
class Made:
    """What an answer is made of."""

    files: tuple[bytes, ...]
    format: images.Format | moving.Format
    size: str
    seeds: tuple[int, ...]
    labels: tuple[str, ...]
    values: Any
    psnr: tuple[float, ...]
    plain_psnr: tuple[float, ...]
    timings: Timings
    pixels: int


def compute(parts: list[tuple[Work, int, int]]) -> None:
    """A pass; all parts have the same engine, and are of one key."""
    now = time.perf_counter()
    for work, _, _ in parts:
        work.begun = work.begun or now
    first = parts[0][0]
    slices = [(work.plan, start, stop) for work, start, stop in parts]
    first.engine.compute(first.request.operation.name, slices)
    now = time.perf_counter()
    for work, _, stop in parts:
        work.ended = now
        if work.watch and stop < work.count:
            work.watch(stop)


def check(request: Request, engine: Engine, limits: Limits) -> None:
    """ApiError for what this engine or this server does not do."""
    operation, size = request.operation, request.output.size
    data = engine.recipe.data
    own = f"{data.size}x{data.size}"
    if size not in (None, own):
        raise bad_value("size", size, f"this model makes {own}; use that or 'auto'")
    if operation.drawn > limits.max_images:
        key = "n" if operation.option("n") else "frames"
        key = "seeds" if operation.gives is Kind.GRID and operation.option("seeds") else key
        raise bad_value(key, getattr(operation, key), f"at most {limits.max_images} images in all")
    tile = operation.option("tile", "auto")
    if tile != "auto" and tile > limits.max_tile:
        raise bad_value("tile", tile, f"at most {limits.max_tile} pixels, or 'auto'")


def weight(request: Request, limits: Limits) -> int:
    """How much of the queue it takes: images that are drawn, or megapixels begun.

    Reads the headers of its files, which takes a while.
    """
    operation = request.operation
    if not request.files:
        return operation.drawn
    total = 0
    for name, data in request.files.items():
        if operation.takes.get(name) is Kind.LATENTS:
            total += len(latents_in(data))
            if total > limits.max_images:
                raise bad_value("latents", f"{total} rows", f"at most {limits.max_images}")
            continue
        width, height = _read(images.size, data, name, max_pixels=limits.max_pixels)
        if operation.option("tile") == 0 and max(width, height) > limits.max_tile:
            reason = f"only images of up to {limits.max_tile} pixels a side are restored at once"
            raise bad_value("tile", 0, f"{reason}; this one is {width}x{height}; use 'auto'")
        if operation.option("ensemble"):
            width *= SYMMETRIES
        total += 1 + int(width * height) // 1_000_000
    return max(total, operation.drawn)


def planned(request: Request, engine: Engine, limits: Limits, most: int) -> Work:
    """The work of a request; decodes its files.

    most: rows in a pass, however small they are.
    """
    operation = request.operation
    inputs = {
        name: _decoded(operation.takes.get(name, Kind.PICTURE), data, name, limits)
        for name, data in request.files.items()
    }
    if "markup" in inputs:
        inputs["mask"] = painted(inputs.pop("markup"))
    if isinstance(operation, AnySize):
        # a format that cannot hold what it gives is refused now
        pixel = operation.pixel(engine.abilities[operation.name], inputs)
        if request.output.background == "transparent" and pixel.shape[2] not in (2, 4):
            reason = "the image that comes of this has no transparency; leave it out"
            raise bad_value("background", "transparent", reason)
        format, _ = written(request, pixel[None])
        refuse_large(inputs["image"].shape, engine.abilities[operation.name].scale, format, limits)
    try:
        plan = engine.plan(operation, **inputs)
    except InputError as error:
        if "markup" in request.files and str(error).startswith("mask"):
            message = f"markup{str(error).removeprefix('mask')}"
            raise ApiError(400, "invalid_value", message, "markup") from None
        raise
    if operation.gives is Kind.GRID and plan.count > limits.max_images:  # of each latents with each
        reason = f"{plan.count} images would come of it, and {limits.max_images} are the most"
        raise bad_value("latents", f"{len(inputs['latents'])} rows", reason)
    if operation.gives in DRAWN:
        refuse_many(operation, max(plan.count, operation.drawn), engine.recipe.data.size, limits)
    most = min(most, engine.most(plan, waited=True))
    return Work(
        request, engine, plan, most, time.perf_counter(), pixels(operation, inputs, plan, engine)
    )


def pixels(operation: Operation, inputs: dict[str, Any], plan: Plan, engine: Engine) -> int:
    """Pixels that are given or made, whichever are more."""
    given = sum(
        math.prod(image.shape[:-1])
        for name, made in inputs.items()
        if operation.takes[name] is not Kind.LATENTS
        for image in (made if isinstance(made, list) else [made])  # frames
    )
    drawn, side = max(plan.count, operation.drawn), engine.recipe.data.size
    return given_or_made(operation, given, drawn, side, engine.abilities[operation.name].scale)


def refuse_large(shape: tuple[int, ...], scale: int, format: images.Format, limits: Limits) -> None:
    """ApiError or InputError for an image [H, W, C] that becomes too large to be answered with."""
    height, width = (scale * side for side in shape[:2])
    if height * width > limits.max_pixels:
        reason = f"{width}x{height} would come of it, and {limits.max_pixels:,} pixels are the most"
        raise ApiError(400, "image_too_large", f"image: {reason}", "image")
    images.refuse_sides(format, width, height)


def refuse_many(operation: Operation, count: int, side: int, limits: Limits) -> None:
    """ApiError for images of `side` pixels that together have more than are answered with."""
    if count * side * side > limits.max_pixels:
        key = next((key for key in ("n", "frames") if operation.option(key)), "latents")
        reason = f"{count} images of {side}x{side} would come of it, and {limits.max_pixels:,}"
        raise ApiError(400, "image_too_large", f"{key}: {reason} pixels are the most", key)


def finish(work: Work) -> Made:
    """With the files that its images become."""
    began = time.perf_counter()
    made = work.plan.result()
    files: tuple[bytes, ...] = ()
    format: images.Format | moving.Format = "png"
    size, values = "", None
    seeds: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    psnr: tuple[float, ...] = ()
    plain_psnr: tuple[float, ...] = ()
    match made:
        case Frames():
            output = work.request.output
            wanted = output.format or "webp"
            if output.each:
                format, files = written(work.request, made.images)
            elif wanted == "webp" or wanted == "gif":
                shown = made.images[-(output.frames or 0) :]
                frame_ms = output.frame_ms or moving.FRAME_MS
                format, files = wanted, (moving.encode(shown, wanted, frame_ms),)
            else:
                format, files = written(work.request, made.sheet()[None])
            height, width = made.images.shape[1:3]
            size, seeds = f"{width}x{height}", made.seeds
        case Pictures():
            output = work.request.output
            whole = (isinstance(made, Grid) or output.grid) and not output.each
            apart = len(made.images) == 1 or not whole
            format, files = written(work.request, made.images if apart else made.sheet()[None])
            height, width = made.images.shape[1:3]
            size, seeds, labels = f"{width}x{height}", made.seeds, made.labels
        case Latents():
            values, psnr, plain_psnr = made.array.tolist(), made.psnr, made.plain_psnr
        case Values():
            values = made.values
            if work.request.output.shown and made.picture is not None:
                picture = made.picture()
                format, files = written(work.request, picture[None])
                size = f"{picture.shape[1]}x{picture.shape[0]}"
    assert work.begun is not None, "what is finished was begun"
    timings = Timings(
        queue=1000 * (work.begun - work.submitted),
        compute=1000 * (work.ended - work.begun),
        encode=1000 * (time.perf_counter() - began),
    )
    return Made(files, format, size, seeds, labels, values, psnr, plain_psnr, timings, work.pixels)


def written(request: Request, made: Any) -> tuple[images.Format, tuple[bytes, ...]]:
    """Images [N, H, W, C] as files of the format that was asked for, or that of the input."""
    output = request.output
    takes, files = request.operation.takes, request.files
    data = next((files[name] for name in files if takes.get(name) is Kind.PICTURE), b"")
    if output.background == "opaque" and made.shape[-1] in (2, 4):
        made = np.stack([on_white(image) for image in made])
    assert output.format != "gif", "which single images are not written in"
    format = output.format or written_as(data) or "png"
    if request.operation.exact():
        lossy = format == "jpeg" or (format == "webp" and output.compression is not None)
        if lossy and output.format is not None:
            raise bad_value("output_format", format, "would change classes; use png")
        format = "png" if lossy else format
    if output.format is None and format == "bmp" and made.shape[-1] in (2, 4):
        format = "png"  # BMP can come with alpha, but is not written with it
    fine, profile = quality(format, output.compression), images.profile(data) if data else None
    try:
        return format, tuple(images.encode(image, format, fine, profile) for image in made)
    except InputError as error:
        raise bad_value("output_format", format, str(error)) from None


# numpy has Python's own parser read headers, which fails now and then where threads use it at once
# (SystemError: AST constructor recursion depth mismatch; Python 3.11)
_PARSER = threading.Lock()


def latents_in(data: bytes) -> np.ndarray:
    """The numbers [N, D] of a .npy file. Raises ApiError.

    Its header is not believed before there are as many bytes behind it.
    """
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0
        header = header if version == (1, 0) else np.lib.format.read_array_header_2_0
        with _PARSER:
            shape, by_column, kind = header(file)
        values = np.frombuffer(data, kind, offset=file.tell())
        if kind.kind in "fiu" and len(shape) == 2 and values.size == math.prod(shape) > 0:
            array = values.reshape(shape, order="F" if by_column else "C")
            return np.array(array, np.float32, order="C")
    except Exception:  # on damaged headers numpy's parser raises almost anything
        pass
    message = "latents: no .npy file of rows of numbers"
    raise ApiError(400, "invalid_value", message, "latents") from None


def _decoded(kind: Kind, data: bytes, name: str, limits: Limits) -> Any:
    most = limits.max_pixels
    if kind is Kind.LATENTS:
        return latents_in(data)
    if kind is Kind.FRAMES:
        return _read(moving.decode, data, name, max_pixels=most)
    return _read(images.decode, data, name, max_pixels=most, keep_alpha=True, animated=False)


def _read(function: Any, data: bytes, name: str, **options: Any) -> Any:
    """function(data), with what it finds wrong as the API's errors; `name` is what it came as."""
    try:
        return function(data, **options)
    except images.TooLarge as error:
        raise ApiError(400, "image_too_large", f"{name}: {error}", name) from None
    except images.Unsupported:
        if written_as(data) is None:
            raise unsupported(name) from None
        message = f"{name}: damaged or truncated (its header cannot be read)"
        raise ApiError(400, "invalid_image", message, name) from None
    except images.BrokenImage as error:
        raise ApiError(400, "invalid_image", f"{name}: {error}", name) from None
