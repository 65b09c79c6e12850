"""The HTTP app over a backend. Plain FastAPI: it holds no global state and starts no engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

from genimg import __version__
from serving import documentation, errors, native, openai, page
from serving.answers import EXPOSED
from serving.backend import Backend
from serving.direct import Direct
from serving.errors import ApiError
from serving.jobs.desk import Jobs
from serving.keyed import FREE, Keyed, Permitted
from serving.keys import Keys
from serving.logs import Lines
from serving.measured import Measured
from serving.metrics import Meters
from serving.settings import Limits


def create_app(
    backend: Backend,
    limits: Limits | None = None,
    *,
    meters: Meters | None = None,
    origins: Sequence[str] = (),
    keys: Keys | None = None,
    lines: Lines | None = None,
    exposition: Callable[[], Awaitable[bytes]] | None = None,
    jobs: Jobs | None = None,
) -> FastAPI:
    """An app that answers by `backend`.

    meters: what /metrics shows; give the backend's own so that both are in it.
    origins: sites whose scripts may call this from a browser (`*`: all), besides its own.
    keys: of those who may ask; None: everybody may.
    lines: where a line for each request goes; None: nowhere.
    exposition: gives what /metrics shows instead, where it is that of several processes.
    jobs: where what is asked for with `async=true` is kept, and who sees to it; None: refused.
    """
    if keys:
        backend = Permitted(backend, keys)
    limits = limits or Limits()
    meters = meters or Meters()
    lifespan = jobs.seen_to if jobs else None
    app = FastAPI(title="genimg", version=__version__, redirect_slashes=False, lifespan=lifespan)
    app.add_exception_handler(ClientDisconnect, _nobody_listens)
    routers = [openai.router(backend, limits, jobs), native.router(backend, limits, jobs)]
    every = [*routers, *([jobs.router()] if jobs else []), page.router()]
    errors.install(
        app,
        [route.path for each in routers for route in each.routes if isinstance(route, APIRoute)],
    )
    app.add_middleware(Direct, routers=routers)  # the first that is added is the innermost
    if keys:
        app.add_middleware(Keyed, keys=keys)
        documentation.guard(app, FREE)
    app.add_middleware(Measured, meters=meters, lines=lines, routers=every)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=list(EXPOSED),
        )
    for router in every:
        app.include_router(router)

    @app.head("/livez", include_in_schema=False)
    @app.get("/livez", tags=["operation"])
    async def livez() -> dict[str, str]:
        """Whether the process answers at all."""
        return {"status": "alive"}

    @app.head("/health", include_in_schema=False)
    @app.head("/readyz", include_in_schema=False)
    @app.get("/health", tags=["operation"], responses=documentation.errors(503))
    @app.get("/readyz", tags=["operation"], responses=documentation.errors(503))
    async def health() -> dict[str, Any]:
        """Whether every model can be asked: 503 until then."""
        models = await backend.models()
        if not backend.ready():
            waiting = ", ".join(model.id for model in models if model.state == "loading")
            raise errors.model_loading(waiting or "a model")
        return {"status": "ready", "models": {model.id: model.version for model in models}}

    @app.get("/metrics", tags=["operation"], response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus' text format."""
        shown = await exposition() if exposition else meters.exposition()
        return Response(shown, media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


async def _nobody_listens(request: Request, error: Exception) -> Response:
    """The client has gone: this answer only ends the request, and counts it."""
    return ApiError(499, "client_closed_request", "the client closed the connection").response()
