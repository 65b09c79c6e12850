"""The parts of the demo that draw, with the generators that come with genimg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genimg.data.grids import FRAMES
from jobs.console import say
from jobs.model import load_engine
from jobs.pages import Section

if TYPE_CHECKING:
    from genimg.engine import Engine

EACH = 12  # images of a class, or of a text
TEXTS = (
    "a red striped star left of a yellow disc",
    "three green crosses",
    "a purple heart above a cyan triangle",
)
GIVEN = 10  # frames, by which the others are predicted
CLIPS = 6
SEED = 1  # of the scenes that move; models learn from those of 0


def drawn_sections(output: Path) -> list[Section]:
    return [classes_section(output), texts_section(output), clip_section(output)]


def classes_section(output: Path) -> Section:
    """Of each model a row of each class, of the same seeds."""
    section = Section("Classes: generators that come with genimg")
    for model, asked, name in (("digits", "7", "sevens"), ("shapes", "star", "stars")):
        line = f"genimg sample {model} --label {asked} -n {EACH} --seed 0 -o {name}.png"
        engine = load_engine(model, str(output / "registry"))
        labels = [{"label": each} for each in engine.abilities["sample"].classes]
        add_rows(section, output / f"{model}.png", engine, line, labels)
    section.text(f"Each class, seeds 0 to {EACH - 1}: a column shares its seed.")
    return section


def texts_section(output: Path) -> Section:
    """A row of each text."""
    section = Section("Words: a generator that draws what a text says")
    line = f'genimg sample painter --text "{TEXTS[0]}" -n {EACH} --seed 0 -o painted.png'
    engine = load_engine("painter", str(output / "registry"))
    add_rows(section, output / "painter.png", engine, line, [{"text": text} for text in TEXTS])
    section.text("From above: " + "; ".join(TEXTS) + ".")
    return section


def add_rows(
    section: Section, file: Path, engine: Engine, line: str, asked: Sequence[Mapping[str, Any]]
) -> None:
    """Add images of seeds 0 and up, a row for each way of asking."""
    import torch

    from genimg import images
    from genimg.operations.drawing import Sample
    from genimg.pixels import grid, to_tensor

    say(f"$ {line}")
    rows = [to_tensor(engine(Sample(n=EACH, seed=0, **each)).images) for each in asked]
    drawn = images.encode(grid(torch.cat(rows), EACH))
    images.write(file, drawn)
    section.command(line)
    section.picture(drawn, f"images of {file.stem}")


def clip_section(output: Path) -> Section:
    """Scenes that move, and what follows beside what is predicted."""
    import numpy as np

    from genimg.data.scenes import Scenes
    from genimg.moving import encode
    from genimg.operations.moving import Animate

    section = Section("Frames: what follows, by a model that comes with genimg")
    line = f"genimg animate clip.webp --frames {FRAMES - GIVEN} -o longer.webp -m mover"
    say(f"$ {line}")
    engine = load_engine("mover", str(output / "registry"))
    moving = Scenes(32, 3, ("frames",), seed=SEED)
    clips, longer = [], []
    for index in range(CLIPS):
        planes = moving.whole(index)["frames"]
        frames = planes.view(FRAMES, 3, 32, 32).permute(0, 2, 3, 1).contiguous().numpy()
        clips.append(frames)
        made = engine(Animate(frames=FRAMES - GIVEN), image=list(frames[:GIVEN]))
        longer.append(made.images)
    (output / "clip.webp").write_bytes(encode(clips[0][:GIVEN]))
    (output / "longer.webp").write_bytes(encode(longer[0]))
    rows = [np.concatenate(each, axis=2) for each in (clips, longer)]
    both = np.concatenate(rows, axis=1).repeat(3, axis=1).repeat(3, axis=2)
    section.command(line)
    section.picture(
        encode(both),
        f"above what came, below {GIVEN} frames and what was predicted of them",
        "webp",
    )
    return section
