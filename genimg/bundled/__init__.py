"""The models that come with genimg: a registry, to be read, that names fall back on.

    models/NAME/versions/00001/    as in any registry, with card.md: data, licence, figures, limits

They were registered by `genimg models register NAME CHECKPOINT --half --card CARD --registry
genimg/bundled`.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
_MODELS = {each: each for each in ("denoise", "deblock", "inpaint", "restore")} | {
    "animate": "mover",
    "stylise": "stylise",
    "translate": "masks-to-scenes",
}


def names() -> list[str]:
    """Of the models that are here, sorted."""
    return sorted(each.name for each in (FOLDER / "models").glob("*"))


def newest(name: str) -> int:
    """The number of a model's newest version here; 0: there is none."""
    versions = (FOLDER / "models" / name / "versions").glob("*")
    return max((int(each.name) for each in versions if each.name.isdecimal()), default=0)


def model_for(operation: str, scale: int | None = None) -> str | None:
    """The model that does an operation where none is named; None where there is none."""
    if operation == "upscale":
        return f"upscale-x{scale or 2}" if scale in (None, 2, 4) else None
    return _MODELS.get(operation)
