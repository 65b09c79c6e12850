"""`genimg serve` as a process of its own, and every process that comes of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml
from live_server import until
from local_s3 import free_port

PATIENCE = 240  # seconds for a start on a busy machine


@dataclass
class RayServer:
    """A running `genimg serve`."""

    process: subprocess.Popen[bytes]  # the leader of a session, in which all of Ray's stay
    url: str
    registry: Path
    log: Path  # its stderr
    key: str = "any"

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.url, timeout=90, headers=headers)

    def processes(self, title: str = "") -> list[int]:
        """Ids of the living processes that came of the server, with `title` in their names."""
        return [pid for pid, name in living(self.process.pid) if title in name]

    def replicas(self, deployment: str) -> list[int]:
        return self.processes(f"ray::ServeReplica:genimg:{deployment}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE)


@contextmanager
def ray_server(
    folder: Path,
    options: list[str] | dict,
    env: dict[str, str] | None = None,
    wait: bool = True,
    host: str = "127.0.0.1",
    key: str = "any",
) -> Iterator[RayServer]:
    """A server of command-line options, or of the `args` of a config file that is written.

    host: on which it listens; key: with which it is asked. Whatever is left of it at the end of the
    block is killed.
    """
    port = free_port()
    if isinstance(options, dict):
        application = {"name": "genimg", "import_path": "serving.deployments:build"}
        content = {"applications": [application | {"args": options}]}
        (folder / "serve.yaml").write_text(yaml.safe_dump(content))
        options = ["--config", str(folder / "serve.yaml")]
    log = folder / f"{port}.log"
    command = [str(Path(sys.executable).with_name("genimg")), "serve"]
    command += ["--port", str(port), "--host", host]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, *options],
            stdout=out,
            stderr=out,
            cwd=folder,
            env=without_ray(os.environ)
            | {"RAY_worker_niceness": "0", "TMPDIR": "/tmp"}
            | (env or {}),
            start_new_session=True,
        )
    server = RayServer(process, f"http://127.0.0.1:{port}", folder / "registry", log, key)
    try:
        if wait:
            until(lambda: "Ctrl-C" in log.read_text() or process.poll() is not None, PATIENCE)
            assert process.poll() is None, log.read_text()
        yield server
    finally:
        process.kill()
        process.wait()
        for pid in server.processes():
            os.kill(pid, signal.SIGKILL)


def without_ray(environment: os._Environ[str]) -> dict[str, str]:
    """Without what Ray and other tests have left in this process's environment."""
    return {key: value for key, value in environment.items() if not key.startswith("RAY_")}


def living(session: int) -> list[tuple[int, str]]:
    """(id, command line) of a session's processes; zombies have ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            name = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append((int(entry.name), name))
    return found


def ended(server: RayServer, patience: float = 30) -> list[tuple[int, str]]:
    """What is left of a server some seconds after it has ended."""
    end = time.monotonic() + patience
    while (left := living(server.process.pid)) and time.monotonic() < end:
        time.sleep(0.1)
    return left
