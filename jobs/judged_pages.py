"""What `evaluate` and `compare` leave in a folder of what a judge says of generators."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.console import say
from jobs.pages import Section
from jobs.tables import Table, as_json, flat

if TYPE_CHECKING:
    import numpy as np

    from genimg.yardsticks import Yardstick
    from jobs.judgements import Judged

GRID = 64  # samples that a page shows, in so many columns:
COLUMNS = 16
OF_A_CLASS = 10  # samples of each class that it shows
MOST_CLASSES = 40  # that it shows
SUSPECTS = 8  # samples that it shows beside training images
BESIDE = 7  # of these, to each
LIMITS = """real: as many training images judged likewise; the authenticity is that of the images \
compared with, and GAN-test and GAN-train are the judge's accuracy on these. noise: each pixel at \
random. repeated: one real image over and over. Of both GAN-test and GAN-train are chance."""


def write(
    folder: Path,
    title: str,
    command: Sequence[str],
    table: Table,
    judged: Sequence[Judged],
    yardstick: Yardstick,
    metrics: Mapping[str, Any],
) -> None:
    """metrics.json, report.md and index.html, whose pictures are inside it."""
    from genimg import images
    from jobs import pages

    folder.mkdir(parents=True, exist_ok=True)
    asked = ["--samples", str(yardstick.samples)]
    if yardstick.learnt_from:
        asked += ["--gan-train", "--gan-images", str(yardstick.learnt_from)]
    line = shlex.join(["genimg", *command, *asked])
    told = "; ".join(f"{name}: {value}" for name, value in flat(metrics["protocol"]).items())
    scores = Section("Scores")
    scores.command(line)
    scores.table(table.head(), table.shown(), table.marked())
    legend = table.legend("bold")
    scores.text(legend)
    limits = LIMITS if "real" in table.columns else LIMITS[LIMITS.index("noise") :]
    scores.text(limits)
    scores.text(told)
    sections = [scores]
    by_class = ""
    for each in judged:
        section = Section(each.name)
        if classes := each.classes(yardstick):
            section.table(classes.head(), classes.rows(), classes.marked())
            by_class += f"\n## {each.name}, by class\n\n{classes.markdown()}\n"
        for picture, caption in pictures(each, yardstick):
            section.picture(images.encode(picture), caption)
        sections.append(section)
    images.write(folder / "metrics.json", f"{as_json(metrics)}\n".encode())
    parts = (f"# {title}", f"    {line}", table.markdown(), legend, limits, f"{told}\n{by_class}")
    markdown = "\n\n".join(parts)
    images.write(folder / "report.md", markdown.encode())
    pages.write(folder / "index.html", title, sections)
    say(f"{folder}: index.html, report.md and metrics.json")


def pictures(judged: Judged, yardstick: Yardstick) -> list[tuple[np.ndarray, str]]:
    """(picture, caption): samples; samples by class; those most like training images."""
    import numpy as np

    from genimg.judging import classes_of, labels_of
    from genimg.pixels import grid, to_tensor
    from genimg.sheets import shelves

    few = judged.images[:GRID]
    found = [(grid(to_tensor(few), COLUMNS), f"{len(few)} samples, seeds 0 to {len(few) - 1}")]
    labels = labels_of(judged.verdict.seen).cpu().numpy()
    stacked = judged.verdict.seen.probabilities.dim() > 2
    classes = classes_of(yardstick.judge, stacked)
    counts = np.bincount(labels, minlength=len(classes))
    most = np.sort(counts.argsort(kind="stable")[::-1][:MOST_CLASSES])  # all, where they are few
    of_each = [judged.images[labels == label][:OF_A_CLASS] for label in most]
    shares = [f"{classes[label]}: {counts[label] / len(labels):.1%}" for label in most]
    found.append((shelves(shares, of_each), "samples that the judge takes for each class"))
    if (nearest := yardstick.nearest(judged.verdict, SUSPECTS, BESIDE)) and judged.verdict.likeness:
        places, beside = nearest
        ratios = judged.verdict.likeness.ratios[places].tolist()
        rows = [
            np.concatenate([judged.images[place][None], real.permute(0, 2, 3, 1).numpy()])
            for place, real in zip(places.tolist(), beside, strict=True)
        ]
        names = [
            f"seed {place}: at {ratio:.2f} of that training image's distance to its nearest other"
            for place, ratio in zip(places.tolist(), ratios, strict=True)
        ]
        found.append((
            shelves(names, rows),
            "the samples that are most like training images, and to each the nearest of these",
        ))  # fmt: skip
    return found
