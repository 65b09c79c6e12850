"""Workers in processes of their own, forked from one that has imported what all of them need."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import torch.multiprocessing as mp


def gang(work: Callable[[int, Path], None], folder: Path, count: int) -> Path:
    """The folder, where work(rank, folder) of so many processes has ended."""
    multiprocessing.set_forkserver_preload(["torch.distributed.nn", "jobs.runs.worker"])
    mp.start_processes(work, (folder,), nprocs=count, start_method="forkserver")
    return folder
