"""What /openapi.json says of routes that read their bodies themselves."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from genimg.operations import Kind, Operation
from serving.formats import ARRAY, MEDIA_TYPES
from serving.schemas import Parameters
from serving.settings import Limits
from serving.uploads import LATENTS_KEYS, LISTS, MOST

if TYPE_CHECKING:
    from fastapi import FastAPI


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """Every error has this form."""

    error: ErrorDetail


_MEANINGS = {
    400: "A parameter or the image cannot be used; `param` names it.",
    401: "No key, or none that is known here, where keys are asked for.",
    404: "No such model, of which the message names those that there are; or no such job.",
    408: "The body has not come in time.",
    409: "The job has no result, or none yet; or its first request is still being accepted.",
    413: "The body is too large.",
    415: "The body is no image in a format that is read.",
    429: "The queue is full, or the key has had its share; Retry-After says when to come again.",
    503: "A model is being loaded, or a storage fails; Retry-After says when to come again.",
    504: "No answer in time.",
}


_HEADERS = {
    "X-Model-Id": "The reference that answered, as configured.",
    "X-Model-Version": "Its version.",
    "X-Precision": "float32 or bfloat16: in which its networks computed.",
    "X-Seed": "The seed of the first image, where images were drawn.",
    "X-PSNR": "Of what the latents decode to, dB, where they were sought.",
    "Server-Timing": "Milliseconds in the queue, of computing its batch, and of encoding.",
}
_LATENTS = {
    "type": "array", "description": "rows of as many numbers as the model has latents",
    "minItems": 1,
    "items": {"type": "array", "minItems": 1, "items": {"type": "number"}},
}  # fmt: skip
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` for these statuses."""
    return {
        status: {"model": ErrorBody, "description": _MEANINGS[status]}
        | ({"headers": _RETRY_AFTER} if status in (429, 503) else {})
        for status in statuses
    }


def refusals() -> dict[int | str, dict[str, Any]]:
    """How a request for images may fail."""
    return errors(400, 401, 404, 408, 413, 415, 429, 503, 504)


def accepted() -> dict[int | str, dict[str, Any]]:
    """An answer to what is to be a job."""
    content = {"application/json": {"schema": {"type": "object"}}}
    place = {"Location": {"description": "Of the job.", "schema": {"type": "string"}}}
    description = "A job, where `async=true` asked for one; see /v1/jobs."
    told = {"content": content, "description": description, "headers": place}
    return {202: told, **errors(409)}


def images() -> dict[int | str, dict[str, Any]]:
    """An answer that is an image, or JSON where that was asked for."""
    content: dict[str, Any] = {
        kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES.values()
    }
    content["application/json"] = {"schema": {"type": "object"}}
    description = "The image, or JSON with `data[].b64_json`."
    return {200: {"content": content, "description": description, "headers": _headers()}}


def given(operation: type[Operation]) -> dict[int | str, dict[str, Any]]:
    """The answer of an operation."""
    if operation.shows:
        told = images()
        told[200]["description"] = "JSON with `data`; or, where asked for, an image that shows it."
        return told
    if operation.gives not in (Kind.VALUES, Kind.LATENTS):
        return images()
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if operation.gives is Kind.LATENTS:
        content[ARRAY] = {"schema": {"type": "string", "format": "binary"}}
    return {200: {"content": content, "description": "`data`.", "headers": _headers()}}


def answer(streams: bool = False) -> dict[int | str, dict[str, Any]]:
    """An answer in OpenAI's JSON; or in its events, where it streams."""
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    content |= {"text/event-stream": {"schema": {"type": "string"}}} if streams else {}
    description = "`data[].b64_json` or `data[].url`, `data[].seed`; of a class `data[].label`;"
    description += " `notes`: what should be known of what was asked for."
    told = {"content": content, "description": description, "headers": _headers()}
    return {200: told, **accepted()}


def _headers() -> dict[str, Any]:
    return {
        name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()
    }


