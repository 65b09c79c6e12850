"""The parameters of each route: what may be given, and what is said where it may not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

from pydantic import Field, ValidationError, field_validator

from genimg.errors import nearest
from genimg.section import Section, problem
from serving.errors import ApiError, bad_value
from serving.settings import Limits
from serving.uploads import Received

LAST_SEED = 2**53 - 1  # the last integer that every reader of JSON holds exactly
AnyFormat = Literal["png", "jpeg", "webp", "bmp", "tiff"]


class Parameters(Section):
    """Parameters of a request. `parsed` reads them; none of them is ever ignored."""

    limited: ClassVar[Mapping[str, str]] = {}  # the limits (serving.settings) of some, by name


def _only(allowed: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """For JSON Schema: what a field allows, in place of what its type does."""

    def change(schema: dict[str, Any]) -> None:
        schema.pop("anyOf", None)
        schema |= allowed

    return change


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
    """quality of jpeg and webp, else 95 and lossless; the other formats are lossless always"""


class Generations(Drawn):
    """OpenAI's parameters with our own `seed`, `truncation` and `label`."""

    prompt: str = ""
    """empty, for models that take none"""
    n: int = Field(1, ge=1, le=10)
    """how many images"""
    size: str = Field("auto", pattern=r"^(auto|[0-9]{1,5}x[0-9]{1,5})$")
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
    style: str | None = Field(None, json_schema_extra=_only({"type": "null"}))
    """not supported: leave it out"""
    stream: bool = Field(False, json_schema_extra={"const": False})
    """not supported yet: leave it out"""
    partial_images: int = Field(0, json_schema_extra={"const": 0})
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

    limited: ClassVar[Mapping[str, str]] = {"n": "max_images"}

    output_format: AnyFormat = "png"
    """format of the answer"""
    response_format: Literal["image", "b64_json"] = "image"
    """the image itself (several as a grid), or JSON with each image in base64"""


class Denoising(Parameters):
    """Parameters of /v1/images/denoise."""

    limited: ClassVar[Mapping[str, str]] = {"tile": "max_tile"}

    model: str | None = None
    """id of a model, or its NAME alone; by default the first that can"""
    sigma: float | None = Field(None, ge=0, le=255)
    """noise level on the scale of 0 to 255; without it, estimated from the image"""
    strength: float = Field(1.0, ge=0, le=1)
    """0 gives the image back, 1 the restored one"""
    tile: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """side of the tiles in which a large image is restored, pixels; 0: all at once"""
    output_format: AnyFormat | None = None
    """format of the answer; without it that of the image (GIF: png)"""
    output_compression: int | None = Field(None, ge=0, le=100)
    """quality of jpeg and webp, else 95 and lossless; the other formats are lossless always"""
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
    schema: type[Schema], came: Received, limits: Limits, also_known: Collection[str] = ()
) -> Schema:
    """The parameters that came; None is as good as absent.

    also_known: keys that the route reads itself, to be named where an unknown one is near.
    Raises ApiError 400 naming the parameter, what was given and what to do instead.
    """
    known = [*schema.model_fields, *also_known]
    if came.query:
        _checked(schema, came.query, (), limits, known)
    return _checked(schema, came.values, came.values.keys() - came.texts, limits, known)


def _checked(
    schema: type[Schema],
    values: Mapping[str, Any],
    typed: Collection[str],
    limits: Limits,
    known: Collection[str],
) -> Schema:
    """typed: which values are JSON's; the others are texts, and converted."""
    given = {key: value for key, value in values.items() if value is not None}
    for key, value in given.items():
        field = schema.model_fields.get(key)
        if field is None:
            message = f"unknown parameter {key!r}; {nearest(key, known)}"
            raise ApiError(400, "unknown_parameter", message, key)
        if key in typed:
            _refuse_another_type(key, value, field.annotation)
    try:
        wanted = schema.model_validate(given)
    except ValidationError as error:
        found = problem(error, schema)
        key = found.key.partition(".")[0]
        raise bad_value(key, given[key], found.reason) from None
    for key, limit in schema.limited.items():
        value, most = getattr(wanted, key), getattr(limits, limit)
        if isinstance(value, int) and value > most:
            raise bad_value(key, value, f"at most {most}")
    return wanted


def _refuse_another_type(key: str, value: object, annotation: object) -> None:
    """ApiError where a value of JSON is of a type that pydantic would convert.

    Queries and forms have nothing but texts; JSON has types, and /openapi.json names them.
    """
    parts = _parts(annotation)
    if isinstance(value, bool):
        if bool not in parts:
            raise bad_value(key, value, "must not be true or false")
    elif isinstance(value, int | float) and parts <= {bool, type(None)}:
        raise bad_value(key, value, "must be true or false")
    elif isinstance(value, str) and parts & {bool, int, float} and value not in parts:
        raise bad_value(key, value, "must not be a text")


def _parts(annotation: object) -> set[object]:
    """The types and the words that an annotation allows."""
    if not get_args(annotation):
        return {annotation}
    if get_origin(annotation) is Literal:
        return set(get_args(annotation))
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    return set().union(*map(_parts, get_args(annotation)))
