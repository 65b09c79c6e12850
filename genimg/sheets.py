"""What evaluations leave to look at: sheets of images, and the values of images as CSV."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 256  # pixels: what is shown of an image, at most, each way
GAP = 4
LINE = 16  # pixels high, of text
SMALL = 64  # pixels, to which smaller images are enlarged by whole factors
COLUMNS = ("before", "after", "truth")
PAPER, INK = 255, 0


@dataclass(frozen=True)
class Shown:
    """One image of a sheet: uint8 [H, W, 1 or 3] thrice, of which `before` may be smaller.

    caption: its name and values, in a line
    """

    caption: str
    before: np.ndarray
    after: np.ndarray
    truth: np.ndarray


def sheet(rows: Sequence[Shown]) -> np.ndarray:
    """uint8 [H', W', 3]: before, after and truth side by side, a row and its caption an image.

    Of an image of more than 256 pixels a side that part is shown in which `after` differs most
    from the truth. So the picture is 788 wide and 280 high for each image, at most; who calls
    chooses the images (see `extremes`).
    """
    assert rows, "a sheet of no images"
    crops = [crop(row) for row in rows]
    sides = np.array([cells[-1].shape[:2] for cells in crops])
    wide = max(int(sides[:, 1].max()), 64)  # room for a word
    height = LINE + int(sides[:, 0].sum()) + len(rows) * (LINE + 2 * GAP)
    width = len(COLUMNS) * (wide + GAP) + GAP
    picture = Image.new("RGB", (width, height), (PAPER,) * 3)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)
    lefts = [GAP + place * (wide + GAP) for place in range(len(COLUMNS))]
    for left, title in zip(lefts, COLUMNS, strict=True):
        draw.text((left, 1), title, fill=(INK,) * 3, font=font)
    top = LINE + GAP
    for row, cells in zip(rows, crops, strict=True):
        for left, cell in zip(lefts, cells, strict=True):
            picture.paste(Image.fromarray(cell), (left, top))
        top += cells[-1].shape[0]
        caption = fitting(row.caption, font, width - 2 * GAP)
        draw.text((GAP, top + 1), caption, fill=(INK,) * 3, font=font)
        top += LINE + 2 * GAP
    return np.asarray(picture)


def crop(row: Shown) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Before, after and truth, uint8 [H', W', 3], of one size, at most SIDE a side."""
    assert row.after.shape == row.truth.shape, (row.after.shape, row.truth.shape)
    height, width = row.truth.shape[:2]
    top, left = where_most(row.after, row.truth)
    part = slice(top, top + SIDE), slice(left, left + SIDE)
    rows, columns = (
        np.arange(length)[within] * small // length  # the nearest pixels of a smaller image
        for length, small, within in zip((height, width), row.before.shape[:2], part, strict=True)
    )
    cells = row.before[rows][:, columns], row.after[part], row.truth[part]
    before, after, truth = (np.broadcast_to(cell, (*cell.shape[:2], 3)) for cell in cells)
    return before, after, truth


def where_most(a: np.ndarray, b: np.ndarray) -> tuple[int, int]:
    """(top, left) of the part, SIDE pixels a side, where uint8 [H, W, C] twice differ most.

    By the sum of squared differences; 0 along a side that is not longer.
    """
    height, width = a.shape[:2]
    if height <= SIDE and width <= SIDE:
        return 0, 0
    table = np.zeros((height + 1, width + 1), np.int64)
    difference = a.astype(np.int32) - b
    np.square(difference, out=difference)
    difference.sum(axis=2, out=table[1:, 1:])
    table = table.cumsum(axis=0).cumsum(axis=1)
    down, right = min(SIDE, height), min(SIDE, width)
    sums = table[down:, right:] - table[:-down, right:] - table[down:, :-right]
    top, left = np.unravel_index((sums + table[:-down, :-right]).argmax(), sums.shape)
    return int(top), int(left)


def fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text in one line, cut at its end to that many pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def extremes(values: Sequence[float], count: int) -> list[int]:
    """Places of the `count` least values, then of the greatest, ascending; none of them twice."""
    order = np.argsort(np.asarray(values), kind="stable").tolist()
    return order if len(order) <= 2 * count else order[:count] + order[len(order) - count :]


def per_image(names: Iterable[str], values: Mapping[str, Iterable[float]]) -> str:
    """CSV: a heading, then for each image its file's name and the metrics' values, a column each.

    Six significant digits; infinite is `inf`. Names are quoted where they have commas or quotes.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["image", *values])
    for name, *scores in zip(names, *values.values(), strict=True):
        writer.writerow([name, *(f"{score:.6g}" for score in scores)])
    return out.getvalue()


def shelves(names: Sequence[str], rows: Sequence[np.ndarray]) -> np.ndarray:
    """uint8 [H', W', 3]: rows of small images, a name above each row.

    rows: each uint8 [N, H, W, 1 or 3] with its own N, which may be 0; small ones are enlarged
    """
    assert rows, "shelves of no rows"
    side = rows[0].shape[1]
    scale = max(1, SMALL // side)
    cell = side * scale + GAP
    width = max(cell * max(len(row) for row in rows) + GAP, SIDE)
    picture = Image.new("RGB", (width, len(rows) * (LINE + cell) + GAP), (PAPER,) * 3)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)
    for number, (name, row) in enumerate(zip(names, rows, strict=True)):
        top = number * (LINE + cell) + GAP
        draw.text(
            (GAP, top - GAP), fitting(name, font, width - 2 * GAP), fill=(INK,) * 3, font=font
        )
        large = row.repeat(scale, axis=1).repeat(scale, axis=2)
        for place, image in enumerate(np.broadcast_to(large, (*large.shape[:3], 3))):
            picture.paste(Image.fromarray(image), (GAP + place * cell, top + LINE - GAP))
    return np.asarray(picture)
