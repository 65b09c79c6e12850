"""The streamed order of shards: what each worker reads, and how far it is from a full shuffle.

Counted on a simulated set of a million images of 100 kB, in row groups as `genimg prepare` writes
them. The shuffle is judged where it is hardest, on images stored class after class (`genimg
prepare` shuffles them). Baseline: a permutation of the whole set.
"""

import numpy as np
from measuring import Row

from genimg.data.order import StreamedOrder
from genimg.data.shard_writing import GROUP_BYTES

IMAGES, IMAGE_BYTES, CLASSES, BATCH = 1_000_000, 100_000, 10, 256
AT_MOST = 1.1  # of an even share, read by the worker that reads most


def measure(quick: bool) -> list[Row]:
    count = IMAGES // 10 if quick else IMAGES
    size = GROUP_BYTES // IMAGE_BYTES + 1
    rows = np.append(np.full(count // size, size), count % size)
    order = StreamedOrder(rows, rows * IMAGE_BYTES)
    taken = count // BATCH * BATCH
    first, second = (order.locate(np.arange(count) + e * count, 0, BATCH) for e in (0, 1))
    groups = np.searchsorted(order.starts, first[:taken], side="right") - 1
    return [
        *(reading(groups.reshape(-1, BATCH), len(rows), world) for world in (1, 2, 8, 64)),
        *quality(first, second),
    ]


def reading(groups: np.ndarray, total: int, world: int) -> Row:
    """Of row groups [batches, places]: those that the busiest worker reads, over an even share."""
    parts = np.split(groups, np.arange(1, world) * BATCH // world, axis=1)
    read = max(len(np.unique(part)) for part in parts)
    return Row(
        f"order: read by one of {world}",
        "times its share of the set",
        ours=read * world / total,
        at_most=AT_MOST,
        note=f"{read:,} of {total:,} row groups",
    )


def quality(first: np.ndarray, second: np.ndarray) -> list[Row]:
    """Two epochs of the order against two full shuffles."""
    generator = np.random.default_rng(0)
    full = [generator.permutation(len(first)) for _ in range(2)]
    note = f"{CLASSES} classes stored one after the other"
    return [
        against("order: spread of a class's share", f"of batches of {BATCH}",
                spread(first), spread(full[0]), note),
        against("order: neighbours in the shards", "positions apart on average",
                apart(first), apart(full[0]), note),
        Row("order: one epoch and the next", "correlation of positions",
            ours=float(np.corrcoef(inverse(first), inverse(second))[0, 1]),
            baseline=float(np.corrcoef(inverse(full[0]), inverse(full[1]))[0, 1])),
    ]  # fmt: skip


def against(name: str, unit: str, ours: float, baseline: float, note: str) -> Row:
    return Row(name, unit, ours=ours, baseline=baseline, ratios=(ours / baseline,), note=note)


def spread(order: np.ndarray) -> float:
    """Standard deviation over batches of the share that a class has in them."""
    classes = order[: len(order) // BATCH * BATCH].reshape(-1, BATCH) * CLASSES // len(order)
    shares = np.stack([(classes == label).mean(axis=1) for label in range(CLASSES)])
    return float(shares.std(axis=1).mean())


def apart(order: np.ndarray) -> float:
    return float(np.abs(np.diff(inverse(order))).mean())


def inverse(order: np.ndarray) -> np.ndarray:
    """The position of each row."""
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return places
