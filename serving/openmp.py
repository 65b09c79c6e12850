"""Threads of libgomp, of which each thread that computes has its own.

Where all of them outnumber the processors it lets them sleep at the end of each parallel loop and
wakes them for the next, which on two processors makes a large image take a seventh longer. So a
thread that computes no more lets its own go; they come anew with its next loop.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from functools import cache, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")

_SOFT = 1  # omp_pause_soft: what was set stays


def let_threads_go() -> None:
    """End the threads that wait for the calling one's next parallel loop, where it has some."""
    if pause := _pause():
        pause(_SOFT)


def alone(function: Callable[P, T]) -> Callable[P, T]:
    """A function after which the thread that calls it has no others that wait for its loops."""

    @wraps(function)
    def called(*args: P.args, **options: P.kwargs) -> T:
        try:
            return function(*args, **options)
        finally:
            let_threads_go()

    return called


@cache
def _pause() -> Callable[[int], Any] | None:
    """OpenMP's omp_pause_resource_all, in libgomp that of the calling thread's; None without."""
    for file in Path(torch.__file__).with_name("lib").glob("libgomp*.so*"):
        with suppress(OSError, AttributeError):
            # which keeps Python's lock: it takes less time than to come by that again
            function: Callable[[int], Any] = ctypes.PyDLL(str(file)).omp_pause_resource_all
            return function
    return None
