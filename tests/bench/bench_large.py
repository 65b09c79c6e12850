"""Restoring over HTTP: large images, small ones behind them, and the memory that both take."""

from __future__ import annotations

import http.client
import itertools
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import torch
from bench_memory import descendants
from measuring import Row
from servers import Server, free_port, process

from genimg import images
from genimg.data.scenes import render
from genimg.engine import Engine
from genimg.operations.restoring import Denoise
from jobs.train import train

MODEL = ["data.holdout=32", "train.images=64", "evaluation.images=4"]
THUMBNAIL, PHOTO = 64, 1024  # pixels a side
CLIENTS = 4
GRAIN = 22.0  # standard deviation of a photo's noise, of 255
MOST_MEMORY = 2.0  # GB, of 10^9 bytes
_REPLICA = b"ServeReplica"  # what Ray Serve calls its replicas' processes


def measure(quick: bool) -> list[Row]:
    """The default denoiser (hardly trained, which computes as long) in one replica, which has all
    cores."""
    large, huge = (1_500, 1_500) if quick else (8_000, 10_000)
    photo = (300, 400) if quick else (3_000, 4_000)
    with tempfile.TemporaryDirectory() as place:
        train(
            "ffdnet", MODEL, name="bench", workers="0", storage=f"{place}/runs",
            register="bench", registry=f"{place}/registry",
        )  # fmt: skip
        folder = Path(place, "registry", "models", "bench", "versions", "00001")
        with server(place) as running:
            rows = [
                throughput(running, folder, scene(PHOTO), "png", 4 if quick else 8, 0.85),
                throughput(running, folder, grainy(*photo), "jpeg", 2, 0.9, rounds=3),
                behind_a_large_one(running, large, 5 if quick else 30),
                memory(running, huge),
            ]
    return rows


def throughput(
    running: Server,
    folder: Path,
    photo: np.ndarray,
    format: images.Format,
    count: int,
    at_least: float,
    rounds: int = 5,
) -> Row:
    """Megapixels of photos, by clients that always wait for one, over the engine with as many
    threads and nothing else to do."""
    engine = Engine.load(folder, precision="auto")
    data = images.encode(photo, format)
    height, width = photo.shape[:2]
    clients, megapixels = min(CLIENTS, count), height * width / 1e6
    pairs = []
    for _ in range(rounds):
        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as asking:
            list(asking.map(lambda _: restored(running.port, data), range(count)))
        ours = count * megapixels / (time.perf_counter() - began)
        with stopped(running):
            began = time.perf_counter()
            for _ in range(count // 2):
                engine(Denoise(sigma=25), image=photo)
            alone = count // 2 * megapixels / (time.perf_counter() - began)
        pairs.append((ours, alone))
    ours, alone = (statistics.median(values) for values in zip(*pairs, strict=True))
    return Row(
        f"restored over HTTP (ffdnet, {format.upper()} of {len(data) / 1e6:.1f} MB)",
        "megapixels/s", ours, alone, tuple(a / b for a, b in pairs), at_least=at_least,
        note=f"{width} x {height}, {clients} clients, one replica, over its engine alone",
    )  # fmt: skip


def behind_a_large_one(running: Server, side: int, count: int) -> Row:
    """A thumbnail's latency while a large image is being restored, over that on an idle server."""
    thumbnail, large = images.encode(scene(THUMBNAIL)), images.encode(noise(side), "jpeg")
    idle = latencies(running.port, thumbnail, count)
    gone = threading.Event()

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", running.port)
        connection.request("POST", "/v1/images/denoise?sigma=25", large, {})
        gone.wait()  # nobody waits for the answer: it is computed no further
        connection.close()

    thread = threading.Thread(target=ask, name="large")
    thread.start()
    time.sleep(side**2 / 16e6)  # until it has been decoded
    busy = latencies(running.port, thumbnail, count)
    gone.set()
    thread.join()
    return Row(
        f"thumbnail behind {side**2 / 1e6:.0f} megapixels", "ms",
        1000 * statistics.median(busy), 1000 * statistics.median(idle),
        tuple(b / statistics.median(idle) for b in sorted(busy)), at_most=3.0,
        note=f"median; the slowest {1000 * max(busy):.0f} ms; over that of an idle server",
    )  # fmt: skip


def memory(running: Server, side: int) -> Row:
    """The replica's peak while it restores a huge image."""
    restored(running.port, images.encode(noise(side), "jpeg"), timeout=3600)
    return Row(
        f"memory: replica, {side**2 / 1e6:.0f} megapixels", "GB", peak(running) / 1e9,
        at_most=MOST_MEMORY, note="peak of resident memory, ffdnet",
    )  # fmt: skip


def server(place: str) -> AbstractContextManager[Server]:
    """`genimg serve` of the denoiser, which takes huge images."""
    port = free_port()
    config = Path(place, "server.yaml")
    config.write_text(
        f"""
        applications:
        - args:
            registry: {place}/registry
            models: [{{ref: bench}}]
            ingress: {{num_cpus: {torch.get_num_threads()}}}
            limits: {{max_pixels: 110000000, max_bytes: 200000000, timeout_s: 3600}}
        """
    )
    command = ["-m", "jobs.serve", f"--config={config}", f"--port={port}"]
    data = images.encode(scene(THUMBNAIL))
    return process(command, port, answers=lambda: bool(restored(port, data, patient=False)))


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """Within the block the cores are ours."""
    server.stop()
    try:
        yield
    finally:
        server.go_on()


def restored(port: int, data: bytes, timeout: float = 600, patient: bool = True) -> bytes:
    """The answer; empty where there is no image, which is an error if one is `patient`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", "/v1/images/denoise?sigma=25", data, {})
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200 or not patient, body
        return body if answer.status == 200 else b""
    except OSError:
        if patient:
            raise
        return b""
    finally:
        connection.close()


def latencies(port: int, data: bytes, count: int) -> Sequence[float]:
    """Seconds of one request after another."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        restored(port, data)
        times.append(time.perf_counter() - began)
    return times


def scene(side: int) -> np.ndarray:
    return render(torch.arange(1), side, channels=3)[0].permute(1, 2, 0).numpy()


def grainy(height: int, width: int) -> np.ndarray:
    """A scene that repeats, with grain: about 8 MB of 12 megapixels as JPEG."""
    grain = np.random.default_rng(0).normal(0, GRAIN, (height, width, 1))
    return (noise(max(height, width))[:height, :width] + grain).clip(0, 255).astype(np.uint8)


def noise(side: int) -> np.ndarray:
    """A scene that repeats: drawing one of that size would take longer than restoring it."""
    tile = scene(500)
    times = -(-side // len(tile))
    return np.tile(tile, (times, times, 1))[:side, :side]


def peak(running: Server) -> int:
    """Bytes that a replica's process ever had in memory."""
    most = 0
    for number in itertools.chain([running.running.pid], descendants(running.running.pid)):
        folder = Path(f"/proc/{number}")
        try:
            if _REPLICA in (folder / "cmdline").read_bytes():
                lines = (folder / "status").read_text().splitlines()
                told = next(line for line in lines if line.startswith("VmHWM:"))
                most = max(most, int(told.split()[1]) * 1024)
        except OSError:
            continue
    return most
