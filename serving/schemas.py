"""The parameters of each route: what may be given, and what is said where it may not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

from pydantic import Field, ValidationError, field_validator

from genimg.errors import nearest
from genimg.operations import Kind, Operation, Tiling
from genimg.operations.drawing import LONGEST, Label, Sample
from genimg.operations.exploring import Vary
from genimg.section import Section, problem
from serving.errors import ApiError, bad_value
from serving.settings import Limits
from serving.uploads import Received

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


class Asked(Parameters):
    """What every route takes."""

    model: str | None = None
    """id of a model, or its NAME alone; by default the first that can"""


class Written(Asked):
    """What routes take whose answer is images."""

    output_compression: int | None = Field(None, ge=0, le=100)
    """quality of jpeg and webp, else 95 and lossless; the other formats are lossless always"""
    response_format: Literal["image", "b64_json"] = "image"
    """the image itself (several as a grid), or JSON with each image in base64"""


class AsItCame(Written):
    output_format: AnyFormat | None = None
    """format of the answer; without it that of the image (GIF: png)"""


class New(Written):
    output_format: AnyFormat = "png"
    """format of the answer"""


class Moving(Asked):
    output_format: Literal["webp", "gif", "png", "jpeg"] = "webp"
    """format of the answer: webp and gif move, the others show all images in one"""
    response_format: Literal["image", "b64_json"] = "image"
    """the image itself, or JSON with it in base64"""


class Shown(AsItCame):
    response_format: Literal["json", "image", "b64_json"] = "json"  # type: ignore[assignment]
    """JSON, or the image with what is told drawn on it, as it is or in base64"""


class Numbers(Asked):
    response_format: Literal["json", "npy"] = "json"
    """JSON, or a .npy file"""


_ANSWERS: dict[Kind, type[Parameters]] = {
    Kind.PICTURE: AsItCame,
    Kind.PICTURES: New,
    Kind.FRAMES: Moving,
    Kind.GRID: New,
    Kind.VALUES: Asked,
    Kind.LATENTS: Numbers,
}
_LIMITED = {"n": "max_images", "frames": "max_images", "tile": "max_tile"}


@cache
def parameters_of(operation: type[Operation]) -> type[Parameters]:
    """The parameters of an operation's route: its options, and how it is answered."""
    fields = operation.model_fields
    about = {
        "__doc__": f"Parameters of /v1/images/{operation.name}.",
        "__module__": __name__,
        "limited": {name: limit for name, limit in _LIMITED.items() if name in fields},
        "__annotations__": {"limited": ClassVar[Mapping[str, str]]},
    }
    answer = Shown if operation.shows else _ANSWERS[operation.gives]
    return type(f"{operation.__name__}Parameters", (answer, operation), about)


def _field(section: type[Section], name: str) -> Any:
    """A field of another section: its words, default and limits."""
    return section.model_fields[name]


class OpenAI(Asked):
    """What every one of OpenAI's routes that draw takes."""

    n: int = Field(1, ge=1, le=10)
    """how many images"""
    size: str = Field("auto", pattern=r"^(auto|[0-9]{1,5}x[0-9]{1,5})$", examples=["64x64"])
    """`auto`, or the size that the model makes, as in 64x64"""
    response_format: Literal["b64_json", "url"] = "b64_json"
    """base64, or a data URL"""
    user: str | None = None
    """taken, and not used"""


class Prompted(OpenAI):
    """What those take that have a prompt."""

    output_compression: int | None = _field(Written, "output_compression")

    prompt: str = Field("", max_length=LONGEST)
    """empty, for models that take none"""
    output_format: Literal["png", "jpeg", "webp"] = "png"
    """format of the images"""
    background: Literal["auto", "opaque"] = "auto"
    """no model makes transparent images"""
    quality: Literal["auto", "standard"] = "auto"
    """there is one quality"""
    stream: bool = Field(False, json_schema_extra={"const": False})
    """not supported yet: leave it out"""
    partial_images: int = Field(0, json_schema_extra={"const": 0})
    """not supported yet: leave it out"""

    @field_validator("stream", "partial_images")
    @classmethod
    def no_streaming(cls, value: bool | int) -> bool | int:
        if value:
            raise ValueError("streaming is not supported yet; leave it out")
        return value


class Generations(Prompted):
    """OpenAI's parameters with our own: `seed`, `truncation`, `label`, `steps`, `guidance`
    and `direction`."""

    seed: int = _field(Sample, "seed")
    truncation: float = _field(Sample, "truncation")
    label: Label | None = _field(Sample, "label")
    steps: int | None = _field(Sample, "steps")
    guidance: float | None = _field(Sample, "guidance")
    direction: str | None = _field(Sample, "direction")

    prompt: str = Field("", max_length=LONGEST)
    """what to draw, or the class, as `label` takes it; empty, for models that take none"""

    moderation: Literal["auto", "low"] = "auto"
    """nothing is moderated"""
    style: str | None = Field(None, json_schema_extra=_only({"type": "null"}))
    """not supported: leave it out"""

    @field_validator("style")
    @classmethod
    def no_style(cls, style: str | None) -> None:
        if style is not None:
            raise ValueError("there are no styles; leave it out")


class Edits(Prompted, Tiling):
    """OpenAI's parameters with our own `strength`, `ensemble` and `tile`."""

    limited: ClassVar[Mapping[str, str]] = {"tile": "max_tile"}

    n: int = Field(1, ge=1, le=1)
    """one image: what models restore does not vary"""
    prompt: str = Field("", json_schema_extra=_only({"const": ""}))
    """empty: no model takes one here"""
    size: Literal["auto"] = "auto"
    """that of the image"""
    input_fidelity: Literal["high", "low"] = "high"
    """taken, and not used: what is not restored stays as it is"""

    @field_validator("prompt")
    @classmethod
    def no_prompt(cls, prompt: str) -> str:
        if prompt.strip():
            raise ValueError("models that restore take no prompt; leave it empty")
        return prompt


class Variations(OpenAI):
    """OpenAI's parameters with our own `seed` and `strength`."""

    seed: int = _field(Vary, "seed")
    strength: float = _field(Vary, "strength")


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
