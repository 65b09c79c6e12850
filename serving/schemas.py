"""The parameters of each route: what may be given, and what is said where it may not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo

from genimg.errors import nearest
from genimg.operations import Kind, Operation
from genimg.section import Section, problem
from serving.errors import ApiError, bad_value, shown
from serving.settings import Limits
from serving.uploads import Received

AnyFormat = Literal["png", "jpeg", "webp", "bmp", "tiff"]


class Parameters(Section):
    """Parameters of a request. `parsed` reads them; none of them is ever ignored."""

    limited: ClassVar[Mapping[str, str]] = {}  # the limits (serving.settings) of some, by name


class Paged(Parameters):
    """Parameters of a list."""

    limit: int = Field(20, ge=1, le=100)
    """how many"""
    after: str | None = Field(None, max_length=100)
    """an id: those that come behind it"""


class Asked(Parameters):
    """What every route takes."""

    model: str | None = None
    """id of a model, or its NAME alone; by default the first that can"""
    later: bool = Field(False, alias="async")
    """answer 202 with a job at once, which /v1/jobs tells of"""
    webhook: str | None = None
    """URL that is told when the job has ended, on a host that this server allows"""


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


class Gridded(New):
    response_format: Literal["image", "b64_json", "frames"] = "image"  # type: ignore[assignment]
    """an image of all, JSON with it in base64, or JSON with each of them in base64"""


class Moving(Asked):
    output_format: Literal["webp", "gif", "png", "jpeg"] = "webp"
    """format of the answer: webp and gif move, the others show all images in one"""
    response_format: Literal["image", "b64_json", "frames"] = "image"
    """the image itself, JSON with it in base64, or JSON with each frame in base64"""


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
    Kind.GRID: Gridded,
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


Schema = TypeVar("Schema", bound=Parameters)


def parsed(
    schema: type[Schema], came: Received, limits: Limits, also_known: Collection[str] = ()
) -> Schema:
    """The parameters that came; None is as good as absent.

    also_known: keys that the route reads itself, to be named where an unknown one is near.
    Raises ApiError 400 naming the parameter, what was given and what to do instead; of an unknown
    name first, also where it came with nothing, and of a file that is missing second.
    """
    fields = _fields(schema)
    for key in came.names:
        if key not in fields and key not in also_known:
            raise _unknown(key, came.values.get(key), fields, also_known)
    if came.missing:
        raise came.missing
    if came.query:
        _checked(schema, came.query, (), limits)
    return _checked(schema, came.values, came.values.keys() - came.texts, limits)


def _unknown(
    key: str, value: object, fields: Collection[str], also_known: Collection[str]
) -> ApiError:
    head = key.partition("[")[0]
    if head in fields:  # as forms have the parts of an object
        message = f"{key}={shown(value)}: {head} has no parts here; leave it out"
        return ApiError(400, "invalid_value", message, head)
    message = f"unknown parameter {key!r}; {nearest(key, [*fields, *also_known])}"
    return ApiError(400, "unknown_parameter", message, key)


def _checked(
    schema: type[Schema],
    values: Mapping[str, Any],
    typed: Collection[str],
    limits: Limits,
) -> Schema:
    """typed: which values are JSON's; the others are texts, and converted."""
    given = {key: value for key, value in values.items() if value is not None}
    fields = _fields(schema)
    for key, value in given.items():
        if key in typed:
            _refuse_another_type(key, value, fields[key].annotation)
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


def _fields(schema: type[Parameters]) -> dict[str, FieldInfo]:
    """Fields by what clients call them."""
    return {field.alias or name: field for name, field in schema.model_fields.items()}


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
