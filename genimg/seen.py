"""What models see in images: the class of each pixel, and boxes around objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from genimg.contracts import Ability, Rows
from genimg.data.fitting import placed
from genimg.drawing import outline, overlay
from genimg.pixels import with_channels
from genimg.plans import opaque
from genimg.results import Pictures, Values
from genimg.tiled import Tiled


class Segmented(Tiled):
    """The class of each pixel of an image of any size, in tiles as other images are computed.

    image: uint8 or uint16 [H, W, 1 to 4]; alpha is left out
    shown: the classes' numbers as gray, or in colours over the image
    """

    def __init__(
        self,
        ability: Ability,
        image: np.ndarray,
        tile: int | Literal["auto"] = "auto",
        shown: Literal["overlay", "mask"] = "overlay",
    ) -> None:
        self._seen = opaque(image)
        super().__init__(ability, with_channels(self._seen, ability.channels), tile)
        self._classes = np.empty(self._seen.shape[:2], np.uint8)
        self._shown = shown

    def put(self, start: int, made: Rows) -> None:
        masks = made["mask"].cpu().numpy()
        for number, mask in enumerate(masks, start=start):
            (y, x), _ = self._place(number)
            target = self._classes[y.a : y.b, x.a : x.b]
            height, width = target.shape  # what the image was padded by is left out
            top, left = y.a - y.start, x.a - x.start
            target[:] = mask[top : top + height, left : left + width]

    def result(self) -> Pictures:
        if self._shown == "mask":
            return Pictures(self._classes[None, ..., None])
        return Pictures(overlay(self._seen, self._classes)[None])


def boxes_in(
    images: np.ndarray | Sequence[np.ndarray], made: Rows, ability: Ability, threshold: float
) -> Values:
    """Objects of each image, the surest first: label, score, and the box in its own pixels."""
    assert ability.side is not None, "boxes are told of images of the size that was learnt"
    fit = "resize" if ability.fit == "crop" else ability.fit
    several = [images] if isinstance(images, np.ndarray) else images
    told: list[list[dict[str, Any]]] = []
    for image, boxes, scores in zip(
        several, made["boxes"].tolist(), made["scores"].tolist(), strict=True
    ):
        height, width = image.shape[:2]
        place = placed((height, width), ability.side, fit)
        (top, left), (high, wide) = place.corner, place.scaled
        told.append([])
        for (kind, *corners), score in zip(boxes, scores, strict=True):
            if kind >= 0 and score >= threshold:
                x0, x1 = ((x + left) * width / wide for x in corners[0::2])
                y0, y1 = ((y + top) * height / high for y in corners[1::2])
                box = [max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)]
                if box[2] > box[0] and box[3] > box[1]:
                    label = ability.classes[int(kind)]
                    told[-1].append({"label": label, "score": score, "box": box})
    return Values(told, lambda: shown_on(several[0], told[0], ability))


def shown_on(image: np.ndarray, told: Sequence[dict[str, Any]], ability: Ability) -> np.ndarray:
    """uint8 [H, W, 3]: an image with the boxes that were told of it."""
    boxes = [[ability.classes.index(each["label"]), *each["box"]] for each in told]
    return outline(opaque(image), np.array(boxes, np.float32).reshape(-1, 5))
