"""The short way to routes that read their request and make their response themselves.

FastAPI's way (routers, dependencies, two exit stacks, a copy of the scope) costs as much as all
that these routes do; they stay its routes, for everything else and for /openapi.json.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send


class Direct:
    """ASGI middleware: the POST routes of some routers, found by their paths alone.

    Their functions take the request and give the response. What they raise is answered by the
    app's handlers, as if they had been called by it.
    """

    def __init__(self, app: ASGIApp, routers: Iterable[APIRouter]) -> None:
        self.app = app
        self.routes = {
            route.path: route
            for router in routers
            for route in router.routes
            if isinstance(route, APIRoute)
            and "POST" in (route.methods or ())
            and "{" not in route.path
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self.routes.get(scope["path"]) if scope["type"] == "http" else None
        if route is None or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive, send)
        try:
            response: Response = await route.endpoint(request)
        except Exception as error:
            handler = _handler(scope["app"].exception_handlers, error)
            if handler is None:
                raise
            response = await handler(request, error)
        await response(scope, receive, send)


def _handler(
    handlers: dict[Any, Callable[..., Awaitable[Response]]], error: Exception
) -> Callable[..., Awaitable[Response]] | None:
    """That of an error's class or the nearest above it; the one for all others is not ours."""
    classes = (kind for kind in type(error).__mro__ if kind is not Exception)
    return next((handlers[kind] for kind in classes if kind in handlers), None)
