"""What /metrics shows, in a registry of its own for each app."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Meters:
    """Counters and gauges of an app and of the models in its process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry, "namespace": "genimg"}
        self.requests = Counter(
            "http_requests", "Requests answered.", ["route", "model", "status"], **own
        )
        self.seconds = Histogram(
            "http_request_seconds", "Time to answer.", ["route"], buckets=_SECONDS, **own
        )
        self.batch = Histogram(
            "batch_images", "Images computed together.", ["model"], buckets=_IMAGES, **own
        )
        self.queue = Gauge("queue_images", "Images that wait to be computed.", ["model"], **own)
        self.jobs = Counter("jobs", "Jobs ended here.", ["operation", "state"], **own)
        self.version = Gauge("served_version", "Version that answers.", ["model"], **own)
        self.swaps = Counter("swaps", "Changes to another version.", ["model"], **own)
        self.refused = Counter(
            "swaps_refused", "Versions that could not be served.", ["model"], **own
        )
        self.unreachable = Counter(
            "registry_failures", "Looks at the registry that failed.", ["model"], **own
        )

    def for_model(self, model: str) -> ModelMeters:
        """The meters of one served reference."""
        return ModelMeters(self, model)

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)


class ModelMeters:
    """The meters of one served reference."""

    def __init__(self, meters: Meters, model: str) -> None:
        self.batch = meters.batch.labels(model)
        self.queue = meters.queue.labels(model)
        self.version = meters.version.labels(model)
        self.swaps = meters.swaps.labels(model)
        self.refused = meters.refused.labels(model)
        self.unreachable = meters.unreachable.labels(model)


class Measured:
    """ASGI middleware: counts requests and times them.

    The labels stay few whatever is asked for: the route's pattern, and the id of a served model
    where one answered (a route leaves it in the request's state).
    """

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        self.app = app
        self.meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500  # where nothing was sent

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        scope.setdefault("state", {})
        try:
            await self.app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            model = scope["state"].get("model", "")
            self.meters.requests.labels(route, model, status).inc()
            self.meters.seconds.labels(route).observe(time.perf_counter() - began)