def parameters(
    schema: type[Parameters],
    limits: Limits,
    forms: bool = True,
    keys: Sequence[str] = (),
    beside: Sequence[str] = (),
    needed: bool = True,
    also_needed: Sequence[str] = (),
) -> dict[str, Any]:
    """FastAPI's `openapi_extra` for a body with these parameters.

    keys: names that the file may come under that it takes as well, in the body; or the file is
        the body, with the parameters in the query.
    beside: names of images or latents that may come with it.
    needed: whether it must come; also_needed: what of the rest.
    """
    described = schema.model_json_schema()
    properties: dict[str, Any] = described["properties"]
    for name, limit in schema.limited.items():
        details = properties[name]
        whole = next(part for part in (details, *details.get("anyOf", ())) if _is_integer(part))
        whole["maximum"] = getattr(limits, limit)
    for name, details in properties.items():  # null is as good as absent, in every way of sending
        properties[name] = _or_null(details)
    content: dict[str, Any] = {}
    if keys:
        file = {"type": "string", "format": "binary"}
        text: dict[str, Any] = {
            "type": "string", "format": "byte", "description": "base64, or a data URL",
        }  # fmt: skip
        kinds = list(MEDIA_TYPES.values())
        if keys == LATENTS_KEYS:
            text, kinds = _LATENTS, [ARRAY]
        for kind, one in (("multipart/form-data", file), ("application/json", text)):
            others = {name: _LATENTS if name in LATENTS_KEYS else one for name in beside}
            content[kind] = {
                "schema": _with_file(described, one, keys, others, needed, also_needed)
            }
        content |= {kind: {"schema": file} for kind in kinds}
    else:
        content["application/json"] = {"schema": described}
        if forms:
            content["multipart/form-data"] = {"schema": described}
    extra: dict[str, Any] = {"requestBody": {"content": content, "required": bool(keys) and needed}}
    if forms:
        extra["parameters"] = [
            {"name": name, "in": "query", "schema": details, "required": False}
            for name, details in properties.items()
        ]
    return extra


def _is_integer(details: dict[str, Any]) -> bool:
    return details.get("type") == "integer"


def _or_null(details: dict[str, Any]) -> dict[str, Any]:
    choices = details.get("anyOf", [])
    if details.get("type") == "null" or {"type": "null"} in choices:
        return details
    about = {key: details[key] for key in ("title", "description", "default") if key in details}
    value = {key: details[key] for key in details if key not in about}
    return about | {"anyOf": [*(choices or [value]), {"type": "null"}]}


def _files(file: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """What stands under each name that images may come by: in forms `image[]` has several, in JSON
    `images`."""
    in_form = file.get("format") == "binary"
    of_list = file if in_form else {
        "type": "object", "properties": {"image_url": file}, "required": ["image_url"],
        "additionalProperties": False,
    }  # fmt: skip
    several = {"type": "array", "items": of_list, "minItems": 1, "maxItems": MOST}
    passed_over = LISTS[1] if in_form else LISTS[0]
    return {key: several if key in LISTS else file for key in keys if key != passed_over}


def _with_file(
    described: dict[str, Any],
    file: dict[str, Any],
    keys: Sequence[str],
    others: dict[str, dict[str, Any]],
    needed: bool,
    also_needed: Sequence[str],
) -> dict[str, Any]:
    """With the one file, under any of its names, and others beside it."""
    properties = described["properties"] | others
    choices = [
        described | {"properties": {key: one} | properties, "required": [key, *also_needed]}
        for key, one in _files(file, keys).items()
    ]
    without = [] if needed else [described | {"properties": properties}]
    return {"oneOf": choices + without}


def guard(app: FastAPI, free: Collection[str]) -> None:
    """Have the documentation of an app tell of its keys, on all paths but those that are free."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema:
            return app.openapi_schema
        told = plain()
        told["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        body = {"schema": {"$ref": "#/components/schemas/ErrorBody"}}
        for path, routes in told["paths"].items():
            for route in routes.values() if path not in free else ():
                route["security"] = [{"bearer": []}, {"header": []}]
                for status in (401, 429):
                    refusal = {"description": _MEANINGS[status]}
                    route["responses"].setdefault(
                        str(status), refusal | {"content": {"application/json": body}}
                    )
        return told

    app.openapi = described  # type: ignore[method-assign]
