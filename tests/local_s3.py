"""Starting an S3 of our own, and making buckets in it."""

import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3


@contextmanager
def s3_server(*options: str) -> Iterator[str]:
    """The address of an S3 on this machine (see tests/s3_server.py), which ends with the block."""
    port = free_port()
    script = Path(__file__).with_name("s3_server.py")
    process = subprocess.Popen([sys.executable, str(script), str(port), *options])
    try:
        while True:
            assert process.poll() is None, "the S3 server did not start"
            if listens(port):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    """Whether somebody does at a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def new_bucket() -> str:
    name = f"test-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"
