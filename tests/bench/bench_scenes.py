"""How fast procedural scenes are drawn on one core, in batches as training asks for them."""

from statistics import median

import torch
from measuring import Row, rate

from genimg.data.scenes import render

BATCH = 64
AT_LEAST = 3_000  # images a second and core, at 32 pixels: faster than small networks train


def measure(quick: bool) -> list[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [drawing(32, AT_LEAST, quick), drawing(64, None, quick)]
    finally:
        torch.set_num_threads(threads)


def drawing(size: int, at_least: float | None, quick: bool) -> Row:
    batches = 2 if quick else 50
    keys = torch.arange(batches * BATCH).split(BATCH)

    def draw() -> None:
        for part in keys:
            render(part, size, channels=3)

    draw()
    figures = [rate(draw, batches * BATCH) for _ in range(3 if quick else 7)]
    return Row(
        f"scenes: {size} x {size} x 3",
        "images/s",
        ours=median(figures),
        at_least=at_least,
        note=f"1 thread, batches of {BATCH}",
    )
