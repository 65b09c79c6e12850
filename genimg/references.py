"""What judges saw in real images, kept on this machine: real images are looked at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from genimg.contracts import Sync
from genimg.data.remote import cache_home
from genimg.hashed_files import write_tensors
from genimg.training.sync import Alone

RULE = 2  # raise it with every change of what is computed: nothing kept before counts any longer


def kept(
    about: Mapping[str, Any],
    compute: Callable[[], dict[str, Tensor]],
    device: torch.device,
    sync: Sync | None = None,
) -> dict[str, Tensor]:
    """compute(), or what it gave before for an equal `about`, from beneath GENIMG_CACHE.

    about: everything that decides it, as JSON; with an empty `digest`, of a judge that is of no
        folder, nothing is kept
    sync:  where several workers compute, all take what is kept, or none does

    A file that is damaged, or cannot be written, costs the time of computing anew.
    """
    sync = sync or Alone()
    path = place(about)
    found = _read(path, device) if path else None
    everywhere = sync.gather(torch.tensor([int(found is not None)], device=device))
    if found is not None and bool(everywhere.all()):
        return found
    made = dict(sorted(compute().items()))  # as they are read
    if path:
        _write(path, made)
    return made


def place(about: Mapping[str, Any]) -> Path | None:
    """Where what is decided by this is kept; None: nowhere."""
    if not about["digest"]:
        return None
    text = json.dumps({**about, "rule": RULE, "torch": torch.__version__}, sort_keys=True)
    return cache_home() / "judged" / f"{hashlib.sha256(text.encode()).hexdigest()}.safetensors"


def _read(path: Path, device: torch.device) -> dict[str, Tensor] | None:
    try:
        return {name: each.to(device) for name, each in load_file(path).items()}
    except (OSError, SafetensorError):
        return None


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    part = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(part, {name: each.cpu().contiguous() for name, each in tensors.items()})
        part.replace(path)
    except OSError:  # a full disk, or one that is read only
        with suppress(OSError):
            part.unlink(missing_ok=True)
