"""Serving over what a user would take instead, LitServe, and over the engine alone; the start.

All servers have the same network, precision, PNG encoder, clients and number of processes. They
are measured in turns, the others stopped meanwhile: LitServe's workers look for requests without a
pause, and machines are faster in one minute than in the next.
"""

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from measuring import Row

from genimg import images
from genimg.engine import Engine
from genimg.operations.drawing import Sample
from genimg.precision import resolved
from jobs.train import train

MODEL = ["data.size=64", "data.holdout=32", "train.images=64", "evaluation.samples=32"]
BATCH = 16  # as the server's
TIMEOUTS = (0.0, 0.005)  # seconds that LitServe waits for a batch to fill; the better counts
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
    rounds = 1 if quick else 3
    with tempfile.TemporaryDirectory() as place:
        train(
            "dcgan", MODEL, name="bench", workers="0", storage=f"{place}/runs",
            register="bench", registry=f"{place}/registry",
        )  # fmt: skip
        best = resolved("auto", torch.device("cpu"))
        rows = []
        for precision in sorted({"float32", best}):
            rows += in_precision(place, precision, rounds, quick, alone=precision == best)
    return rows


def in_precision(place: str, precision: str, rounds: int, quick: bool, alone: bool) -> list[Row]:
    folder = Path(place, "registry", "models", "bench", "versions", "00001")
    cores, seconds, requests = len(os.sched_getaffinity(0)), 2 if quick else 8, 20 if quick else 200
    rates: list[list[float]] = []  # images a second: in each round ours, then LitServe's
    latencies: list[list[float]] = []  # seconds of one client's request, likewise
    shares: list[tuple[float, float]] = []
    with ExitStack() as stack:
        began = time.monotonic()
        servers = [stack.enter_context(server(place, cores, precision))]
        startup = time.monotonic() - began
        for timeout in TIMEOUTS:
            servers[-1].stop()
            servers.append(stack.enter_context(litserve(folder, cores, timeout, precision)))
        servers[-1].stop()
        for _ in range(rounds):
            rates.append([])
            latencies.append([])
            for each in servers:
                with each.going():
                    wrk(each.port, 1, place)  # warm
                    rates[-1].append(wrk(each.port, seconds, place))
                    latencies[-1].append(latency(each.port, requests))
            if alone:
                shares.append((rates[-1][0], engines(folder, cores, seconds, precision)))
    best = 1 + largest(zip(*rates, strict=True))
    quickest = 1 + largest([-value for value in each] for each in zip(*latencies, strict=True))
    rows = [
        against(
            f"samples served (dcgan 64, PNG, {precision})", "images/s",
            [(each[0], each[best]) for each in rates], at_least=1.2,
            note=f"{CLIENTS} clients, {cores} replicas, over LitServe's best of {len(TIMEOUTS)}",
        ),
        against(
            f"latency of one client ({precision})", "ms",
            [(1000 * each[0], 1000 * each[quickest] + 2) for each in latencies], at_most=1.0,
            note="over LitServe's + 2 ms",
        ),
    ]  # fmt: skip
    if alone:
        rows += [
            against(
                f"share of the engines alone ({precision})", "images/s", shares,
                note=f"{cores} replicas over as many engines with nothing else to do",
            ),
            Row("from `genimg serve` to the first image", "s", startup, at_most=10),
        ]  # fmt: skip
    return rows


def largest(values: Iterable[Sequence[float]]) -> int:
    """The place, but for the first, of the values with the largest median."""
    medians = [statistics.median(each) for each in values][1:]
    return medians.index(max(medians))


def against(name: str, unit: str, pairs: list[tuple[float, float]], **demand: Any) -> Row:
    """A row of pairs (ours, baseline)."""
    ours, baseline = (statistics.median(values) for values in zip(*pairs, strict=True))
    return Row(name, unit, ours, baseline, tuple(a / b for a, b in pairs), **demand)


def engines(folder: Path, count: int, seconds: float, precision: str) -> float:
    """Images a second of `count` processes, each with an engine on one thread and nothing else."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    ready = context.Barrier(count)
    workers = [
        context.Process(target=one_engine, args=(folder, seconds, precision, ready, results))
        for _ in range(count)
    ]
    for worker in workers:
        worker.start()
    total = sum(results.get() for _ in workers)
    for worker in workers:
        worker.join()
    return total


def one_engine(
    folder: Path, seconds: float, precision: str, ready: object, results: object
) -> None:
    torch.set_num_threads(1)
    engine = Engine.load(folder, precision=precision)
    engine(Sample(n=BATCH, seed=0))
    ready.wait()  # type: ignore[attr-defined]
    made, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        for image in engine(Sample(n=BATCH, seed=made)).images:
            images.encode(image, "png")
        made += BATCH
    results.put(made / took)  # type: ignore[attr-defined]


class Server:
    """A server that answers at a port, and the processes that it consists of."""

    def __init__(self, running: subprocess.Popen[bytes], port: int) -> None:
        self.running = running
        self.port = port

    @contextmanager
    def going(self) -> Iterator[None]:
        """Stopped before and after."""
        self.go_on()
        try:
            yield
        finally:
            self.stop()

    def stop(self) -> None:
        self._all(signal.SIGSTOP)

    def go_on(self) -> None:
        self._all(signal.SIGCONT)

    def kill(self) -> None:
        """With what it has left behind."""
        if self.running.poll() is None:
            self._all(signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(self.running.pid, signal.SIGKILL)

    def _all(self, sign: int) -> None:
        import psutil  # comes with ray, which jobs.train has imported

        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.running.pid)
            for each in (first, *first.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    each.send_signal(sign)


def server(place: str, replicas: int, precision: str) -> AbstractContextManager[Server]:
    """`genimg serve`."""
    port = free_port()
    command = [
        "-m", "jobs.serve", "--model=bench", f"--registry={place}/registry", f"--port={port}",
        f"--replicas={replicas}", f"--precision={precision}",
    ]  # fmt: skip
    return process(command, port)


def litserve(
    folder: Path, workers: int, timeout: float, precision: str
) -> AbstractContextManager[Server]:
    """A LitServe server with so many workers and API servers."""
    port = free_port()
    script = Path(__file__).with_name("litserve_server.py")
    options = (folder, port, workers, workers, BATCH, timeout, precision)
    return process([str(script), *map(str, options)], port)


@contextmanager
def process(
    arguments: list[str], port: int, answers: Callable[[], bool] | None = None
) -> Iterator[Server]:
    """A server once it answers (draws, if not told how), in a session of its own, ended by
    SIGTERM."""
    running = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    server = Server(running, port)
    try:
        while not (answers() if answers else asked(port)):
            assert running.poll() is None, f"{arguments} ended"
            time.sleep(0.05)
        yield server
    finally:
        server.go_on()
        running.terminate()
        with suppress(subprocess.TimeoutExpired):  # who was stopped for minutes may take long
            running.wait(60)
        server.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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
