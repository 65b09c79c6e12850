"""How boxes are judged: COCO's mean average precision, by its own program."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def average_precision(
    guess: np.ndarray, scores: np.ndarray, truth: np.ndarray, classes: int
) -> dict[str, float]:
    """`map`: over intersections over union from 0.5 to 0.95; `map50`, `map75`: at these.

    guess, truth: float32 [N, K, 5] and [N, L, 5]: boxes of N images, of class -1 where none is
    scores: float32 [N, K] of the guesses, at most 100 an image

    Means over the classes that are there. -1 where there are no boxes at all.
    """
    every = [{"id": image} for image in range(len(truth))]
    kinds = [{"id": kind} for kind in range(classes)]
    image, place = (truth[..., 0] >= 0).nonzero()
    boxes = sized(truth[image, place, 1:])
    listed = [
        {
            "id": number + 1,  # 0 stands for none
            "image_id": int(which),
            "category_id": int(kind),
            "bbox": box.tolist(),
            "area": float(box[2] * box[3]),
            "iscrowd": 0,
        }
        for number, (which, kind, box) in enumerate(
            zip(image, truth[image, place, 0], boxes, strict=True)
        )
    ]
    found, at = (guess[..., 0] >= 0).nonzero()
    if not len(found):
        return dict.fromkeys(("map", "map50", "map75"), 0.0 if listed else -1.0)
    rows = np.column_stack(
        [found, sized(guess[found, at, 1:]), scores[found, at], guess[found, at, 0]]
    )
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        truths = COCO()
        truths.dataset = {"images": every, "categories": kinds, "annotations": listed}
        truths.createIndex()
        judged = COCOeval(truths, truths.loadRes(rows.astype(np.float64)), "bbox")
        judged.evaluate()
        judged.accumulate()
    precision = judged.eval["precision"][..., 0, -1]  # [overlap, recall, class]: all sizes, 100
    return {"map": mean(precision), "map50": mean(precision[0]), "map75": mean(precision[5])}


def sized(corners: np.ndarray) -> np.ndarray:
    """x0, y0, x1, y1 [M, 4] -> x0, y0, width, height."""
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def mean(precision: np.ndarray) -> float:
    """Of what there is: -1 stands for a class that is nowhere."""
    there = precision[precision > -1]
    return float(there.mean()) if there.size else -1.0
