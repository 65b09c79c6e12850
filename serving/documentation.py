"""What /openapi.json says of routes that read their bodies themselves."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from serving.formats import MEDIA_TYPES
from serving.schemas import Parameters


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
    404: "No such model; the message names those that there are.",
    408: "The body has not come in time.",
    413: "The body is too large.",
    415: "The body is no image in a format that is read.",
    429: "The queue is full; Retry-After says when to come again.",
    503: "The model is being loaded; Retry-After says when to come again.",
    504: "No answer in time.",
}


_HEADERS = {
    "X-Model-Id": "The reference that answered, as configured.",
    "X-Model-Version": "Its version.",
    "X-Precision": "float32 or bfloat16: in which its networks computed.",
    "X-Seed": "The seed of the first image, where images were drawn.",
    "Server-Timing": "Milliseconds in the queue, of computing its batch, and of encoding.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` for these statuses."""
    return {status: {"model": ErrorBody, "description": _MEANINGS[status]} for status in statuses}


def images() -> dict[int | str, dict[str, Any]]:
    """The content of an answer that is an image, or JSON where that was asked for."""
    raw = {
        kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES.values()
    }
    return {
        200: {
            "content": raw,
            "description": "The image, or JSON with `data[].b64_json`.",
            "headers": {
                name: {"schema": {"type": "string"}, "description": meaning}
                for name, meaning in _HEADERS.items()
            },
        }
    }


def parameters(schema: type[Parameters], image: bool = False, forms: bool = True) -> dict[str, Any]:
    """FastAPI's `openapi_extra` for a body with these parameters.

    image: it also takes an image, in the body or as the body with the parameters in the query.
    """
    described = schema.model_json_schema()
    properties: dict[str, Any] = described["properties"]
    content: dict[str, Any] = {}
    if image:
        text = {"type": "string", "description": "base64, or a data URL"}
        file = {"type": "string", "format": "binary"}
        content["multipart/form-data"] = {"schema": _with(described, {"image": file})}
        content["application/json"] = {"schema": _with(described, {"image": text})}
        content |= {kind: {"schema": file} for kind in (*MEDIA_TYPES.values(), "image/gif")}
    else:
        content["application/json"] = {"schema": described}
        if forms:
            content["multipart/form-data"] = {"schema": described}
    extra: dict[str, Any] = {"requestBody": {"content": content, "required": image}}
    if forms:
        extra["parameters"] = [
            {"name": name, "in": "query", "schema": details, "required": False}
            for name, details in properties.items()
        ]
    return extra


def _with(described: dict[str, Any], properties: dict[str, Any]) -> dict[str, Any]:
    return described | {
        "properties": properties | described["properties"],
        "required": list(properties),
    }
