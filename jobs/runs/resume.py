"""Where a run goes on: its newest whole checkpoint, read once and handed to all workers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from genimg import checkpoint
from genimg.contracts import Sync
from genimg.errors import InputError
from genimg.training.method import Method, Snapshot
from genimg.training.transfer import announce, restore_everywhere
from jobs.runs.folder import History, RunFolder


@dataclass(frozen=True)
class Past:
    """What a run has behind it at the checkpoint from which it goes on."""

    history: History = field(default_factory=list)
    earlier_data: tuple[dict[str, Any], ...] = ()  # {"fingerprint", "until": images seen}


def resume(
    method: Method,
    folder: RunFolder,
    sync: Sync,
    warn: Callable[[str], None],
    *,
    fingerprint: str,
    changed_data: bool = False,
) -> Past:
    """Bring the method to the newest whole checkpoint, if any.

    Rank 0 chooses, verifies and reads it; the others get its state from there. Raises InputError
    on all workers where the data (of this `fingerprint`) are not those of the checkpoint, unless
    they may have changed.
    """
    with tempfile.TemporaryDirectory(prefix="genimg-") as scratch:
        place = newest(folder, Path(scratch), warn) if sync.rank == 0 else None
        chosen = checkpoint.read_manifest(place).lineage if place else None
        lineage = announce(chosen, sync, method.device)
        if lineage is None:
            return Past()
        before, seen = lineage["data"]["fingerprint"], lineage["seen"]
        earlier = lineage["data"].get("earlier", [])
        if agree(before != fingerprint, sync, method.device):
            if not changed_data:
                raise InputError(
                    f"run {folder.name!r}: the data changed since its checkpoint at {seen:,} "
                    f"images ({abbreviate(before)}, now {abbreviate(fingerprint)}), so it may be "
                    "evaluated on images that it was trained on; restore the data, give another "
                    "--run, or give --changed-data to go on regardless"
                )
            earlier = [*earlier, {"fingerprint": before, "until": seen}]
        progress = restore_everywhere(method, read_snapshot(place) if place else None, sync)
    history = [(at, metrics) for at, metrics in progress["history"]]
    return Past(history, tuple(earlier))


def newest(folder: RunFolder, scratch: Path, warn: Callable[[str], None]) -> Path | None:
    """The newest checkpoint of which every byte is as it was written, on this machine."""
    for seen in reversed(folder.checkpoints()):
        try:
            return folder.fetch(seen, scratch)
        except InputError as error:
            warn(f"passed over a damaged checkpoint: {error}")
    return None


def read_snapshot(place: Path) -> Snapshot:
    """The state in a checkpoint folder; its tensors stay in the files until they are looked at."""
    return Snapshot(
        checkpoint.read_tensors(place, checkpoint.WEIGHTS),
        checkpoint.read_tensors(place, checkpoint.TRAINING),
        checkpoint.read_json(place, checkpoint.PROGRESS),
    )


def agree(wish: bool, sync: Sync, device: torch.device) -> bool:
    """Whether any worker wishes so; all must ask in step."""
    return bool(sync.gather(torch.tensor([wish], device=device)).any())


def abbreviate(fingerprint: str) -> str:
    return f"fingerprint {fingerprint[:12]}"
