"""Threads that wait for loops: they go with `let_threads_go`, and come anew."""

import os
import subprocess
import sys

import pytest

from serving import openmp

COUNTS = """
import os, threading
import torch
from serving.openmp import alone

def threads(): return len(os.listdir("/proc/self/task"))
def loop(): torch.ones(1 << 20).tanh_(); return threads()

def compute():
    before = threads()
    print(loop() - before, alone(loop)() - before, threads() - before, loop() - before)

torch.set_num_threads(3)
thread = threading.Thread(target=compute)
thread.start()
thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads as Linux tells them")
@pytest.mark.skipif(openmp._pause() is None, reason="PyTorch comes without libgomp here")
def test_a_thread_lets_those_go_that_wait_for_its_loops_and_gets_others_for_the_next():
    told = subprocess.run(
        [sys.executable, "-c", COUNTS], capture_output=True, text=True, check=True, env=os.environ
    ).stdout
    assert told.split() == ["2", "2", "0", "2"]


def test_what_is_computed_alone_is_what_would_be_computed():
    assert openmp.alone(divmod)(7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        openmp.alone(divmod)(7, 0)
