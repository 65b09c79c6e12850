"""Memory that a training has freed serves its next step: no page is asked of the system twice.

Threads that took memory before have places of their own for it, into which not all fits.
"""

import subprocess
import sys

import pytest

# steps that take and free what a step does; the heap has grown to their size before it is counted
CODE = """
import resource, sys
from threading import Thread
import torch
from genimg.training.memory import keep_freed

def step():
    held = [torch.zeros(size, dtype=torch.uint8) for size in (10**6, 2 * 10**7, 4 * 10**7) * 2]
    del held

def steps():
    if sys.argv[1] == "kept":
        keep_freed()
    counts = []
    for _ in range(30):
        step()
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    print((counts[-1] - counts[19]) / 10)

thread = Thread(target=steps)
if sys.argv[2] == "thread":
    thread.start()
    thread.join()
else:
    thread.run()
"""


def faults(how: str, where: str) -> float:
    """Pages that a step waited for, of 4 KB or larger."""
    ended = subprocess.run(
        [sys.executable, "-c", CODE, how, where], capture_output=True, text=True, check=True
    )
    return float(ended.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc is only there")
@pytest.mark.parametrize(("where", "times"), [("main", 20), ("thread", 2)])
def test_what_is_freed_is_taken_again(where: str, times: int):
    given_back = faults("plain", where)
    if given_back < 100:
        pytest.skip("this C library keeps what is freed, or its pages are large")
    assert faults("kept", where) < given_back / times
