"""Replicas that follow a load which rises and falls: how many, the queue, latencies; and a picture.

Clients never ask again, so that each request that fails counts. The model starts from no replica,
and ends with none.
"""

from __future__ import annotations

import io
import json
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from measuring import Row
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from servers import free_port, process

PICTURE = Path(__file__).parents[2] / "docs" / "autoscaling.png"
SIDE = 500  # pixels of the image that is denoised again and again
TARGET = 0.5  # megapixels a replica
MOST = 3  # replicas
FALL_S = 10.0  # seconds of a lower load until one is stopped
# (seconds, clients) one after the other; then it is waited for that no replica is left
LOAD = ((5, 0), (25, 1), (25, 4), (40, 8), (25, 4), (25, 1), (5, 0))
PATIENCE_S = 90.0


@dataclass
class Seen:
    """What happened, in seconds since the first."""

    answers: list[tuple[float, float]] = field(default_factory=list)  # (begun, taken)
    failures: list[str] = field(default_factory=list)
    clients: list[tuple[float, int]] = field(default_factory=list)
    replicas: list[tuple[float, float]] = field(default_factory=list)
    queue: list[tuple[float, float]] = field(default_factory=list)  # megapixels that wait


def measure(quick: bool) -> list[Row]:
    """A bundled denoiser in replicas of its own; the ingress stays."""
    with tempfile.TemporaryDirectory() as place:
        port = free_port()
        file = Path(place, "serve.json")  # which YAML is too
        file.write_text(json.dumps(config(place)))
        url = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
                return True
            return False

        command = ["-m", "jobs.serve", f"--config={file}", f"--port={port}"]
        with process(command, port, answers):
            load = LOAD if not quick else ((2, 1), (8, 4), (2, 0))
            seen = watched(url, load)
    taken = [seconds for _, seconds in seen.answers]
    if not quick:
        draw(seen, PICTURE)
    several = [replicas for _, replicas in seen.replicas]
    return [
        Row(
            "requests that failed while replicas followed the load", "requests",
            len(seen.failures), at_most=0,
            note=f"of {len(taken) + len(seen.failures)}; {', '.join(sorted(set(seen.failures)))}",
        ),
        Row(
            "replicas under the highest load", "replicas", max(several),
            at_least=None if quick else 2,
        ),
        Row("replicas in the end", "replicas", several[-1], at_most=0),
        Row("median latency", "s", statistics.median(taken), note="the first waits for a start"),
    ]  # fmt: skip


def config(place: str) -> dict[str, object]:
    scaling = {
        "min_replicas": 0,
        "max_replicas": MOST,
        "target_megapixels": TARGET,
        "downscale_delay_s": FALL_S,
    }
    model = {"ref": "denoise", "placement": "own", "num_cpus": 0.5, "autoscaling": scaling}
    args = {"registry": f"{place}/registry", "models": [model], "ingress": {"num_cpus": 0.1}}
    application = {"import_path": "serving.deployments:build", "args": args}
    return {"applications": [application]}


def watched(url: str, load: tuple[tuple[float, int], ...]) -> Seen:
    """Clients by the plan, and what `/metrics` says meanwhile and until no replica is left."""
    seen, began = Seen(), time.monotonic()
    ends = threading.Event()
    wanted = 0

    def now() -> float:
        return time.monotonic() - began

    def client(number: int) -> None:
        body = photo(number)
        while not ends.is_set():
            if number >= wanted:
                time.sleep(0.05)
                continue
            start = now()
            if reason := asked(url, body):
                seen.failures.append(reason)
                time.sleep(0.2)
            else:
                seen.answers.append((start, now() - start))

    def watch() -> None:
        while not ends.is_set():
            replicas, queue = metrics(url)
            seen.replicas.append((now(), replicas))
            seen.queue.append((now(), queue))
            time.sleep(0.5)

    most = max(clients for _, clients in load)
    with ThreadPoolExecutor(most + 1) as pool:
        tasks = [pool.submit(watch), *(pool.submit(client, i) for i in range(most))]
        try:
            for seconds, clients in load:
                wanted = clients
                seen.clients.append((now(), clients))
                time.sleep(seconds)
            seen.clients.append((now(), 0))
            wait_until(lambda: seen.replicas[-1][1] == 0)
        finally:
            ends.set()
    for task in tasks:
        task.result()
    return seen


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true() and time.monotonic() < end:
        time.sleep(0.2)


def photo(seed: int) -> bytes:
    """As a PNG."""
    noise = np.random.default_rng(seed).integers(0, 256, (SIDE // 8, SIDE // 8, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((SIDE, SIDE)).save(out, "png")
    return out.getvalue()


def asked(url: str, body: bytes) -> str | None:
    """Why no image came, if none did."""
    request = urllib.request.Request(
        f"{url}/v1/images/denoise?sigma=25&output_format=jpeg", body, {"Content-Type": "image/png"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return None if answer.read() else "an empty answer"
    except OSError as error:
        return str(error)


def metrics(url: str) -> tuple[float, float]:
    """(replicas of the model, megapixels that wait for them)."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [sample for family in families for sample in family.samples]
    replicas = [
        each.value
        for each in samples
        if each.name == "genimg_replicas" and each.labels["deployment"] == "denoise"
    ]
    waiting = [each.value for each in samples if each.name == "genimg_queue_pixels"]
    return sum(replicas), sum(waiting) / 1e6


def draw(seen: Seen, path: Path) -> None:
    figure = Figure(figsize=(9, 7), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    count = len(seen.answers) + len(seen.failures)
    top.set_title(f"{count} requests, of which {len(seen.failures)} failed")
    top.step(*zip(*seen.clients, strict=True), where="post", color="tab:gray")
    top.set_ylabel("clients")
    middle.step(*zip(*seen.replicas, strict=True), where="post")
    middle.set_ylabel("replicas", color="tab:blue")
    other = middle.twinx()
    other.plot(*zip(*seen.queue, strict=True), color="tab:orange", linewidth=1)
    other.set_ylabel("megapixels that wait", color="tab:orange")
    bottom.scatter(*zip(*seen.answers, strict=True), s=6, color="tab:green")
    bottom.set_yscale("log")
    bottom.set_ylabel("seconds until the answer")
    bottom.set_xlabel("seconds")
    for axes in (top, middle, bottom):
        axes.grid(alpha=0.3)
        axes.set_ylim(bottom=None if axes is bottom else 0)
    figure.savefig(path, dpi=100)
