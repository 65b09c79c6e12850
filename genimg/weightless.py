"""Networks without weights: of which shapes they are, and so what their models can do."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_FILTERS = threading.RLock()  # of warnings: they are those of all threads
_NEW = (torch.randn, torch.rand)
_IN_PLACE = (torch.Tensor.normal_, torch.Tensor.uniform_)
_SCALED = (torch.Tensor.div, torch.Tensor.mul)


class _Uninitialised(TorchFunctionMode):
    """Leaves new weights as they are: on `meta` there is nothing to be done to them, but PyTorch
    imports its compiler, a second long, to do it."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _IN_PLACE:
            return args[0]
        if func in _SCALED and isinstance(args[1], float | int):
            return torch.empty_like(args[0])
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return (torch.empty if func in _NEW else func)(*args, **kwargs)


@contextmanager
def weightless() -> Iterator[None]:
    """In it networks are made on `meta`: their weights have shapes, and no memory."""
    with _FILTERS, torch.device("meta"), _Uninitialised(), warnings.catch_warnings():
        # a classifier that knows no classes yet has none in its last layer
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        yield
