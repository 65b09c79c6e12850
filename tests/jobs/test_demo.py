"""The demo as `make demo` runs it: a report with pictures, shapes, and no process left behind."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.demo import GENERATOR

pytestmark = pytest.mark.ray


def of_this_session(session: int) -> list[str]:
    """Command lines of the processes that still run in a session."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                fields = (place / "stat").read_text().rpartition(")")[2].split()
                line = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            state, its_session = fields[0], int(fields[3])
            if its_session == session and state != "Z":
                found.append(line)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_leaves_a_report_and_no_process(tmp_path: Path):
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.demo", "-o", str(tmp_path / "demo")],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "Traceback" not in output
    report = (tmp_path / "demo" / "report.html").read_text()
    assert len(re.findall(r'<img src="data:image/png;base64,', report)) >= 10
    for part in (
        "genimg inpaint",
        "genimg sample digits",
        "genimg sample shapes",
        "genimg sample painter",
        "genimg animate",
        "genimg tune",
        "genimg train",
        "genimg serve",
        "openai client",
    ):
        assert part in output + report
    until = time.monotonic() + 60  # agents of a node that has ended find out by looking
    while (left := [line for line in of_this_session(process.pid) if line]) and (
        time.monotonic() < until
    ):
        time.sleep(0.5)
    assert left == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demos_generator_makes_shapes(tmp_path: Path, command):
    """A classifier of full scenes reads one in most samples, and every one in some.

    Confidence alone says little: this judge is as sure of coloured blobs, but then reads nearly
    all of them as the same two or three shapes.
    """
    places = f"--workers 0 --storage {tmp_path / 'runs'} --registry {tmp_path / 'registry'}"
    values = " ".join(GENERATOR)
    judge = (
        "classifier model.network=plain model.width=16 train.optimizer=adam train.lr=2e-3"
        " train.decay=cosine train.weight_decay=0 train.clip_norm=1 data.translate=0"
        " train.images=100000 train.checkpoint_every=100000"
    )
    for training, name in ((f"dcgan {values}", "figures"), (judge, "judge")):
        ended = command(f"train {training} --data scenes --run {name} --register {name} {places}")
        assert ended.code == 0, ended.err
    ended = command(
        "evaluate figures --data scenes --judge judge --samples 1000 --json "
        f"--registry {tmp_path / 'registry'}"
    )
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["judge_confident_real"] >= 0.97  # else the judge is no judge
    assert found["judge_confident"] >= 0.6
    assert found["judge_smallest_class"] >= 0.03
    assert found["judge_largest_class"] <= 0.4
