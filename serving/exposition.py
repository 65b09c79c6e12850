"""/metrics of all replicas, whichever of them is asked: each has its name as a label."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

logger = logging.getLogger(__name__)

PATIENCE = 2.0  # seconds that the replicas of a deployment have to say what they have counted


@dataclass(frozen=True)
class Counted:
    """What a replica has counted."""

    replica: str  # its id
    families: Sequence[Metric]


async def gathered(
    handles: Mapping[str, Any], own: Counted, of: str, may_sleep: Collection[str] = ()
) -> bytes:
    """What all replicas of some deployments have counted, in Prometheus' text format.

    handles: of Serve, by the names of deployments whose method `counted` says it; own: what the
    replica that asks has counted, of the deployment `of`; may_sleep: deployments that need not have
    a replica, and are left out while they have none.
    """
    counted = dict(
        zip(handles, await asyncio.gather(*map(_counted, handles.values())), strict=True)
    )
    if all(each.replica != own.replica for each in counted[of]):  # Serve has not told of it yet
        counted[of].append(own)
    shown = {name: each for name, each in counted.items() if each or name not in may_sleep}
    return await asyncio.to_thread(exposition, shown)  # of many models it takes a while


def exposition(counted: Mapping[str, Sequence[Counted]]) -> bytes:
    """The text, of what replicas have counted, by their deployments."""
    registry = CollectorRegistry()
    registry.register(_Merged(counted))
    return generate_latest(registry)


async def _counted(handle: Any) -> list[Counted]:
    try:
        answers = await handle.broadcast("counted").results_async(
            timeout_s=PATIENCE, return_exceptions=True
        )
    except Exception as error:  # Serve's, where there is no replica, or Ray's
        logger.debug("no metrics of a deployment: %r", error)
        return []
    return [each for each in answers if isinstance(each, Counted)]


class _Merged(Collector):
    def __init__(self, counted: Mapping[str, Sequence[Counted]]) -> None:
        self.counted = counted

    def collect(self) -> Iterator[Metric]:
        replicas = GaugeMetricFamily(
            "genimg_replicas", "Replicas that answer.", labels=["deployment"]
        )
        merged: dict[str, Metric] = {}
        for deployment, those in self.counted.items():
            replicas.add_metric([deployment], len(those))
            for each in those:
                where = {"deployment": deployment, "replica": each.replica}
                for family in each.families:
                    into = merged.setdefault(
                        family.name, Metric(family.name, family.documentation, family.type)
                    )
                    into.samples += [s._replace(labels=s.labels | where) for s in family.samples]
        yield replicas
        yield from merged.values()
