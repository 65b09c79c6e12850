"""Serving over what a user would take instead (LitServe, BentoML), and over the engine alone.

All servers have the same network, precision, PNG encoder, clients and number of processes. They
are measured in turns, the others stopped meanwhile: LitServe's workers look for requests without a
pause, and machines are faster in one minute than in the next.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from clients import CLIENTS, MANY, latencies_at, latency, wrk
from measuring import Row
from servers import BATCH, bentoml, litserve, server

from genimg import images
from genimg.engine import Engine
from genimg.operations.drawing import Sample
from genimg.precision import resolved
from jobs.train import train

MODEL = ["data.size=64", "data.holdout=32", "train.images=64", "evaluation.samples=32"]
TIMEOUTS = (0.0, 0.005)  # seconds that LitServe waits for a batch to fill; the better counts
LATENCIES = (1_000, 10_000)  # ms in which BentoML is to answer, by which it sizes batches; likewise
SOME = 0.8  # of the highest rate, at which latencies are to be steady


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
    rates: list[list[float]] = []  # images a second: in each round ours, then the others'
    latencies: list[list[float]] = []  # seconds of one client's request, likewise
    shares: list[tuple[float, float]] = []
    steady: list[tuple[float, float, float]] = []  # at some of our rate: rate, median, last seconds
    others = {
        "LitServe": [partial(litserve, folder, cores, each, precision) for each in TIMEOUTS],
        "BentoML": [partial(bentoml, folder, cores, each, precision) for each in LATENCIES],
    }
    for name in [name for name in others if not find_spec(name.lower())]:
        print(f"serving: {name} is not measured, for it is not installed", file=sys.stderr)
        del others[name]
    with ExitStack() as stack:
        began = time.monotonic()
        servers = [stack.enter_context(server(place, cores, precision))]
        startup = time.monotonic() - began
        time.sleep(0 if quick else 5)  # in which it tries sizes of passes
        for start in chain(*others.values()):
            servers[-1].stop()
            servers.append(stack.enter_context(start()))
        servers[-1].stop()
        for _ in range(rounds):
            rates.append([])
            latencies.append([])
            for each in servers:
                with each.going():
                    refuses = each is not servers[0]  # as BentoML does
                    wrk(each.port, 1, place, refuses)  # warm
                    rates[-1].append(wrk(each.port, seconds, place, refuses))
                    latencies[-1].append(latency(each.port, requests))
                    if each is servers[0] and alone:
                        rate = SOME * rates[-1][0]
                        steady.append(latencies_at(rate, each.port, seconds, place))
            if alone:
                shares.append((rates[-1][0], engines(folder, cores, seconds, precision)))
    rows: list[Row] = []
    first = 1
    for name, starts in others.items():
        places = range(first, first := first + len(starts))
        best = largest(places, rates)
        quickest = largest(places, [[-value for value in each] for each in latencies])
        rows += [
            against(
                f"samples served (dcgan 64, PNG, {precision}), over {name}", "images/s",
                [(each[0], each[best]) for each in rates], at_least=1.3,
                note=f"{CLIENTS} clients, {cores} replicas, over its best of {len(starts)}",
            ),
            against(
                f"latency of one client ({precision}), over {name}", "ms",
                [(1000 * each[0], 1000 * each[quickest] + 1) for each in latencies],
                at_most=1.0, note="over its own + 1 ms",
            ),
        ]  # fmt: skip
    if alone:
        load = statistics.median(
            each[0] / rate[0] for each, rate in zip(steady, rates, strict=True)
        )
        rows += [
            against(
                f"share of the engines alone ({precision})", "images/s", shares,
                note=f"{cores} replicas over as many engines with nothing else to do",
            ),
            against(
                f"99th percentile of latency over the median ({precision})", "ms",
                [(1000 * last, 1000 * median) for _, median, last in steady], at_most=4.0,
                note=f"{MANY} clients at random times, at {load:.0%} of the highest rate",
            ),
            Row("from `genimg serve` to the first image", "s", startup, at_most=10),
        ]  # fmt: skip
    return rows


def largest(places: Iterable[int], rounds: Sequence[Sequence[float]]) -> int:
    """The place, of some, of the values with the largest median over all rounds."""
    return max(places, key=lambda place: statistics.median(each[place] for each in rounds))


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
