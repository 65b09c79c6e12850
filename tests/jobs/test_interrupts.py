"""Ctrl-C while a command begins: never forgotten, whoever catches it."""

import signal
import subprocess
import sys

import pytest

FORGETFUL = """
import os, signal, sys, time
from jobs import interrupts
signal.signal(signal.SIGINT, getattr(signal, sys.argv[2]))
with getattr(interrupts, sys.argv[1])():
    try:  # as some libraries do while they are imported
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
    except BaseException:
        pass
    print("behind it", flush=True)
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)
except KeyboardInterrupt:
    print("as ever")
"""


@pytest.mark.parametrize(
    ("block", "handler", "code", "told"),
    [
        ("ctrl_c_ends", "default_int_handler", -signal.SIGINT, []),
        ("ctrl_c_ends", "SIG_IGN", 0, ["behind it"]),  # in the background of a script
        ("ctrl_c_waits", "default_int_handler", -signal.SIGINT, ["behind it"]),
    ],
)
def test_what_comes_within_a_block_is_not_forgotten(block, handler, code, told):
    done = subprocess.run(
        [sys.executable, "-c", FORGETFUL, block, handler], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.split("\n")[:-1]) == (code, told)


def test_behind_the_block_it_is_what_it_was():
    quiet = FORGETFUL.replace("        os.kill(os.getpid(), signal.SIGINT)\n", "")
    for block in ("ctrl_c_ends", "ctrl_c_waits"):
        done = subprocess.run(
            [sys.executable, "-c", quiet, block, "default_int_handler"],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.split("\n")[:-1] == ["behind it", "as ever"]


def test_the_command_begins_within_such_a_block(tmp_path):
    """An import that catches all: pressed there, nothing goes on."""
    (tmp_path / "typer.py").write_text(
        "import os, signal, time\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(0.1)\n"
        "except BaseException:\n"
        "    pass\n"
        "print('gone on')\n"
    )
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from jobs.start import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "")
