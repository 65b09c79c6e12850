"""The app behind keys: who asks is found out before anything else is, and sees what it may use."""

from __future__ import annotations

import asyncio
import sys
from contextvars import ContextVar
from dataclasses import replace

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.keys import Key
from genimg.operations import Kind
from serving.backend import Backend, choose, usable, wanted_of
from serving.errors import ApiError
from serving.keys import Keys
from serving.page import PATHS
from serving.passes import Tell
from serving.requests import Answer, Caller, ModelInfo, Request, Show, given_or_made

FREE = frozenset({
    *PATHS,  # the page, which can then ask for a key
    "/livez", "/health", "/readyz",  # probes have none; what they are told names no model
    "/docs", "/openapi.json",  # what this software can do, whoever runs it
})  # fmt: skip
NOBODY = Caller(models=())

# Of the request that is answered; outside of requests the server asks for itself.
CALLER: ContextVar[Caller] = ContextVar("caller", default=Caller())  # noqa: B039  (frozen)


class Keyed:
    """ASGI middleware: turns away whoever has no key, or asks too much, before a body is read."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        free = scope["path"].removeprefix(scope.get("root_path", "")) in FREE
        state = scope.setdefault("state", {})
        try:
            key = self.keys.holder(sent(Headers(scope=scope)))
            state["key"] = key.name
        except ApiError as error:
            if free:
                await self._answered(NOBODY, scope, receive, send)
            else:
                await self._refused(error, scope, receive, send)
            return
        caller = Caller(key.name, key.models or None)
        if free:
            await self._answered(caller, scope, receive, send)
            return
        send = self._telling(key, send)
        try:
            if scope["method"] == "POST":
                self.keys.take_request(key)
            self.keys.take_place(key)
        except ApiError as error:
            await self._refused(error, scope, receive, send)
            return
        try:
            await self._answered(caller, scope, receive, send)
        finally:
            self.keys.give_place(key)

    async def _answered(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        token = CALLER.set(caller)
        try:
            await self.app(scope, receive, send)
        finally:
            CALLER.reset(token)

    async def _refused(self, error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["state"].get("key", "")
        self.keys.meters.key_refusals.labels(name, error.code).inc()
        scope["state"]["error"] = error.code
        await error.response()(scope, receive, send)

    def _telling(self, key: Key, send: Send) -> Send:
        """With what is left of the key's requests in the headers of the answer."""
        if key.requests_per_minute is None:
            return send

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.keys.told(key))
            await send(message)

        return telling


def sent(headers: Headers) -> str | None:
    """The key in a request's headers, as OpenAI's clients or others send it."""
    scheme, _, text = headers.get("authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else headers.get("x-api-key")


class Permitted:
    """A backend, as the key of the request that is answered may use it."""

    def __init__(self, backend: Backend, keys: Keys) -> None:
        self.backend = backend
        self.keys = keys

    async def call(
        self,
        model: str | None,
        request: Request,
        tell: Tell | None = None,
        show: Show | None = None,
    ) -> Answer:
        """As of the backend. Raises ApiError as `admitted` does."""
        return await self.backend.call(model, await self.admitted(model, request), tell, show)

    async def admitted(self, model: str | None, request: Request) -> Request:
        """A request of whoever asks now, its pixels counted. Raises ApiError 429 where the key has
        had those of a minute."""
        caller = CALLER.get()
        if caller == Caller():
            return request
        request = replace(request, caller=caller)
        key = self.keys.named(caller.name)
        if key and key.megapixels_per_minute is not None:
            await self._charge(key, model, request)
        return request

    async def models(self) -> list[ModelInfo]:
        return usable(await self.backend.models(), CALLER.get())

    def ready(self) -> bool:
        return self.backend.ready()

    async def _charge(self, key: Key, model: str | None, request: Request) -> None:
        try:
            chosen = choose(await self.models(), model, *wanted_of(request))
        except ApiError:  # which the backend answers with, or it finds one
            chosen = None
        count = await asyncio.to_thread(pixels, request, chosen)
        try:
            self.keys.take_pixels(key, count)
        except ApiError as error:
            self.keys.meters.key_refusals.labels(key.name, error.code).inc()
            raise


def pixels(request: Request, model: ModelInfo | None) -> int:
    """Pixels that a request gives or asks for, whichever are more, from headers alone.

    What cannot be read has none: it is refused where it is decoded.
    """
    from genimg import images  # which an app without keys does without

    operation = request.operation
    given = 0
    for name, data in request.files.items():
        if operation.takes.get(name) is not Kind.LATENTS:
            try:
                width, height = images.size(data, max_pixels=sys.maxsize)
            except images.BrokenImage:
                continue
            given += width * height
    side, scale = (model and model.size) or 0, (model and model.scale) or 1
    return given_or_made(operation, given, operation.drawn, side, scale)
