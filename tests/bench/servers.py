"""Servers that are measured: ours, and those that a user would take instead."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from clients import asked

BATCH = 16  # as ours


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
        import ray  # noqa: F401  (psutil comes with it)
        import psutil  # isort: skip

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


def bentoml(
    folder: Path, workers: int, latency_ms: int, precision: str
) -> AbstractContextManager[Server]:
    """A BentoML server with so many workers."""
    port = free_port()
    options = {
        "FOLDER": folder, "WORKERS": workers, "BATCH": BATCH, "LATENCY_MS": latency_ms,
        "PRECISION": precision,
    }  # fmt: skip
    environment = {f"BENCH_{key}": str(value) for key, value in options.items()}
    command = [
        "-m", "bentoml", "serve", "bentoml_server:Sampler", "--host=127.0.0.1", f"--port={port}",
        f"--working-dir={Path(__file__).parent}",
    ]  # fmt: skip
    return process(command, port, environment=environment | {"BENTOML_DO_NOT_TRACK": "True"})


@contextmanager
def process(
    arguments: list[str],
    port: int,
    answers: Callable[[], bool] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A server once it answers (draws, if not told how), in a session of its own, ended by
    SIGTERM. environment: more of it"""
    running = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env=os.environ | dict(environment or {}),
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
