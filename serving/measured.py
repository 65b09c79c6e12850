"""ASGI middleware around the app: counts requests and times them, and writes a line for each."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from itertools import chain
from typing import Any

from fastapi import APIRouter
from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.logs import ID, Lines
from serving.metrics import Meters
from serving.requests import Answer

logger = logging.getLogger(__name__)

GONE = 499  # status where the client has closed the connection
_LONGEST = 128  # characters of a client's own id that are taken


class Measured:
    """The labels of what is counted stay few whatever is asked for: the route's pattern, and the id
    of a served model where one answered, and the name of the key (which are left in the request's
    state). So do lines: no address, no path, nothing that a request or its answer holds.
    """

    def __init__(
        self,
        app: ASGIApp,
        meters: Meters,
        lines: Lines | None = None,
        routers: Sequence[APIRouter] = (),
    ) -> None:
        """lines: where a line for each request goes; None: nowhere.

        routers: those that the app includes, whose routes its own do not tell
        """
        self.app = app
        self.routers = routers
        self.meters = meters
        self.lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500  # where nothing was sent
        given = made = 0  # bytes
        gone, ended = False, False

        async def coming() -> Message:
            nonlocal given, gone
            message = await receive()
            given += len(message.get("body", b""))
            gone = gone or (message["type"] == "http.disconnect" and not ended)
            return message

        async def watched(message: Message) -> None:
            nonlocal status, made, ended
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                made += len(message.get("body", b""))
                ended = not message.get("more_body", False)
            await send(message)

        state: dict[str, Any] = scope.setdefault("state", {})
        token = ID.set(request_id(scope)) if self.lines else None
        try:
            await self.app(scope, coming if self.lines else receive, watched)
        except asyncio.CancelledError:
            gone = True
            raise
        except Exception:
            if self.lines:  # whoever runs the app tells of it as well, but not to the same place
                logger.exception("the app failed on this request")
            raise
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route") or self.route_of(scope), "path", "none")
            model = state.get("model", "")
            self.meters.requests.labels(route, model, status).inc()
            self.meters.seconds.labels(route).observe(seconds)
            if key := state.get("key"):
                self.meters.key_requests.labels(key, status).inc()
            if self.lines and token:
                fields: dict[str, Any] = {"request_id": ID.get(), "method": scope["method"]}
                fields |= {"route": route, "status": status}
                fields |= {"key": key} if key else {}
                fields |= {"error": state["error"]} if "error" in state else {}
                fields |= _of(state.get("answer"))
                fields |= {"bytes_in": given, "bytes_out": made}
                fields |= {"total_ms": round(1000 * seconds, 1), "gone": gone or status == GONE}
                self.lines.write(fields)
                ID.reset(token)

    def route_of(self, scope: Scope) -> BaseRoute | None:
        """That of a request which was turned away before it was looked for."""
        routes = chain(*(router.routes for router in self.routers), scope["app"].routes)
        return next((each for each in routes if each.matches(scope)[0] is Match.FULL), None)


def request_id(scope: Scope) -> str:
    """That which Ray Serve gave the request, unless its client did; empty where neither has."""
    return Headers(scope=scope).get("x-request-id", "")[:_LONGEST]


def _of(answer: Answer | None) -> dict[str, Any]:
    if answer is None:
        return {}
    timings = answer.timings
    return {
        "model": answer.model,
        "version": answer.version,
        "pixels": answer.pixels,
        "queue_ms": round(timings.queue, 1),
        "compute_ms": round(timings.compute, 1),
        "encode_ms": round(timings.encode, 1),
    }
