"""The part of the demo that draws, with the generator that comes with genimg."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jobs.console import say

if TYPE_CHECKING:
    from jobs.pages import Section

EACH = 12  # images of a class


def digits_section(output: Path) -> Section:
    """A row of each class, of the same seeds."""
    import torch

    from genimg import images
    from genimg.operations.drawing import Sample
    from genimg.pixels import grid, to_tensor
    from jobs.model import load_engine
    from jobs.pages import Section

    section = Section("Digits: a generator that comes with genimg")
    line = f"genimg sample digits --label 7 -n {EACH} --seed 0 -o sevens.png"
    say(f"$ {line}")
    engine = load_engine("digits", str(output / "registry"))
    rows = [
        to_tensor(engine(Sample(n=EACH, seed=0, label=name)).images)
        for name in engine.abilities["sample"].classes
    ]
    drawn = images.encode(grid(torch.cat(rows), EACH))
    images.write(output / "digits.png", drawn)
    section.command(line)
    section.picture(drawn, f"each class, seeds 0 to {EACH - 1}: a column shares its seed")
    return section
