"""What stands before an app and makes trouble: refuses, hangs up, or pretends another version."""

from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HANG_UP = Response(headers={"content-length": "9"})  # of which nothing comes


@dataclass
class Troubled:
    """An app, and what becomes of its POSTs.

    trouble: given the number of a POST, from 1 on, what is answered in the app's place, if anything
    versions: from which POST on answers name which version
    """

    app: ASGIApp
    trouble: Callable[[int], Response | None] = lambda number: None
    versions: dict[int, str] = field(default_factory=dict)
    posts: list[Headers] = field(default_factory=list)
    clients: set[tuple[str, int]] = field(default_factory=set)  # connections that were made

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.clients.add(tuple(scope["client"]))
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        self.posts.append(Headers(scope=scope))
        number = len(self.posts)
        if answer := self.trouble(number):
            while (await receive()).get("more_body"):
                pass
            await send({"type": "http.response.start", "status": answer.status_code,
                        "headers": answer.raw_headers})  # fmt: skip
            if answer is not HANG_UP:
                await send({"type": "http.response.body", "body": answer.body})
            return
        version = [each for first, each in self.versions.items() if number >= first]

        async def renamed(message: Message) -> None:
            if version and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-model-version"] = version[-1]
            await send(message)

        await self.app(scope, receive, renamed)
