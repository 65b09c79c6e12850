"""What becomes of memory that a training has freed."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of mallopt, in glibc's malloc.h
_NEVER = 2**31 - 1  # bytes


def keep_freed() -> None:
    """From now on what this process frees of its memory stays its own, for what it takes next.

    A step frees and takes the same hundreds of megabytes as the one before. glibc gives back pieces
    above 32 MB, and the end of its heap, at once; then each step waits for fresh pages, which the
    system clears: up to a sixth of its time. Other C libraries are left as they are, and so are
    GPUs, whose memory PyTorch keeps anyway.
    """
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return
    libc.mallopt(_MMAP_THRESHOLD, _NEVER)
    libc.mallopt(_TRIM_THRESHOLD, _NEVER)
    libc.mallopt(_ARENA_MAX, 1)  # pieces of 64 MB do not fit into those of threads
