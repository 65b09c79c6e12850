"""Runs on Ray while they are under way: their checkpoints, and the processes that work on them."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from genimg import checkpoint

STATE = (checkpoint.WEIGHTS, checkpoint.TRAINING)
FIRST = "checkpoints/000000000640/manifest.json"


def newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("[0-9]*"))


def state(run: Path) -> dict[str, bytes]:
    """The newest checkpoint's name, and every tensor that training goes on from."""
    folder = newest(run)
    return {f"{folder.name}/{name}": (folder / name).read_bytes() for name in STATE}


def is_train_worker(process: Any) -> bool:
    return called(process, "RayTrainWorker")


def called(process: Any, name: str) -> bool:
    import psutil

    with suppress(psutil.NoSuchProcess):
        return any(name in word for word in process.cmdline())
    return False
