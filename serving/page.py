"""The page at `/`: one HTML file, one style sheet and JavaScript modules, as they lie in web/.

They ask nobody but this server, of which they learn what it can do: /v1/operations, /v1/models.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response

FOLDER = Path(__file__).parent / "web"
KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
PATHS = ("/", *sorted(f"/{each.name}" for each in FOLDER.iterdir() if each.suffix in KINDS))
_HEADERS = {
    # Nothing of another host, nothing inline; pictures may be ones that the page made itself.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def router() -> APIRouter:
    routes = APIRouter(include_in_schema=False)
    for path in PATHS:
        file = FOLDER / (path[1:] or "index.html")
        answer = _answering(file.read_bytes(), KINDS.get(file.suffix, "text/html; charset=utf-8"))
        routes.add_api_route(path, answer, methods=["GET", "HEAD"])
    return routes


def _answering(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)

    return answer
