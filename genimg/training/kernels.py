"""Which of their kernels the CUDA libraries take: the fastest, or those that repeat bit for bit."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def kernels(deterministic: bool, device: torch.device) -> Iterator[None]:
    """Within it; afterwards all is as it was. CPUs have but one choice, which repeats.

    Without `deterministic` cuDNN tries its kernels on the shapes at hand and keeps the fastest,
    which need not be the same ones in another process, nor add in the same order each time. With
    it, PyTorch names in a warning any operation that has no kernel that surely repeats.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = not deterministic, deterministic
    try:
        if deterministic:
            with repeating():
                yield
        else:
            yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


@contextmanager
def repeating() -> Iterator[None]:
    """PyTorch's own kernels, and those of cuBLAS, which reads its variable when first used."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    mode = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode, warn_only=only_warned)
