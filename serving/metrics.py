"""What a process counts, in a registry of its own for each app; /metrics shows it."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from itertools import chain
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from serving.requests import Timings

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_VERSIONS = 4  # of a side that are shown
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Meters:
    """Counters and gauges of an app and of the models in its process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._versions: dict[tuple[str, str], list[int]] = {}  # that have answered, by their sides
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
        self.pixels = Gauge(
            "queue_pixels",
            "Pixels, given or made, whichever are more, of what waits to be computed.",
            ["model"],
            **own,
        )
        self.full = Counter(
            "queue_refusals", "Requests refused because too much waited.", ["model"], **own
        )
        self.stages = Histogram(
            "stage_seconds",
            "Time of an answer in the queue, in the engine (compute), and to be encoded.",
            ["model", "stage"],
            buckets=_SECONDS,
            **own,
        )
        self.jobs = Counter("jobs", "Jobs ended here.", ["operation", "state"], **own)
        self.version = Gauge("served_version", "Version that answers.", ["model"], **own)
        self.bytes = Gauge("loaded_bytes", "Bytes of weights in memory.", ["model"], **own)
        self.loads = Counter(
            "loads", "Models loaded, at the start or when asked for.", ["model"], **own
        )
        self.evictions = Counter(
            "evictions", "Models given up to make room for others.", ["model"], **own
        )
        self.side_requests = Counter(
            "side_requests",
            "Requests to models with a canary or a shadow, by who computed them.",
            ["model", "side", "version", "status"],
            **own,
        )
        self.side_seconds = Histogram(
            "side_seconds",
            "Time of those that went well.",
            ["model", "side", "version"],
            buckets=_SECONDS,
            **own,
        )
        self.shadow_dropped = Counter(
            "shadow_dropped", "Requests that were not copied to a shadow.", ["model"], **own
        )
        self.swaps = Counter("swaps", "Changes to another version.", ["model"], **own)
        self.refused = Counter(
            "swaps_refused", "Versions that could not be served.", ["model"], **own
        )
        self.unreachable = Counter(
            "registry_failures", "Looks at the registry that failed.", ["model"], **own
        )
        self.key_requests = Counter(
            "key_requests", "Requests answered, by the name of the key.", ["key", "status"], **own
        )
        self.key_refusals = Counter(
            "key_refusals",
            "Requests refused for want of a key, or for too much of one.",
            ["key", "code"],
            **own,
        )
        self.keys = Gauge("keys", "Keys that may ask.", **own)
        self.keys_failures = Counter("keys_failures", "Looks at the keys that failed.", **own)
        self.settings_refused = Counter(
            "settings_refused", "Changes of the settings that could not be had.", **own
        )
        self.lines_lost = Counter(
            "log_lines_lost", "Lines of the log that nobody took in time.", **own
        )

    def for_model(self, model: str) -> ModelMeters:
        """The meters of one served reference."""
        return ModelMeters(self, model)

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def families(self) -> list[Metric]:
        """The same as it can be sent to another process."""
        return list(self.registry.collect())

    def of_side(
        self, model: str, side: str, version: int, status: int, seconds: float | None
    ) -> None:
        """Count a request; seconds: of one that went well. Versions before the last few that have
        answered are shown no more."""
        self.side_requests.labels(model, side, version, status).inc()
        if seconds is not None:
            self.side_seconds.labels(model, side, version).observe(seconds)
        versions = self._versions.setdefault((model, side), [])
        if version not in versions:
            versions.append(version)
            for old in versions[:-_VERSIONS]:
                versions.remove(old)
                self._remove({"model": model, "side": side, "version": str(old)})

    def drop(self, model: str) -> None:
        """Show nothing of a reference that is not served any more."""
        self._remove({"model": model})
        for key in list(self._versions):
            if key[0] == model:
                del self._versions[key]

    def drop_keys(self, names: Collection[str]) -> None:
        """Show nothing of keys that are gone: perhaps thousands, looked for in one go."""
        for each, other in ((self.key_requests, "status"), (self.key_refusals, "code")):
            samples = chain(*(family.samples for family in each.collect()))
            for labels in {(sample.labels["key"], sample.labels[other]) for sample in samples}:
                if labels[0] in names:
                    each.remove(*labels)

    def _remove(self, labels: dict[str, str]) -> None:
        for each in vars(self).values():
            if isinstance(each, MetricWrapperBase):
                with suppress(ValueError):  # it has no such labels
                    each.remove_by_labels(labels)

    def forget(self, model: str) -> None:
        """Show no state of a reference that is not in memory any more; what was counted stays."""
        for each in (self.queue, self.pixels, self.version, self.bytes):
            each.remove(model)


class ModelMeters:
    """The meters of one served reference."""

    def __init__(self, meters: Meters, model: str) -> None:
        self.batch = meters.batch.labels(model)
        self.full = meters.full.labels(model)
        self.stages = {
            name: meters.stages.labels(model, name) for name in ("queue", "compute", "encode")
        }
        self.loads = meters.loads.labels(model)
        self.evictions = meters.evictions.labels(model)  # shown before the first
        self.swaps = meters.swaps.labels(model)
        self.refused = meters.refused.labels(model)
        self.unreachable = meters.unreachable.labels(model)
        self._of = meters, model
        self.show()

    def show(self) -> None:
        """Show its state, also where that of another host of the same name was forgotten."""
        meters, model = self._of
        self.queue = meters.queue.labels(model)
        self.pixels = meters.pixels.labels(model)
        self.version = meters.version.labels(model)
        self.bytes = meters.bytes.labels(model)

    def observe(self, timings: Timings) -> None:
        for name, stage in self.stages.items():
            stage.observe(getattr(timings, name) / 1000)
