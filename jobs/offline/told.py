"""What a job has told of images, as one file; and what failed."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from cluster.places import open_storage
from genimg.results import UNLIKE, unlike
from jobs.console import say
from jobs.offline.job import Item, Job, chunks_of

_READERS = 16  # parts that are read at a time
_TOLD = 3  # failures that are told at the terminal


def tell(failed: Sequence[Sequence[str]], where: str) -> None:
    """Tell of what failed, at the terminal.

    where: the place of its list; empty: there is none, so that all are told.
    """
    for what, why in failed[: _TOLD if where else None]:
        say(f"failed: {what}: {why}")
    if len(failed) > _TOLD or where:
        listed = f"; all are in {where}; the same command tries them again" if where else ""
        say(f"{len(failed):,} failed{listed}")


def lines_of(job: Job, items: Sequence[Item]) -> Iterator[dict[str, Any]]:
    """What a job has told of its items, in their order."""
    storage = open_storage(job.output)
    keys = [chunk.key for chunk in chunks_of(job, items, len(items))]
    with ThreadPoolExecutor(_READERS) as pool:
        for data, _ in pool.map(storage.read, keys):
            for line in data.splitlines():
                yield json.loads(line)


def heard(told: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What is told, on its way to a file; how near latents come, also at the terminal."""
    psnr: list[float] = []
    plain: list[float] = []
    for line in told:
        if "psnr" in line:
            psnr.append(line["psnr"])
            plain.append(line.get("plain_psnr", -math.inf))  # told by no server of before
        yield line
    if not psnr:
        return
    several = len(psnr) > 1
    many = f" on average, of {len(psnr):,} images from {min(psnr):.2f} to {max(psnr):.2f}"
    colour = "their mean colours" if several else "its mean colour"
    beside = f"; of {colour} all over: {np.mean(plain):.2f} dB"
    say(f"PSNR of what the latents decode to: {np.mean(psnr):.2f} dB"
        f"{many if several else ''}{beside if min(plain) > -math.inf else ''}")  # fmt: skip
    if count := unlike(psnr, plain):
        which = f"{count:,} of {len(psnr):,} images are" if several else "the image is"
        say(f"{which} {UNLIKE}")


def as_text(told: Iterable[dict[str, Any]], name: str, suffix: str) -> str:
    """By file, without what failed; or a line each."""
    if suffix == ".jsonl":
        return "".join(json.dumps(line) + "\n" for line in told)
    good = {line["file"]: line[name] for line in told if name in line}
    return json.dumps(good, indent=2) + "\n"


def as_array(told: Iterable[dict[str, Any]], name: str) -> bytes:
    """A .npy file, float32 [N, D]."""
    out = io.BytesIO()
    np.save(out, np.array([line[name] for line in told], np.float32))
    return out.getvalue()
