"""Peak resident memory of a Ray Train worker's process that trains on an MNIST-sized set.

The kernel keeps the peak itself (VmHWM in /proc), so that reading it now and then misses nothing
but what happens after the last look, a fifth of a second before the process ends.
"""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import made_data
from bench_ray import mnist_sized, on_ray
from measuring import Row

from jobs.runs.folder import RunFolder
from jobs.runs.worker import Job

AT_MOST = 1.5  # GB, of 10^9 bytes
_WORKER = b"RayTrainWorker"  # what Ray Train calls its workers' processes


def measure(quick: bool) -> list[Row]:
    count, trained = (6_000, 256) if quick else (made_data.MNIST, 6_400)
    with tempfile.TemporaryDirectory() as folder:
        data = made_data.write_idx(Path(folder) / "data", count)
        # the second half trains while the checkpoint of the first is being written
        every = f"train.checkpoint_every={trained // 2}"
        recipe = mnist_sized(data, f"train.images={trained}", every)
        job = Job(recipe.model_dump_json(), "run", f"{folder}/runs")
        RunFolder(job.storage, job.run).start(recipe)
        with PeakMemory() as peak:
            on_ray(job, lambda seen, values: None)
    return [
        Row(
            "memory: worker, dcgan",
            "GB",
            ours=peak.bytes / 1e9,
            at_most=AT_MOST,
            note=f"{count:,} images, peak of resident memory",
        )
    ]


class PeakMemory:
    """Within the block, watches the workers of Ray Train that are this process's descendants."""

    def __init__(self) -> None:
        self.bytes = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch, name="memory", daemon=True)

    def __enter__(self) -> "PeakMemory":
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.ended.set()
        self.thread.join()

    def watch(self) -> None:
        while not self.ended.wait(0.2):
            for process in descendants(os.getpid()):
                self.bytes = max(self.bytes, peak_of_worker(process))


def descendants(process: int) -> Iterator[int]:
    """Children, their children, and so on: the local cluster's processes are among them."""
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # it has ended meanwhile
            for child in map(int, thread.read_text().split()):
                yield child
                yield from descendants(child)


def peak_of_worker(process: int) -> int:
    """Bytes; 0 for any other process, or one that has ended."""
    folder = Path(f"/proc/{process}")
    with suppress(OSError):
        if _WORKER in (folder / "cmdline").read_bytes():
            lines = (folder / "status").read_text().splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return 0
