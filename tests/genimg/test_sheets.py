"""Sheets of restored images: what is where in them; and the tables beside them."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genimg.sheets import (
    GAP,
    LINE,
    SIDE,
    SMALL,
    Shown,
    crop,
    extremes,
    per_image,
    sheet,
    shelves,
    where_most,
)


def shown(height: int, width: int, channels: int = 3, caption: str = "a.png") -> Shown:
    """Three images of one level each, which differ."""
    levels = (np.full((height, width, channels), level, np.uint8) for level in (50, 100, 150))
    return Shown(caption, *levels)


def test_images_stand_side_by_side() -> None:
    picture = sheet([shown(100, 80), shown(60, 120, channels=1)])
    wide = 120 + GAP
    assert picture.dtype == np.uint8
    assert picture.shape == (LINE + 100 + 60 + 2 * (LINE + 2 * GAP), 3 * wide + GAP, 3)
    top, below = LINE + GAP, LINE + GAP + 100 + LINE + 2 * GAP
    for place, level in enumerate((50, 100, 150)):
        left = GAP + place * wide
        assert (picture[top : top + 100, left : left + 80] == level).all()
        assert (picture[below : below + 60, left : left + 120] == level).all()
        assert (picture[:LINE, left : left + 30] < 128).any()  # its title
        assert (picture[top : top + 100, left + 80 : left + wide] == 255).all()
    assert (picture[top + 100 : below - GAP, :60] < 128).any()  # the caption


def test_a_sheet_is_bounded_and_shows_where_a_photo_fails() -> None:
    row = shown(700, 900, caption="a name that is far too long for a line " * 9)
    row.after[:] = 150
    row.after[400:420, 600:650] = 0
    picture = sheet([row])
    assert picture.shape == (LINE + SIDE + LINE + 2 * GAP, 3 * (SIDE + GAP) + GAP, 3)
    before, after, truth = crop(row)
    assert before.shape == after.shape == truth.shape == (SIDE, SIDE, 3)
    assert (after == 0).sum() == 3 * 20 * 50


def test_a_smaller_image_before_upscaling_follows_the_crop() -> None:
    truth = np.random.default_rng(0).integers(0, 256, (600, 801, 3), dtype=np.uint8)
    after = truth.copy()
    after[500:, 700:] = 0
    small = truth[::3, ::3]
    before, _, shown_truth = crop(Shown("", small, after, truth))
    assert before.shape == shown_truth.shape == (SIDE, SIDE, 3)
    top, left = where_most(after, truth)
    rows, columns = np.meshgrid(
        np.arange(top, top + SIDE) // 3, np.arange(left, left + SIDE) // 3, indexing="ij"
    )
    assert np.array_equal(before, small[rows, columns])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_the_part_shown_is_that_of_the_greatest_error(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 256, (2, height, width, 1), dtype=np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("genimg.sheets.SIDE", 16)
        top, left = where_most(a, b)
    squares = (a.astype(float) - b)[..., 0] ** 2
    sums = [
        squares[y : y + 16, x : x + 16].sum()
        for y in range(max(1, height - 15))
        for x in range(max(1, width - 15))
    ]
    assert squares[top : top + 16, left : left + 16].sum() == max(sums)


def test_one_pixel_and_text_of_any_kind() -> None:
    assert sheet([shown(1, 1, caption="日本\nä.png, 31.4 dB"), shown(1, 300)]).shape[1] > 3 * 64


def test_the_worst_and_the_best() -> None:
    assert extremes([5, 1, 4, 2, 3], 2) == [1, 3, 2, 0]
    assert extremes([5, 1, 4], 2) == [1, 2, 0]
    assert extremes([7], 3) == [0]
    assert extremes([], 3) == []
    assert extremes([1, float("inf"), 2], 1) == [0, 1]


def test_values_of_each_image_as_csv() -> None:
    names = ["a.png", 'b, "c".png', "d\ne.png"]
    values = {"psnr": [31.4159265, float("inf"), 0.0], "ssim": [0.98765432, 1.0, -0.5]}
    text = per_image(names, values)
    assert text.splitlines()[:2] == ["image,psnr,ssim", "a.png,31.4159,0.987654"]
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert [row[0] for row in read[1:]] == names
    assert [float(row[1]) for row in read[1:]] == [31.4159, float("inf"), 0.0]
    with pytest.raises(ValueError, match="zip"):
        per_image(names[:2], values)


def test_shelves_have_a_name_and_their_images_a_row() -> None:
    rows = [np.full((count, 16, 16, 1), 50, np.uint8) for count in (9, 0)]
    picture = shelves(["nine", "none"], rows)
    cell = SMALL + GAP
    assert picture.shape == (2 * (LINE + cell) + GAP, 9 * cell + GAP, 3)
    for place in range(9):
        left = GAP + place * cell
        assert (picture[LINE : LINE + SMALL, left : left + SMALL] == 50).all()
        assert (picture[LINE : LINE + SMALL, left + SMALL : left + cell] == 255).all()
    for top in (0, LINE + cell):
        assert (picture[top : top + LINE, :40] < 128).any()
    assert (picture[2 * LINE + cell + GAP :] == 255).all()
    one = shelves(
        ["a name that is longer than the row is wide"], [np.zeros((1, 128, 128, 3), np.uint8)]
    )
    assert one.shape == (LINE + 128 + 2 * GAP, SIDE, 3)
