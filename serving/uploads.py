"""Reading a request's parameters and image, in whichever way they were sent."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.types import Message

from genimg.operations import Kind, Operation
from serving.errors import ApiError, shown
from serving.formats import unsupported, written_as
from serving.settings import Limits

IMAGE_KEYS = ("image", "file")
LISTS = ("image[]", "images")  # names under which several come: in forms, and in JSON
EDITED_KEYS = (*IMAGE_KEYS, *LISTS)
MOST = 16  # images that one of them has
LATENTS_KEYS = ("latents",)
_MAX_FIELDS = 64
_ARRAY = b"\x93NUMPY"  # with which a .npy file begins


@dataclass(frozen=True)
class Received:
    """What came: parameters, and a file, or several of a list, and images that go with it."""

    values: Mapping[str, Any]  # of the body, and of the query what the body does not have
    texts: frozenset[str] = frozenset()  # what came in the query or a form; the others are JSON's
    file: bytes | None = None  # an image, or a .npy file
    query: Mapping[str, str] = field(
        default_factory=dict
    )  # all of it: what does not count is right too
    beside: Mapping[str, bytes] = field(default_factory=dict)  # further files, by parameter
    more: tuple[bytes, ...] = ()  # images that came after `file`, in a list
    names: tuple[str, ...] = ()  # of all that came, in forms and queries also of what is absent
    missing: ApiError | None = None  # where there is no file, and one is needed


def keys_of(operation: type[Operation]) -> tuple[str, ...]:
    """Names that the file may come under that an operation takes."""
    kinds = set(operation.takes.values())
    if kinds & {Kind.PICTURE, Kind.FRAMES}:
        return IMAGE_KEYS
    return LATENTS_KEYS if kinds else ()


def beside_of(operation: type[Operation]) -> tuple[str, ...]:
    """Names of what may come beside the one file that an operation is done on, or in its place."""
    return tuple(name for name in operation.takes if name not in keys_of(operation))


async def received(
    request: Request,
    limits: Limits,
    keys: Sequence[str] = (),
    beside: Sequence[str] = (),
    needed: bool = True,
) -> Received:
    """The query, and a body of JSON, a form, or of nothing but a file.

    keys: names that the file may come under; none where no file is taken. Of LISTS several come
        under one.
    beside: names of images or latents that may come with it.
    needed: whether it must come.

    In queries and forms `null` and the empty string mean absent. Where query and body both have a
    parameter, the body's counts; within one of them it is given once. That a file is missing is
    told by `schemas.parsed`, behind what was named in its place. Raises ApiError: 413 above
    `max_bytes`, unread where Content-Length says so; 408 where the body is not there after
    `upload_s`; 415 for an image in no format that is read; 400 for anything else.
    """
    queried = request.scope.get("query_string")  # most often there is none
    asked = _once_each(request.query_params.multi_items()) if queried else {}
    query = _present(asked)
    limit = asyncio.timeout(limits.upload_s)  # or slow clients could take all places
    try:
        async with limit:
            came = await _read(request, limits.max_bytes, [key for key in keys if key in LISTS])
    except TimeoutError:
        if not limit.expired():
            raise
        message = f"the body has not come within {limits.upload_s:g} s"
        headers = {"Connection": "close", "x-should-retry": "false"}
        raise ApiError(408, "request_timeout", message, headers=headers) from None
    texts = came.texts | (query.keys() - came.values)
    values = {**query, **came.values}
    names = (*came.names, *asked)
    if not keys:
        if came.file:
            message = "the body has neither parameters as JSON nor a form; send one of these"
            raise ApiError(415, "unsupported_media_type", message)
        return Received(values, texts, query=query, names=names)
    others: dict[str, bytes] = {}
    for key in beside:
        if key in values:
            one = _latents if key in LATENTS_KEYS else _image
            others[key] = one(key, values.pop(key), key in texts)
            if one is _image and written_as(others[key]) is None:
                raise unsupported(key)
    read = _latents if keys == LATENTS_KEYS else _image
    given = [(key, values.pop(key)) for key in keys if key in values]
    if len(given) + bool(came.file) > 1:
        noun = "latents" if keys == LATENTS_KEYS else "image"
        message = f"more than one {noun} is given; give one"
        raise ApiError(400, "invalid_value", message, given[-1][0])
    found = [read(keys[0], came.file, False)] if came.file else []
    for key, value in given:
        found += [read(key, each, key in texts) for each in _listed(key, value)]
    if not found and not needed:
        return Received(values, texts, query=query, beside=others, names=names)
    query = {key: value for key, value in query.items() if key not in keys}
    if not found or not found[0]:
        none = "there are no latents" if keys == LATENTS_KEYS else "there is no image"
        message = f"{none}; send it as form field `{keys[0]}`, as the body, or in JSON"
        missing = ApiError(400, f"missing_{keys[0]}", message, keys[0])
        return Received(values, texts, None, query, others, names=names, missing=missing)
    if keys != LATENTS_KEYS and not all(map(written_as, found)):
        raise unsupported()
    return Received(values, texts, found[0], query, others, tuple(found[1:]), names)


async def _read(request: Request, max_bytes: int, lists: Sequence[str]) -> Received:
    """A body's parameters, files among them; a body of another kind is the image.

    lists: names that a form may have several files under
    """
    incoming = _Body(request, max_bytes)
    request = Request(request.scope, incoming.receive)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with request.form(
            max_files=MOST + 3 if lists else 3, max_fields=_MAX_FIELDS, max_part_size=max_bytes
        ) as form:
            items = form.multi_items()
            files = [
                (key, await file.read()) for key, file in items if isinstance(file, UploadFile)
            ]
            texts = [(key, text) for key, text in items if isinstance(text, str)]
        if not incoming.ended:  # what the parser passes over, with the part that is cut
            raise ApiError(400, "invalid_form", "the form is cut off: it has no closing boundary")
        every: list[tuple[str, Any]] = [*files, *texts]
        values = _present(_once_each(item for item in every if item[0] not in lists))
        for name in lists:
            if several := [v for key, v in every if key == name and v not in ("null", "")]:
                values[name] = several
        names = tuple(key for key, _ in items)
        return Received(values, frozenset(values), names=names)
    body = await request.body()
    if not body:
        return Received({})
    # curl calls JSON and images a form where it is not told what they are
    if kind == "application/json" or kind.endswith("+json") or body[:64].lstrip()[:1] == b"{":
        values = {key: value for key, value in _object(body).items() if value is not None}
        return Received(values, names=tuple(values))
    if kind == "application/x-www-form-urlencoded" and not written_as(body):
        async with request.form(max_fields=_MAX_FIELDS) as form:  # of the body just read
            fields = _once_each(form.multi_items())
        values = _present(fields)
        return Received(values, frozenset(values), names=tuple(fields))
    return Received({}, file=body)


class _Body:
    """A request's body, of which no more than `max_bytes` can be read."""

    def __init__(self, request: Request, max_bytes: int) -> None:
        self.request = request
        self.max_bytes = max_bytes
        self.count = 0
        kind = request.headers.get("content-type", "")
        _, options = parse_options_header(kind) if "boundary" in kind.lower() else (b"", {})
        boundary = options.get(b"boundary", b"")  # of a form in parts
        self.closing = b"--" + boundary + b"--"
        self.last = b""
        self.ended = not boundary  # whether the closing boundary came, if there is to be one
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > max_bytes:
            raise self.too_much()

    async def receive(self) -> Message:
        message = await self.request.receive()
        body = message.get("body", b"")
        self.count += len(body)
        if self.count > self.max_bytes:
            raise self.too_much()
        if not self.ended:
            tail = self.last + body
            self.ended = self.closing in tail
            self.last = tail[-len(self.closing) :]
        return message

    def too_much(self) -> ApiError:
        message = f"the body is larger than {self.max_bytes:,} bytes, the most that is taken here"
        return ApiError(413, "body_too_large", message)


