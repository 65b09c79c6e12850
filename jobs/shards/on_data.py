"""Shards written on a cluster by Ray Data, each by one worker, which is told its images."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator
from dataclasses import asdict
from typing import Any

import ray.data

from cluster.local import connect
from genimg.data.parts import Part
from genimg.errors import InputError
from jobs.shards.folder import Outcome
from jobs.shards.plan import Plan, Shard, Sources
from jobs.shards.writer import Sharder, part_of


def write_on_ray(
    plan: Plan, sources: Sources, shards: list[Shard], tolerate_broken: int
) -> Generator[Outcome, None, None]:
    """Write shards; outcomes as they come. Raises InputError where one cannot be written."""
    text = plan.text()

    def write(row: dict[str, Any]) -> dict[str, str]:
        sharder = Sharder(Plan(**json.loads(text)), tolerate_broken)
        part = Part.unpacked(row["part"]) if row["part"] else None
        outcome = sharder.write(Shard(**json.loads(row["shard"])), part)
        return {"outcome": json.dumps(asdict(outcome))}

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it warns that it shows no progress
    with connect():
        ray.data.DataContext.get_current().enable_progress_bars = False  # there is the Meter
        parts = (part_of(plan, sources, shard) for shard in shards)
        rows = [
            {"shard": json.dumps(asdict(shard)), "part": part.packed() if part else b""}
            for shard, part in zip(shards, parts, strict=True)
        ]
        outcomes = ray.data.from_items(rows, override_num_blocks=len(rows)).map(write)
        for row in outcomes.iter_rows():
            outcome = Outcome(**json.loads(row["outcome"]))
            if outcome.refused:
                raise InputError(outcome.refused)
            yield outcome
