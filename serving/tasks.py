"""What an engine does for each kind of request: check, decode, compute a batch, encode."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import numpy as np

from genimg import images
from genimg.engine import Engine
from genimg.errors import InputError
from serving.errors import ApiError, bad_value
from serving.formats import quality, unsupported, written_as
from serving.requests import Request, Restore, Sample
from serving.settings import Limits


class Task(Protocol):
    """The steps of one kind of request; only `compute` runs on the engine's thread.

    `pixels` is what `decode` made of the request's image, None where it has none.
    """

    decodes: bool  # whether `rows` and `decode` read an image, which takes a while

    def check(self, request: Any, engine: Engine, limits: Limits) -> None:
        """ApiError for what this engine cannot honour."""
        ...

    def rows(self, request: Any, limits: Limits) -> int:
        """How much of a batch and of the queue it takes."""
        ...

    def key(self, request: Any) -> Hashable:
        """Requests of equal keys may share a batch."""
        ...

    def decode(self, request: Any, limits: Limits) -> np.ndarray | None: ...

    def compute(
        self, engine: Engine, requests: Sequence[Any], pixels: Sequence[Any]
    ) -> list[np.ndarray]:
        """Images [N, H, W, C] for each request of a batch."""
        ...

    def encode(self, request: Any, made: np.ndarray) -> tuple[images.Format, tuple[bytes, ...]]: ...


class Sampling:
    decodes = False

    def check(self, request: Sample, engine: Engine, limits: Limits) -> None:
        data, kind = engine.recipe.data, engine.recipe.recipe
        own = f"{data.size}x{data.size}"
        if request.size not in (None, own):
            raise bad_value("size", request.size, f"this model makes {own}; use that or 'auto'")
        if request.label is not None:
            raise bad_value("label", request.label, f"this {kind} takes no label; leave it out")
        if request.prompt:
            raise bad_value("prompt", request.prompt, f"this {kind} takes no prompt; give ''")

    def rows(self, request: Sample, limits: Limits) -> int:
        return len(request.seeds)

    def key(self, request: Sample) -> Hashable:
        return Sample

    def decode(self, request: Sample, limits: Limits) -> None:
        return None

    def compute(
        self, engine: Engine, requests: Sequence[Sample], pixels: Sequence[None]
    ) -> list[np.ndarray]:
        counts = [len(request.seeds) for request in requests]
        seeds = np.concatenate([np.array(request.seeds, np.int64) for request in requests])
        truncation = np.repeat([request.truncation for request in requests], counts)
        made = engine.sample_seeds(seeds, truncation)
        return np.split(made, np.cumsum(counts)[:-1])

    def encode(self, request: Sample, made: np.ndarray) -> tuple[images.Format, tuple[bytes, ...]]:
        if request.grid:
            columns = math.ceil(math.sqrt(len(made)))  # as `genimg sample` draws it
            made = images.grid(images.to_tensor(made), columns)[None]
        format = request.output_format
        fine = quality(format, request.compression)
        return format, tuple(images.encode(image, format, fine) for image in made)


class Restoring:
    decodes = True

    def check(self, request: Restore, engine: Engine, limits: Limits) -> None:
        if request.tile != "auto" and request.tile > limits.max_tile:
            raise bad_value("tile", request.tile, f"at most {limits.max_tile} pixels, or 'auto'")

    def rows(self, request: Restore, limits: Limits) -> int:
        """One for each megapixel begun: what waits is held in memory."""
        width, height = self._read(images.size, request.image, max_pixels=limits.max_pixels)
        if request.tile == 0 and max(width, height) > limits.max_tile:
            reason = f"only images of up to {limits.max_tile} pixels a side are restored at once"
            raise bad_value("tile", 0, f"{reason}; this one is {width}x{height}; use 'auto'")
        return 1 + int(width * height) // 1_000_000

    def key(self, request: Restore) -> Hashable:
        return object()  # images differ in size: together they would be no faster, only later

    def decode(self, request: Restore, limits: Limits) -> np.ndarray:
        pixels: np.ndarray = self._read(
            images.decode,
            request.image,
            max_pixels=limits.max_pixels,
            keep_alpha=True,
            animated=False,
        )
        self.encode(request, pixels[None, :1, :1])  # a format that cannot hold it is refused now
        return pixels

    def compute(
        self, engine: Engine, requests: Sequence[Restore], pixels: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        return [
            engine.restore(
                image, sigma=request.sigma, strength=request.strength, tile=request.tile
            )[None]
            for request, image in zip(requests, pixels, strict=True)
        ]

    def encode(self, request: Restore, made: np.ndarray) -> tuple[images.Format, tuple[bytes, ...]]:
        format = request.output_format or written_as(request.image) or "png"
        if request.output_format is None and format == "bmp" and made.shape[-1] in (2, 4):
            format = "png"  # BMP can come with alpha, but is not written with it
        fine = quality(format, request.compression)
        profile = images.profile(request.image)
        try:
            return format, tuple(images.encode(image, format, fine, profile) for image in made)
        except InputError as error:
            raise bad_value("output_format", format, str(error)) from None

    def _read(self, function: Any, data: bytes, **options: Any) -> Any:
        """function(data), with what it finds wrong as the API's errors."""
        try:
            return function(data, **options)
        except images.TooLarge as error:
            raise ApiError(400, "image_too_large", f"image: {error}", "image") from None
        except images.Unsupported:
            if written_as(data) is None:
                raise unsupported() from None
            message = "image: damaged or truncated (its header cannot be read)"
            raise ApiError(400, "invalid_image", message, "image") from None
        except images.BrokenImage as error:
            raise ApiError(400, "invalid_image", f"image: {error}", "image") from None


def task_of(request: Request) -> Task:
    return Sampling() if isinstance(request, Sample) else Restoring()
