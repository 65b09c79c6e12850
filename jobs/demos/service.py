"""The part of the demo that serves: both models behind HTTP, asked by real clients."""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.console import say

if TYPE_CHECKING:
    from jobs.pages import Section

REQUESTS = 20  # one after the other, for the latency
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine
PATIENCE = 120  # seconds until the server has to be up


def service_section(output: Path) -> Section:
    """Start `genimg serve`, ask for images in both dialects, denoise one, and stop it."""
    from jobs.pages import Section

    section = Section("Served: Ray Serve")
    with server(output) as (address, seconds):
        section.command("genimg serve --model figures@best --model denoiser@best")
        sampled = post(f"{address}/v1/images/sample", {"n": 16, "seed": 0})
        section.command(
            f"curl {address}/v1/images/sample -H 'content-type: application/json' "
            '-d \'{"n": 16, "seed": 0}\' -o samples.png'
        )
        section.picture(sampled, "16 images over HTTP: the same as above, for seeds give images")
        openai(section, address)
        noisy = (output / "noisy.png").read_bytes()
        clean = post(f"{address}/v1/images/denoise?sigma=25", noisy, "image/png")
        section.command(f"curl -F image=@noisy.png {address}/v1/images/denoise -o clean.png")
        section.picture(clean, "noisy.png, denoised over HTTP")
        times = []
        for seed in range(REQUESTS):
            began = time.perf_counter()
            post(f"{address}/v1/images/sample", {"seed": seed})
            times.append(time.perf_counter() - began)
        section.figures({
            "from `genimg serve` to the first answer, s": seconds,
            "median latency of one client, ms": 1000 * statistics.median(times),
        })  # fmt: skip
    (output / "served.png").write_bytes(sampled)
    (output / "denoised.png").write_bytes(clean)
    return section


def openai(section: Section, address: str) -> None:
    """The official client, where it is installed (the `dev` extra brings it)."""
    import base64

    try:
        from openai import OpenAI
    except ImportError:
        section.text("The official openai client is not installed here; pip install openai.")
        return
    client = OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0)
    answer = client.images.generate(
        model="figures@best", prompt="", response_format="b64_json", extra_body={"seed": 7}
    )
    section.command(
        f"client = OpenAI(base_url='{address}/v1', api_key='any')",
        "client.images.generate(model='figures@best', prompt='', response_format='b64_json', "
        "extra_body={'seed': 7})",
    )
    assert answer.data
    section.picture(
        base64.b64decode(answer.data[0].b64_json or ""), "by the official openai client"
    )


@contextmanager
def server(output: Path) -> Iterator[tuple[str, float]]:
    """(address, seconds until it answered) of `genimg serve`; afterwards it has ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.monotonic()
    command = [sys.executable, "-m", "jobs.serve", f"--port={port}"]
    command += ["--model=figures@best", "--model=denoiser@best"]
    others = ("RAY_ADDRESS", "GENIMG_KEYS", "GENIMG_KEYS_FILE")
    environment = {key: value for key, value in os.environ.items() if key not in others}
    environment["GENIMG_REGISTRY"] = str((output / "registry").absolute())
    process = subprocess.Popen(command, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        while not answers(f"{address}/health"):
            if process.poll() is not None or time.monotonic() - began > PATIENCE:
                raise RuntimeError("genimg serve did not come up; its output says why")
            time.sleep(0.1)
        say(f"serving at {address}")
        yield address, time.monotonic() - began
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    try:
        with DIRECT.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def post(url: str, body: dict[str, object] | bytes, kind: str = "application/json") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": kind})
    with DIRECT.open(request, timeout=60) as answer:
        return bytes(answer.read())
