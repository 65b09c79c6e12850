"""Every operation. A new one is a class, a line here, and an ability of the recipes that can."""

from collections.abc import Iterable

from genimg.operations.drawing import Decode, Interpolate, Sample
from genimg.operations.exploring import Mix, Traverse, Vary
from genimg.operations.moving import Animate
from genimg.operations.operation import DRAWN, Kind, Operation
from genimg.operations.reading import Classify, Encode, Invert, Reconstruct
from genimg.operations.restoring import (
    AnySize,
    Colourise,
    Deblock,
    Deblur,
    Denoise,
    Enhance,
    Inpaint,
    Tiling,
    Upscale,
)
from genimg.operations.seeing import Detect, Segment
from genimg.operations.styling import Stylise
from genimg.operations.translating import Translate

OPERATIONS: dict[str, type[Operation]] = {
    each.name: each
    for each in (
        Sample,
        Interpolate,
        Traverse,
        Mix,
        Tiling,
        Denoise,
        Deblock,
        Deblur,
        Enhance,
        Colourise,
        Upscale,
        Inpaint,
        Translate,
        Stylise,
        Reconstruct,
        Vary,
        Encode,
        Invert,
        Decode,
        Classify,
        Segment,
        Detect,
        Animate,
    )
}


def restoring(names: Iterable[str]) -> list[str]:
    """Those operations among `names` that give an image back better."""
    return [name for name in names if issubclass(OPERATIONS[name], Tiling)]


__all__ = ["DRAWN", "OPERATIONS", "AnySize", "Kind", "Operation", "Tiling", "restoring"]
