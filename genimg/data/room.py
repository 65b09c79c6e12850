"""Whether a set has room in memory, told before an image is decoded."""

from __future__ import annotations

import math
import os
import shlex
from typing import TYPE_CHECKING

import numpy as np

from genimg import images
from genimg.data.columns import COLUMNS
from genimg.data.loading import held_columns
from genimg.data.machine import Memory, this_machines
from genimg.data.order import permutation
from genimg.data.sources import Source
from genimg.errors import InputError
from genimg.rng import seed_from

if TYPE_CHECKING:
    from genimg.recipe import Data

SAMPLE = 256  # images whose headers are read, where whole images are kept
HEADROOM = 0.8  # of the memory that is free, which a set may take; networks need some too
_SIZES = seed_from(0x73697A65)  # seeds which headers are read


def refuse_too_large(
    data: Data,
    wants: tuple[str, ...],
    source: Source,
    copies: int = 1,
    memory: Memory | None = None,
    loading: bool = False,
) -> None:
    """InputError, naming `genimg prepare`, where a set has no room in memory.

    copies: processes on this machine that will each hold the set.
    memory: of this machine, if not given; where it cannot be told, nothing is refused.
    loading: whether others may have begun; then all copies are compared with the memory in total,
    and one with what is available.
    """
    memory = memory or this_machines()
    if memory is None:
        return
    needed = bytes_in_memory(data, wants, source)
    each = min(memory.total / copies, memory.available) if loading else memory.available / copies
    room = int(HEADROOM * each)
    if needed <= room:
        return
    where = "in memory" if copies == 1 else f"in the memory of each of {copies} workers here"
    shards = data.source.rstrip("/") + "-shards"
    command = ["genimg", "prepare", data.source, shards]
    if data.fit != "crop":
        command += ["--size", str(data.size)]
    if data.fit == "pad":
        command += ["--fit", "pad"]
    raise InputError(
        f"{data.source}: its {len(source):,} images take {gigabytes(needed)} {where}, which has"
        f" {gigabytes(room)} for them ({gigabytes(memory.available)} available of"
        f" {gigabytes(memory.total)}); stream them instead: {shlex.join(command)}, then"
        f" --data {shlex.quote(shards)}"
    )


def bytes_in_memory(data: Data, wants: tuple[str, ...], source: Source) -> int:
    """What columns of a source take once it is loaded, and what it holds itself meanwhile.

    Exact, but where random crops are taken of whole images: then twice the standard error above
    the mean of SAMPLE of them, or the sum where there are no more.
    """
    count = len(source)
    columns = [COLUMNS[name] for name in held_columns(source, wants)]
    rows = [(each, math.prod(each.shape(data.size, data.channels))) for each in columns]
    if data.fit != "crop":
        return source.nbytes + count * sum(
            size * np.dtype(each.kind).itemsize for each, size in rows
        )
    beside = sum(size * np.dtype(each.kind).itemsize for each, size in rows if not each.on_grid)
    layers = sum(size for each, size in rows if each.on_grid) // data.size**2  # bytes a pixel
    chosen = permutation(count, _SIZES)[:SAMPLE]
    areas = np.array([area for index in chosen.tolist() if (area := area_of(source, index))])
    if not len(areas):  # none can be read, which is for others to say
        return source.nbytes
    error = areas.std() / len(areas) ** 0.5 if count > len(areas) else 0.0
    return source.nbytes + int(count * (beside + layers * (areas.mean() + 2 * error)))


def area_of(source: Source, index: int) -> int:
    """Pixels of an image; 0 of one whose header cannot be read."""
    try:
        width, height = source.measure(index)
    except images.BrokenImage:
        return 0
    return width * height


def gigabytes(count: float) -> str:
    return f"{count / 1e9:,.3g} GB"


def local_workers() -> int:
    """Workers of this training on this machine, as launchers of torch's tell them."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
