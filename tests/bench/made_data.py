"""The data that the benchmarks make themselves: procedural scenes, in the forms users bring."""

import struct
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pyarrow import fs
from torch import Tensor

from genimg import images
from genimg.data.captioned import Captioned
from genimg.data.scenes import Scenes, render
from genimg.data.shard_writing import write_shard

MNIST = 60_000  # images
CLASSES = {**Captioned.classes, **Scenes.classes}  # with the words of captions
_DIFFERENT = 6_000  # scenes that are drawn, and then repeated: time depends on the number only


def columns(
    wants: tuple[str, ...], size: int, count: int = MNIST, channels: Literal[1, 3] = 1
) -> dict[str, Tensor]:
    """Columns of `count` scenes, as they are stored."""
    different = np.arange(min(count, _DIFFERENT))
    scenes = (Captioned if "text" in wants else Scenes)(size, channels, wants)
    stored = scenes.fetch(different, torch.from_numpy(different))
    times = -(-count // len(different))
    return {
        name: column.repeat(times, *[1] * (column.dim() - 1))[:count]
        for name, column in stored.items()
    }


def write_idx(folder: Path, count: int = MNIST) -> Path:
    """A folder as MNIST comes: images of 28 x 28 and labels, each in an IDX file."""
    folder.mkdir()
    made = columns(("image", "label"), 28, count)
    pixels, labels = made["image"], made["label"]
    for name, array in (("images-idx3", pixels[:, 0]), ("labels-idx1", labels.to(torch.uint8))):
        header = struct.pack(f">HBB{array.dim()}I", 0, 8, array.dim(), *array.shape)
        (folder / f"train-{name}-ubyte").write_bytes(header + array.numpy().tobytes())
    return folder


def write_shards(
    folder: Path, count: int, size: int, format: Literal["png", "jpeg"], shards: int = 4
) -> Path:
    """A folder of Parquet shards with `count` RGB scenes."""
    folder.mkdir()
    pixels = render(torch.arange(count), size, channels=3).permute(0, 2, 3, 1).numpy()
    for number, part in enumerate(np.array_split(pixels, shards)):
        rows = [
            {"image": images.encode(image, format), "label": 0, "name": f"{i}"}
            for i, image in enumerate(part)
        ]
        write_shard(
            str(folder / f"shard-{number:05d}.parquet"),
            rows,
            columns=("image", "label"),
            classes={"label": ("scene",)},
            broken=[],
            filesystem=fs.LocalFileSystem(),
        )
    return folder