def _present(values: dict[str, Any]) -> dict[str, Any]:
    """Without those of a form or query that stand for nothing."""
    return {key: value for key, value in values.items() if value not in ("null", "")}


def _once_each(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in items:
        if key in values:
            raise ApiError(400, "invalid_value", f"{key} is given more than once; give one", key)
        values[key] = value
    return values


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number that JSON has")


def _object(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body, object_pairs_hook=_once_each, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "invalid_json", f"the body is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ApiError(400, "invalid_json", "the body is no JSON object; give {...}")
    return values


def _as_sent(text: str) -> bytes:
    """The bytes of a form's field, which was read as UTF-8, or else as Latin-1."""
    try:
        data = text.encode("latin-1")
        data.decode()
    except UnicodeEncodeError:
        return text.encode(errors="replace")
    except UnicodeDecodeError:
        return data
    return text.encode()


def _listed(key: str, value: Any) -> list[Any]:
    """What came under a name, one by one. Raises ApiError."""
    if key not in LISTS or not isinstance(value, list):
        return [value]
    if len(value) > MOST:
        message = f"{key}: {len(value)} images are given; give at most {MOST}"
        raise ApiError(400, "invalid_value", message, key)
    return value


def _image(key: str, value: Any, in_form: bool) -> bytes:
    if isinstance(value, dict) and not in_form:  # as OpenAI's JSON has it
        if value.keys() != {"image_url"}:
            message = f"{key}={shown(value)}: give the image itself, as a data URL in `image_url`"
            raise ApiError(400, "invalid_image", message, key)
        value = value["image_url"]
    return value if isinstance(value, bytes) else _from_text(key, value, in_form)


def _latents(key: str, value: Any, in_form: bool) -> bytes:
    """A .npy file as it came, or of rows of numbers, which a form has as JSON."""
    import numpy as np  # which an app without engines does without

    try:
        if isinstance(value, bytes):
            if value.startswith(_ARRAY):
                return value
            value = value.decode()
        if isinstance(value, str):
            value = json.loads(value, parse_constant=_no_number)
        if all(type(number) in (int, float) for row in value for number in row):
            out = io.BytesIO()
            np.save(out, np.array(value, np.float32))
            return out.getvalue()
    except (ValueError, TypeError, RecursionError, OverflowError):
        pass
    message = f"{key}: give rows of numbers as [[...], ...], or a .npy file"
    raise ApiError(400, "invalid_value", message, key)


def _from_text(key: str, text: Any, in_form: bool) -> bytes:
    """The bytes of base64 or of a data URL; other URLs are not fetched.

    in_form: it may be the file itself, in a field without a file's name.
    """
    if not isinstance(text, str):
        raise ApiError(400, "invalid_image", f"{key}={shown(text)}: give base64 as a string", key)
    if in_form and written_as(data := _as_sent(text)):
        return data
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise ApiError(400, "invalid_image", f"{key}: give a data URL with ;base64", key)
    elif "://" in text[:20]:
        message = f"{key}={shown(text)}: URLs are not fetched; send the image itself"
        raise ApiError(400, "invalid_image", message, key)
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        message = f"{key}={shown(text)}: neither base64 nor a data URL"
        raise ApiError(400, "invalid_image", message, key) from None
