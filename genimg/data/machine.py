"""How much memory this process may have: of the machine, or of the container that it is in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Memory:
    """Of this machine, or of the container that the process is in: bytes."""

    total: int
    available: int


def this_machines(root: Path = Path("/")) -> Memory | None:
    """Memory that this process may have: the machine's, or less where control groups say so.

    None where that cannot be told. `root` is where /proc and /sys are.
    """
    found = list(limits(root))
    if not found:
        return None
    return Memory(min(memory.total for memory in found), min(memory.available for memory in found))


def limits(root: Path) -> Iterator[Memory]:
    """What the kernel says of the machine, and of each control group around this process."""
    with suppress(OSError, ValueError, KeyError):
        lines = (root / "proc/meminfo").read_text().splitlines()
        told = {name: int(value.split()[0]) for name, _, value in (s.partition(":") for s in lines)}
        yield Memory(1024 * told["MemTotal"], 1024 * told["MemAvailable"])
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            version = {"memory": VERSION_1, "": VERSION_2}.get(controllers)
            if version:
                for group in (Path(path), *Path(path).parents):
                    yield from limit(root / version.folder / str(group).lstrip("/"), version)


@dataclass(frozen=True)
class Controller:
    """What the files of a version of Linux's control groups are called."""

    folder: str
    limit: str
    used: str
    reclaimable: str  # in memory.stat: pages of files that are not in use


VERSION_1 = Controller(
    "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
)
VERSION_2 = Controller("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")


def limit(folder: Path, files: Controller) -> Iterator[Memory]:
    """A control group's limit, if it has one."""
    with suppress(OSError, ValueError):  # `max`, or not there
        total = int((folder / files.limit).read_text())
        if total >= 1 << 60:  # version 1's way to say that there is none
            return
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        taken = int((folder / files.used).read_text()) - int(stat.get(files.reclaimable, 0))
        yield Memory(total, max(total - taken, 0))
