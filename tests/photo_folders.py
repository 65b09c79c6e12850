"""A folder of photographs to operate on, and what commands make of it."""

from pathlib import Path

import numpy as np

from genimg import images


def write_photos(folder: Path, count: int = 20) -> None:
    """Images of different sizes, gray and RGB, some in a folder `deeper`."""
    draw = np.random.default_rng(0)
    for number in range(count):
        place = folder / ("deeper" if number % 3 == 0 else "")
        place.mkdir(parents=True, exist_ok=True)
        shape = (int(draw.integers(9, 40)), int(draw.integers(9, 40)), (1, 3)[number % 2])
        images.save(draw.integers(0, 256, shape, dtype=np.uint8), place / f"{number:02d}.png")


def printed(outcome) -> str:
    assert outcome.code == 0, outcome.err
    return outcome.out


def files(folder: Path | str) -> dict[str, bytes]:
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
