"""The loader over Parquet shards against reading and decoding the same files, and nothing else.

The baseline goes through the files in order: pyarrow reads a row group, Pillow decodes its images
into arrays, with as many threads as the shards use. Ours also shuffles, seeds, checks, fits,
stacks, and converts to floats.
"""

import io
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import made_data
import numpy as np
import pyarrow.parquet as pq
import torch
from measuring import Row, compared, rate
from PIL import Image

from genimg.data.loader import Loader
from genimg.data.parquet import Shards

SIZE = 64
BATCH = 64
AT_LEAST = 0.8


def measure(quick: bool) -> list[Row]:
    count = 512 if quick else 8_192
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for format in ("png", "jpeg"):
            shards = made_data.write_shards(Path(folder) / format, count, SIZE, format)
            rows.append(
                compared(
                    f"parquet: {format}",
                    "images/s",
                    lambda shards=shards: loaded(shards, count),
                    lambda shards=shards: rate(lambda: read_and_decode(shards), count),
                    rounds=3 if quick else 7,
                    at_least=AT_LEAST,
                    note=f"{SIZE} x {SIZE} x 3, {threads()} decoding threads",
                )
            )
    return rows


def threads() -> int:
    """As many as genimg.data.parquet takes."""
    return min(16, os.cpu_count() or 1)


def loaded(folder: Path, count: int) -> float:
    """Images/s of the loader, with nothing in the cache at first.

    From the first batch on, so that as many are prepared ahead at the end as in the beginning.
    """
    shards = Shards(str(folder), channels=3, size=SIZE, fit="resize", tolerate_broken=0)
    loader = Loader(
        shards,
        batch_size=BATCH,
        seed=0,
        device=torch.device("cpu"),
        augment=lambda stored, keys, seen: stored,
    )
    with closing(iter(loader)) as batches:
        for _ in range(loader.at_once):  # those that came in one go
            next(batches)
        steps = count // BATCH // loader.at_once * loader.at_once

        def more() -> None:
            for _ in range(steps):
                assert next(batches).rows["image"].shape == (BATCH, 3, SIZE, SIZE)

        return rate(more, steps * BATCH)


def read_and_decode(folder: Path) -> None:
    with ThreadPoolExecutor(threads()) as pool:
        for path in sorted(folder.glob("*.parquet")):
            file = pq.ParquetFile(path)
            for group in range(file.num_row_groups):
                column = file.read_row_group(group, columns=["image", "label"])["image"]
                for image in pool.map(decoded, column.to_pylist(), chunksize=16):
                    assert image.shape == (SIZE, SIZE, 3)


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
