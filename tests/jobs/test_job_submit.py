"""`ray job submit` to a head of its own, as to a cluster: token authentication, and S3 for all."""

import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from local_s3 import free_port, listens

from cluster.places import open_storage
from cluster.registry import Registry

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Head:
    address: str  # of its dashboard, where jobs are submitted
    environment: dict[str, str]


@pytest.fixture(scope="module")
def head(s3: str) -> Iterator[Head]:
    """A Ray head of 2 CPUs that asks for a token, in a process group of its own."""
    port, dashboard = free_port(), free_port()
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_JOB_STOP_SIGNAL": "SIGINT",
        "RAY_JOB_STOP_WAIT_TIME_S": "30",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    environment.pop("RAY_ADDRESS", None)
    folder = tempfile.mkdtemp(prefix="gh")  # short, for the sockets in it
    with Path(folder, "log").open("w") as log:
        process = subprocess.Popen(
            [
                RAY, "start", "--head", "--block", f"--port={port}", "--num-cpus=2",
                f"--dashboard-port={dashboard}", "--object-store-memory=100000000",
                f"--temp-dir={folder}", f"--ray-client-server-port={free_port()}",
                f"--dashboard-agent-listen-port={free_port()}",  # another cluster may have its own
            ],
            env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        found = Head(f"http://127.0.0.1:{dashboard}", environment)
        end = time.monotonic() + 180
        while not listens(dashboard):  # each `ray` that asks in vain takes seconds of a core
            assert process.poll() is None, Path(folder, "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.2)
        while (ended := submit(found, "true")).returncode != 0:
            assert process.poll() is None, Path(folder, "log").read_text()
            assert time.monotonic() < end, ended.stdout + ended.stderr
            time.sleep(1)
        yield found
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def submit(head: Head, command: str, **changed: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RAY, "job", "submit", f"--address={head.address}", "--", *shlex.split(command)],
        cwd=ROOT, env=head.environment | changed, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_training_is_submitted_and_its_result_read_from_s3(head: Head, tiny, bucket):
    train = (
        f"python -m jobs.train dcgan {shlex.join(tiny['dcgan'])} train.images=64"
        f" train.checkpoint_every=32 --run first --workers 2 --storage {bucket}/runs"
        f" --registry {bucket}/registry --register faces"
    )
    ended = submit(head, train)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "succeeded" in ended.stdout
    version = Registry(open_storage(f"{bucket}/registry")).resolve("faces")
    assert version.lineage["workers"] == 2
    assert version.metrics["swd"] > 0
    assert head.environment["AWS_SECRET_ACCESS_KEY"] not in ended.stdout + ended.stderr


@pytest.mark.slow
def test_a_mistake_ends_the_job_with_one_line(head: Head):
    ended = submit(head, "python -m jobs.train dcgna")
    assert ended.returncode != 0
    assert "unknown recipe 'dcgna'; did you mean 'dcgan'?" in ended.stdout


def test_without_the_token_nothing_is_run(head: Head):
    refused = submit(head, "true", RAY_AUTH_TOKEN=secrets.token_hex(32))
    assert refused.returncode != 0
    assert "oken authentication is enabled" in refused.stderr
