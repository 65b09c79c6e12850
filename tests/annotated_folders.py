"""Folders of images with all that may lie beside them; sources as shards."""

import json
from pathlib import Path

import numpy as np
from pyarrow import fs

from genimg import images, masks
from genimg.contracts import UNKNOWN
from genimg.data.shard_writing import write_shard

ALL = ("image", "target", "mask", "label", "text", "boxes")
NAMES = ("background", "cat", "dog")


def picture(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def coco(sides: dict[str, tuple[int, int]]) -> str:
    """Two boxes in each second image; ids are not in order, and one annotation is a crowd."""
    listed = [{"id": 7 * n, "file_name": name} for n, name in enumerate(sides)]
    told = []
    for n, (height, width) in enumerate(sides.values()):
        if n % 2 == 0:
            told.append({"image_id": 7 * n, "category_id": 9, "bbox": [1, 2, width / 2, 5.5]})
            told.append({"image_id": 7 * n, "category_id": 3, "bbox": [0, 0, 4, height - 1]})
        told.append({"image_id": 7 * n, "category_id": 3, "bbox": [0, 0, 1, 1], "iscrowd": 1})
    kinds = [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}]
    return json.dumps({"images": listed, "annotations": told, "categories": kinds})


def annotated(root: Path, count: int = 9, least: int = 17) -> Path:
    """images/ and masks/ of several sizes, with captions, boxes and names of classes."""
    generator = np.random.default_rng(1)
    sides = {f"{n}.png": tuple(generator.integers(least, 40, 2).tolist()) for n in range(count)}
    for n, (name, side) in enumerate(sides.items()):
        write(root / "images" / name, images.encode(picture(n, *side)))
        classes = generator.integers(0, 3, (*side, 1), np.uint8)
        classes[0, 0] = UNKNOWN
        write(root / "masks" / name, masks.encode(classes))
    lines = [json.dumps({"file_name": name, "text": f"№ {name}"}) for name in sides]
    write(root / "captions.jsonl", "\n".join(reversed(lines)).encode())
    write(root / "annotations.json", coco(sides).encode())
    write(root / "classes.txt", "\n".join(NAMES).encode())
    return root


def pairs(root: Path, count: int = 6) -> Path:
    """input/ and target/ in class folders."""
    for n in range(count):
        name = f"{'ab'[n % 2]}/{n}"
        write(root / "input" / f"{name}.png", images.encode(picture(n, 20 + n, 22)))
        write(root / "target" / f"{name}.webp", images.encode(picture(99 - n, 20 + n, 22), "webp"))
    return root


def sharded(source, path: Path) -> Path:
    """A source's columns as a shard."""
    rows = [
        {"name": name} | {column: source.encoded(n, column) for column in source.columns}
        for n, name in enumerate(source.names)
    ]
    write_shard(
        str(path),
        rows,
        columns=source.columns,
        classes=source.classes,
        broken=[],
        filesystem=fs.LocalFileSystem(),
    )
    return path
