"""The one form that every error answer has, whoever raised it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from genimg.errors import InputError, closest
from genimg.operations import Operation
from serving.requests import ModelInfo

BROKEN, GONE = "model_broken", "model_not_found"  # codes of errors
_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


class ApiError(Exception):
    """An answer that is no success. It may cross from an engine's process, so it can be pickled.

    code: a word for programs; param: the parameter that is to blame; headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, code, message, param, headers)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.headers = dict(headers or {})

    def __str__(self) -> str:
        return self.message

    def body(self) -> dict[str, Any]:
        """{"error": {"message", "type", "param", "code"}}, as OpenAI's clients read it."""
        kind = _KINDS.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )
        return {
            "error": {
                "message": _printable(self.message),
                "type": kind,
                "param": None if self.param is None else _printable(self.param),
                "code": self.code,
            }
        }

    def response(self) -> Response:
        return JSONResponse(self.body(), self.status, self.headers)


def bad_value(param: str, value: object, reason: str) -> ApiError:
    """400 for a parameter that cannot be honoured."""
    return ApiError(400, "invalid_value", f"{param}={shown(value)}: {reason}", param)


def of_input(error: InputError, operation: type[Operation]) -> ApiError:
    """400 for what an engine refuses; its messages begin with `parameter=value: `, or with what
    they are about: an option, or what the operation is done on."""
    about = rf"\w+(?==)|({'|'.join(operation.model_fields)})(?=: )"
    if operation.takes:
        about += rf"|({'|'.join(operation.takes)})\b"
    param = re.match(about, str(error))
    return ApiError(400, "invalid_value", str(error), param[0] if param else None)


def model_loading(model: str) -> ApiError:
    return ApiError(
        503, "model_loading", f"{model} is being loaded; try again", headers={"Retry-After": "1"}
    )


def model_gone(model: str) -> ApiError:
    return ApiError(404, GONE, f"model={model!r}: it is served no more", "model")


def model_broken(model: str, reason: str, wait_s: float = 1) -> ApiError:
    """503 for one that cannot be loaded; wait_s: seconds until that is tried again."""
    headers = {"Retry-After": str(max(1, math.ceil(wait_s))), "x-should-retry": "false"}
    return ApiError(503, BROKEN, f"model={model!r}: it cannot be loaded: {reason}", headers=headers)


def cannot(model: ModelInfo, capability: str) -> ApiError:
    can = ", ".join(model.capabilities)
    message = f"model={model.id!r}: it cannot {capability}; it can: {can}"
    return ApiError(400, "invalid_value", message, "model")


def unread(
    why: str, capability: str, operation: type[Operation], readers: Sequence[str] = ()
) -> ApiError:
    """400 for a file that only models read which have a capability beside the operation's.

    readers: ids of models that do
    """
    name = next(name for name, needs in operation.reads.items() if needs == capability)
    other = f"name {readers[0]}, which does, or " if readers else ""
    message = f"{name}: {why}; {other}{operation.instead[name]}"
    return ApiError(400, "invalid_value", message, name)


def failed() -> ApiError:
    """500 for a fault of ours, whose traceback goes into the log."""
    return ApiError(500, "internal_error", "the server failed on this request; its log says why")


def shown(value: object) -> str:
    """A value as a message may quote it: escaped, and short though an image be given."""
    text = f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def install(app: FastAPI, paths: Iterable[str] = ()) -> None:
    """Let every error of an app, its own and the framework's, have the one form.

    paths: those that are named to who asked for one like them.
    """
    names: dict[str, list[str]] = {}  # by what is before them
    for path in paths:
        folder, _, name = path.rpartition("/")
        names.setdefault(folder, []).append(name)

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        request.state.error = error.code
        return error.response()

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = _CODES.get(error.status_code, "error")
        path = request.url.path
        message, headers = error.detail, error.headers
        if error.status_code == 404:
            folder, _, name = path.rpartition("/")
            near = closest(name, names.get(folder, ()))
            remedy = f"did you mean '{folder}/{near}'?" if near else "see /docs"
            message = f"{request.method} {path}: there is no such route; {remedy}"
        elif error.status_code == 405:
            methods = allowed(request)
            message = f"{request.method} {path}: it answers {methods} alone"
            headers = {"Allow": methods}
        return ApiError(error.status_code, code, message, headers=headers).response()

    async def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        param = str(first["loc"][-1])
        return ApiError(400, "invalid_value", f"{param}: {first['msg']}", param).response()

    async def anything(request: Request, error: Exception) -> Response:
        return failed().response()

    app.add_exception_handler(ApiError, ours)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(Exception, anything)


def allowed(request: Request) -> str:
    """All methods that a path is answered by; Starlette names those of its first route."""
    answered = (
        method
        for method in ("DELETE", "GET", "HEAD", "POST")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    )
    return ", ".join(answered)


def _printable(text: str) -> str:
    """Without lone surrogates, which JSON strings of a request can hold but UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()
