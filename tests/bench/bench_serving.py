"""Serving over the engine alone: throughput of two replicas, latency of one client, the start."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from measuring import Row

from genimg import images
from genimg.engine import Engine
from jobs.train import train

MODEL = ["data.size=64", "data.holdout=32", "train.images=64", "evaluation.samples=32"]
BATCH = 16  # as the server's
CLIENTS = 64  # enough that a full batch always waits
SCRIPT = """
local seed = 0
request = function()
  seed = seed + 1
  local body = '{"seed": ' .. (seed % 1000000) .. '}'
  return wrk.format("POST", "/v1/images/sample", {["Content-Type"] = "application/json"}, body)
end
"""


def measure(quick: bool) -> list[Row]:
    """dcgan at 64 pixels (untrained, which computes as long), images as PNG."""
    if not shutil.which("wrk"):
        print("serving: not measured, for it needs wrk (apt-get install wrk)", file=sys.stderr)
        return []
    seconds, rounds = (2, 1) if quick else (10, 3)
    with tempfile.TemporaryDirectory() as place:
        train(
            "dcgan", MODEL, name="bench", workers="0", storage=f"{place}/runs",
            register="bench", registry=f"{place}/registry",
        )  # fmt: skip
        folder = Path(place, "registry", "models", "bench", "versions", "00001")
        cores = len(os.sched_getaffinity(0))
        alone, rates, latencies = [], [], []
        one = forward_and_encode(folder)
        with server(place, cores) as (port, startup):
            wrk(port, 2, place)  # warm
            for _ in range(rounds):
                rates.append(wrk(port, seconds, place))
                latencies.append(latency(port, 20 if quick else 200))
        for _ in range(rounds):
            alone.append(engines(folder, cores, seconds))
        allowed = [2 * one + 0.003] * rounds
    return [
        Row(
            "samples served (dcgan 64, PNG)", "images/s", statistics.median(rates),
            statistics.median(alone), tuple(a / b for a, b in zip(rates, alone, strict=True)),
            at_least=0.6, note=f"{CLIENTS} clients, {cores} replicas, over as many engines alone",
        ),
        Row(
            "latency of one client", "ms", 1000 * statistics.median(latencies),
            1000 * allowed[0], tuple(a / b for a, b in zip(latencies, allowed, strict=True)),
            at_most=1, note=f"over 2 x forward and encode ({1000 * one:.1f} ms) + 3 ms",
        ),
        Row("from `genimg serve` to the first image", "s", startup, at_most=30),
    ]  # fmt: skip


def forward_and_encode(folder: Path) -> float:
    """Median seconds for one image in this process, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    engine = Engine.load(folder)
    times = []
    for seed in range(60):
        began = time.perf_counter()
        images.encode(engine.sample(1, seed)[0], "png")
        times.append(time.perf_counter() - began)
    torch.set_num_threads(threads)
    return statistics.median(times[10:])


def engines(folder: Path, count: int, seconds: float) -> float:
    """Images a second of `count` processes, each with an engine on one thread and nothing else."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    ready = context.Barrier(count)
    workers = [
        context.Process(target=one_engine, args=(folder, seconds, ready, results))
        for _ in range(count)
    ]
    for worker in workers:
        worker.start()
    total = sum(results.get() for _ in workers)
    for worker in workers:
        worker.join()
    return total


def one_engine(folder: Path, seconds: float, ready: object, results: object) -> None:
    torch.set_num_threads(1)
    engine = Engine.load(folder)
    engine.sample(BATCH)
    ready.wait()  # type: ignore[attr-defined]
    made, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        for image in engine.sample(BATCH, seed=made):
            images.encode(image, "png")
        made += BATCH
    results.put(made / took)  # type: ignore[attr-defined]


@contextmanager
def server(place: str, replicas: int) -> Iterator[tuple[int, float]]:
    """(port, seconds from the start to the first image) of `genimg serve`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.monotonic()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "jobs.serve", "--model=bench", f"--registry={place}/registry",
            f"--port={port}", f"--replicas={replicas}",
        ],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not asked(port):
            assert process.poll() is None, "genimg serve ended"
            time.sleep(0.05)
        yield port, time.monotonic() - began
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def asked(port: int, seed: int = 0) -> bool:
    """Whether an image came."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/images/sample",
        json.dumps({"seed": seed}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bool(answer.read())
    except OSError:
        return False


def latency(port: int, requests: int) -> float:
    """Median seconds of one request after another, on one connection."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port)
    times = []
    for seed in range(requests):
        began = time.perf_counter()
        connection.request(
            "POST", "/v1/images/sample", json.dumps({"seed": seed}),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        answer = connection.getresponse()
        assert answer.read()
        assert answer.status == 200
        times.append(time.perf_counter() - began)
    connection.close()
    return statistics.median(times)


def wrk(port: int, seconds: int, place: str) -> float:
    """Answered requests a second. Raises where one was an error."""
    script = Path(place, "seeds.lua")
    script.write_text(SCRIPT)
    printed = subprocess.run(
        [
            "wrk", "-t1", f"-c{CLIENTS}", f"-d{seconds}s", "-s", str(script),
            f"http://127.0.0.1:{port}",
        ],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "Non-2xx" not in printed, printed
    (line,) = [line for line in printed.splitlines() if "Requests/sec" in line]
    return float(line.split(":")[1])
