"""Files written as a stream and hashed on the way: one pass, and no copy of what is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_CHUNK = 16 * 2**20  # bytes handed to the system at once
# Names of the format, in the order in which the safetensors library lays tensors out.
_DTYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write(path: Path, data: bytes) -> dict[str, Any]:
    """Write a file; returns its {"size": bytes, "sha256": hex}."""
    return _write(path, iter([data]))


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Write contiguous tensors on the CPU as `safetensors.torch.save_file` does, byte for byte.

    Returns the file's {"size": bytes, "sha256": hex}.
    """
    order = list(_DTYPES)
    names = sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name))
    header: dict[str, Any] = {}
    end = 0
    for name in names:
        start, end = end, end + tensors[name].nbytes
        header[name] = {
            "dtype": _DTYPES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # data start at a multiple of 8

    def parts() -> Iterator[bytes | memoryview]:
        yield len(text).to_bytes(8, "little") + text
        for name in names:
            assert tensors[name].is_contiguous(), f"{name} is not contiguous"
            yield tensors[name].detach().reshape(-1).view(torch.uint8).numpy().data

    return _write(path, parts())


def _write(path: Path, parts: Iterator[bytes | memoryview]) -> dict[str, Any]:
    digest = hashlib.sha256()
    size = 0
    with path.open("wb") as file:
        for part in parts:
            for start in range(0, len(part), _CHUNK):
                chunk = part[start : start + _CHUNK]
                file.write(chunk)
                digest.update(chunk)
            size += len(part)
    return {"size": size, "sha256": digest.hexdigest()}
