"""The demo as `make demo` runs it: a report with pictures, and no process left behind."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
    assert len(re.findall(r'<img src="data:image/png;base64,', report)) >= 9
    for part in ("genimg tune", "genimg train", "genimg serve", "openai client"):
        assert part in output + report
    left = [line for line in of_this_session(process.pid) if line]
    assert left == []
