"""A method's state handed from the first worker to all others, which need not read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from genimg.contracts import Sync
from genimg.training.method import Method, Snapshot, flatten_states
from genimg.training.optimizers import Muon


def announce(plain: Any, sync: Sync, device: torch.device) -> Any:
    """What rank 0 gives (values that JSON knows), on every worker; the others' is not looked at."""
    data = json.dumps(plain).encode() if sync.rank == 0 else b""
    length = torch.tensor([len(data)], device=device)
    sync.broadcast([length])
    text = torch.zeros(int(length), dtype=torch.uint8, device=device)
    if sync.rank == 0:
        text = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(device)
    sync.broadcast([text])
    return json.loads(bytes(text.cpu().numpy()))


def restore_everywhere(method: Method, snapshot: Snapshot | None, sync: Sync) -> dict[str, Any]:
    """Continue on all workers from the snapshot that rank 0 has; returns its progress.

    The tensors are handed on from where rank 0 trains with them to where the others do, in
    buckets: nobody holds a second copy of the state.
    """
    told: tuple[dict[str, Any], ...] | None = None
    if snapshot:
        told = (outline(snapshot.weights), outline(snapshot.training), snapshot.progress)
    weights, training, progress = announce(told, sync, method.device)
    method.restore(snapshot or Snapshot(hollow(weights), hollow(training), progress))
    sync.broadcast(held(method))
    return progress


def agree(method: Method, sync: Sync) -> None:
    """Let all workers go on from what rank 0 holds, where steps are not bit for bit the same.

    Muon multiplies matrices, which processors of different kinds do with different rounding; all
    other optimizers compute number by number from gradients that all workers share.
    """
    if sync.world > 1 and any(isinstance(each, Muon) for each in method.optimizers.values()):
        sync.broadcast(held(method))


def outline(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Dtypes and shapes, as JSON can tell them."""
    return {k: (str(t.dtype).removeprefix("torch."), list(t.shape)) for k, t in tensors.items()}


def hollow(outlines: dict[str, Any]) -> dict[str, Tensor]:
    """Zeros of these dtypes and shapes that take no memory, for a method to lay out its state."""
    return {
        name: torch.zeros((), dtype=getattr(torch, dtype)).expand(shape)
        for name, (dtype, shape) in outlines.items()
    }


def held(method: Method) -> Iterator[Tensor]:
    """The very tensors of a method's state, in the same order on every worker."""
    yield from flatten_states(method.networks).values()
    yield from flatten_states(method.averages).values()
    yield from method.state.values()
    for optimizer in method.optimizers.values():
        for moments in optimizer.state_dict()["state"].values():
            yield from moments.values()
