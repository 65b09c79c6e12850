"""The parameters of each route: what may be given, and what is said where it may not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, field_validator

from genimg.errors import nearest
from genimg.recipe import Section
from serving.errors import ApiError, bad_value

LAST_SEED = 2**63 - 1  # seeds are int64, and the one after the last image's is one too
AnyFormat = Literal["png", "jpeg", "webp", "bmp", "tiff"]


class Parameters(Section):
    """Parameters of a request. `parsed` reads them; none of them is ever ignored."""


class Drawn(Parameters):
    """What the routes that make images have in common."""

    model: str | None = None
    """id of a model, or its NAME alone; by default the first that can"""
    n: int = Field(1, ge=1)
    """how many images"""
    seed: int = Field(-1, ge=-1, le=LAST_SEED)
    """image i is that of seed + i; -1 or nothing: drawn at random, and told"""
    truncation: float = Field(1.0, ge=0, le=10)
    """factor on the latents; below 1 trades variety for typicality"""
    label: str | None = None
    """the class to draw, for models that have classes"""
    output_compression: int | None = Field(None, ge=0, le=100)
    """quality of jpeg and webp; without it jpeg has 95 and webp is lossless"""


class Generations(Drawn):
    """OpenAI's parameters with our own `seed`, `truncation` and `label`."""

    prompt: str = ""
    """empty, for models that take none"""
    n: int = Field(1, ge=1, le=10)
    """how many images"""
    size: str = "auto"
    """`auto`, or the size that the model makes, as in 64x64"""
    response_format: Literal["b64_json", "url"] = "b64_json"
    """base64, or a data URL"""
    output_format: Literal["png", "jpeg", "webp"] = "png"
    """format of the images"""
    background: Literal["auto", "opaque"] = "auto"
    """no model makes transparent images"""
    quality: Literal["auto", "standard"] = "auto"
    """there is one quality"""
    moderation: Literal["auto", "low"] = "auto"
    """nothing is moderated"""
    style: str | None = None
    """not supported: leave it out"""
    stream: bool = False
    """not supported yet: leave it out"""
    partial_images: int = 0
    """not supported yet: leave it out"""
    user: str | None = None
    """taken, and not used"""

    @field_validator("style")
    @classmethod
    def no_style(cls, style: str | None) -> None:
        if style is not None:
            raise ValueError("there are no styles; leave it out")

    @field_validator("stream", "partial_images")
    @classmethod
    def no_streaming(cls, value: bool | int) -> bool | int:
        if value:
            raise ValueError("streaming is not supported yet; leave it out")
        return value


class Samples(Drawn):
    """Parameters of /v1/images/sample."""

    output_format: AnyFormat = "png"
    """format of the answer"""
    response_format: Literal["image", "b64_json"] = "image"
    """the image itself (several as a grid), or JSON with each image in base64"""


class Denoising(Parameters):
    """Parameters of /v1/images/denoise."""

    model: str | None = None
    """id of a model, or its NAME alone; by default the first that can"""
    sigma: float | None = Field(None, ge=0, le=255)
    """noise level on the scale of 0 to 255; without it, estimated from the image"""
    strength: float = Field(1.0, ge=0, le=1)
    """0 gives the image back, 1 the restored one"""
    tile: int | Literal["auto"] = "auto"
    """side of the tiles in which a large image is restored, pixels; 0: all at once"""
    output_format: AnyFormat | None = None
    """format of the answer; without it that of the image (GIF: png)"""
    output_compression: int | None = Field(None, ge=0, le=100)
    """quality of jpeg and webp; without it jpeg has 95 and webp is lossless"""
    response_format: Literal["image", "b64_json"] = "image"
    """the image itself, or JSON with the image in base64"""

    @field_validator("tile", mode="before")
    @classmethod
    def auto_or_pixels(cls, tile: object) -> object:
        number = isinstance(tile, int) or (isinstance(tile, str) and tile.isdecimal())
        if tile == "auto" or (number and int(str(tile)) >= 0):
            return tile
        raise ValueError("give 'auto', 0 (off) or a number of pixels")


Schema = TypeVar("Schema", bound=Parameters)


def parsed(
    schema: type[Schema], values: Mapping[str, Any], also_known: Collection[str] = ()
) -> Schema:
    """The parameters in plain values, which may be strings; None is as good as absent.

    also_known: keys that the route reads itself, to be named where an unknown one is near.
    Raises ApiError 400 naming the parameter, what was given and what to do instead.
    """
    given = {key: value for key, value in values.items() if value is not None}
    for key, value in given.items():
        field = schema.model_fields.get(key)
        if field is None:
            message = (
                f"unknown parameter {key!r}; {nearest(key, [*schema.model_fields, *also_known])}"
            )
            raise ApiError(400, "unknown_parameter", message, key)
        if isinstance(value, bool) and field.annotation is not bool:  # pydantic would take 0 or 1
            raise bad_value(key, value, "must not be true or false")
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        key = str(first["loc"][0])
        raise bad_value(key, given[key], reason[0].lower() + reason[1:]) from None
