"""Checkpoints made small: what inference needs, folded, in half precision, and with a card."""

from __future__ import annotations

import re
from pathlib import Path

from genimg import checkpoint, hashed_files
from genimg.engine import trained
from genimg.errors import InputError
from genimg.models.upscaling import fold
from genimg.training.method import flatten_states

CARD = "card.md"
GIST = 300  # characters of one


def gist(card: str) -> str:
    """What a model does, on a line: the first paragraph of its card, without what is set before it
    (headings, and settings between two `---`).
    """
    text = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    text = re.sub(r"^#.*$", "", text, flags=re.MULTILINE).strip()
    first = " ".join(re.split(r"\n\s*\n", text)[0].split())
    return first if len(first) <= GIST else first[: GIST - 1].rstrip() + "…"


def compact(folder: Path, place: Path, *, half: bool = False, card: str | None = None) -> Path:
    """Make `place` a checkpoint of what inference needs of a verified one; returns it.

    half: weights in float16, branches of a re-parameterised convolution added up, no samples: a
        half to a fifth of the bytes. Weights are rounded to eleven bits; networks compute in the
        precision that they are asked to, as ever.
    card: what people should know of the model, Markdown
    """
    checkpoint.without_training_state(folder, place)
    manifest = checkpoint.read_manifest(place)
    files, lineage = dict(manifest.files), dict(manifest.lineage)
    if half:
        _, networks = trained(folder, "cpu", verified=True)
        for network in networks.values():
            fold(network)
        tensors = {
            name: each.half() if each.is_floating_point() else each
            for name, each in flatten_states(networks).items()
        }
        for name, each in tensors.items():
            if each.is_floating_point() and not each.isfinite().all():
                raise InputError(
                    f"{folder / checkpoint.WEIGHTS}: {name} has values beyond float16's 65504;"
                    " register it without --half"
                )
        for name in (checkpoint.WEIGHTS, checkpoint.SAMPLES):
            (place / name).unlink(missing_ok=True)  # a link to the original: not to be written to
            files.pop(name, None)
        files[checkpoint.WEIGHTS] = hashed_files.write_tensors(place / checkpoint.WEIGHTS, tensors)
        lineage["weights"] = "float16, folded"
    if card is not None:
        (place / CARD).unlink(missing_ok=True)  # likewise
        files[CARD] = hashed_files.write(place / CARD, card.encode())
    (place / checkpoint.MANIFEST).write_text(
        checkpoint.Manifest(checkpoint.FORMAT, files, lineage).text()
    )
    return place
