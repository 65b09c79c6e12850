"""Every kind of column follows its image through symmetries, crops and fits, as done by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from genimg import rng
from genimg.data.augment import augment
from genimg.data.beside import BOXES, SEEN
from genimg.data.columns import COLUMNS, follow, ready
from genimg.data.fitting import Place, placed
from genimg.data.memory import Images
from genimg.data.storage import Ragged

NONE = [-1.0, 0.0, 0.0, 0.0, 0.0]


def keys(count: int, seed: int = 0) -> torch.Tensor:
    return rng.fold(seed, torch.arange(count))


@st.composite
def boxes_in(draw, height: int, width: int, most: int = 4) -> list[list[int]]:
    """Some boxes of whole pixels: class, x0, y0, x1, y1."""
    found = []
    for _ in range(draw(st.integers(0, most))):
        x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
        found.append([draw(st.integers(0, 5)), x0, y0, x1, y1])
    return found


def painted(box: list[int], height: int, width: int) -> np.ndarray:
    """uint8 [H, W]: 1 in the box."""
    canvas = np.zeros((height, width), np.uint8)
    canvas[box[2] : box[4], box[1] : box[3]] = 1
    return canvas


def around(canvas: np.ndarray) -> list[int]:
    """x0, y0, x1, y1 of what is painted."""
    y, x = canvas.nonzero()
    return [x.min(), y.min(), x.max() + 1, y.max() + 1]


def symmetries(canvas: np.ndarray) -> list[np.ndarray]:
    """The eight of a square by rotating it and mirroring that, [..., H, W] each."""
    turned = [np.rot90(canvas, quarter, (-2, -1)) for quarter in range(4)]
    return turned + [each[..., ::-1] for each in turned]


def row_of(column: str, value) -> torch.Tensor:
    return torch.from_numpy(COLUMNS[column].row(value).copy())[None]


@given(st.data(), st.integers(2, 9), st.integers(0, 7))
def test_what_is_beside_an_image_is_turned_with_it(data, size, symmetry):
    found = data.draw(boxes_in(size, size))
    canvases = np.stack([np.arange(size * size, dtype=np.uint8).reshape(size, size)]
                        + [painted(box, size, size) for box in found])  # fmt: skip
    by = torch.tensor([symmetry])

    def turned(column: str, values: torch.Tensor) -> torch.Tensor:
        return COLUMNS[column].turned(values, by, (size, size))

    image = turned("image", torch.from_numpy(canvases)[None])[0].numpy()
    (which,) = [n for n, each in enumerate(symmetries(canvases)) if (each == image).all()]
    mask = turned("mask", torch.from_numpy(canvases[:1])[None])[0].numpy()
    np.testing.assert_array_equal(mask, symmetries(canvases[:1])[which])
    assert torch.equal(
        turned("target", torch.from_numpy(canvases)[None])[0], torch.from_numpy(image)
    )
    rows = turned("boxes", row_of("boxes", np.array(found, np.float32).reshape(-1, 5)))[0].tolist()
    for row, box, canvas in zip(rows, found, image[1:], strict=False):
        assert row == [box[0], *around(canvas)]
    assert rows[len(found) :] == [NONE] * (BOXES - len(found))
    for column, value in (("label", 3), ("text", "a star")):
        assert torch.equal(turned(column, row_of(column, value)), row_of(column, value))


def test_all_eight_symmetries_have_a_number():
    canvas = torch.arange(9, dtype=torch.uint8).reshape(1, 1, 3, 3).expand(8, -1, -1, -1)
    turned = COLUMNS["image"].turned(canvas, torch.arange(8), (3, 3))
    assert len({each.numpy().tobytes() for each in turned}) == 8


@pytest.mark.parametrize("kind", ["none", "flip", "dihedral"])
def test_augmentation_turns_all_columns_of_an_image_alike(kind):
    size, count = 6, 40
    canvas = torch.randint(0, 200, (count, 1, size, size), dtype=torch.uint8)
    box = torch.tensor([[2.0, 1, 0, 4, 3]]).expand(count, 1, 5)
    canvas[:, 0, 0:3, 1:4] = 255
    stored = {"image": canvas, "target": canvas, "mask": canvas, "boxes": box,
              "label": torch.arange(count)}  # fmt: skip
    turned = augment(stored, keys(count), kind)
    assert torch.equal(turned["image"], turned["target"])
    assert torch.equal(turned["image"], turned["mask"])
    assert torch.equal(turned["label"], torch.arange(count))
    for image, (row,) in zip(turned["image"][:, 0].numpy(), turned["boxes"].tolist(), strict=True):
        assert row == [2, *around(image == 255)]
    seen = {tuple(row) for row in turned["boxes"][:, 0].tolist()}
    assert len(seen) == {"none": 1, "flip": 2, "dihedral": 8}[kind]


def test_boxes_of_images_that_are_not_square_are_mirrored_at_their_own_middle():
    box = torch.tensor([[[0.0, 1, 2, 4, 3]]])
    turned = [
        COLUMNS["boxes"].turned(box, torch.tensor([by]), (5, 9))[0, 0].tolist() for by in (1, 2)
    ]
    assert turned == [[0, 5, 2, 8, 3], [0, 1, 2, 4, 3]]


def area(box: list[float]) -> float:
    return max(0, box[2] - box[0]) * max(0, box[3] - box[1])


def cut(box: list[float], top: float, left: float, height: float, width: float) -> list[float]:
    """Class and corners of what is left of a box in a window, or NONE."""
    kind, x0, y0, x1, y1 = box
    moved = [x0 - left, y0 - top, x1 - left, y1 - top]
    inside = [
        min(max(value, 0), most) for value, most in zip(moved, [width, height] * 2, strict=True)
    ]
    kept = area(inside) > 0 and area(inside) >= SEEN * area(moved)
    return [kind, *inside] if kept else NONE


@settings(deadline=None)
@given(st.data(), st.integers(4, 8))
def test_crops_take_the_same_window_of_every_column(data, size):
    count = data.draw(st.integers(1, 4))
    sides = [
        (data.draw(st.integers(size, 20)), data.draw(st.integers(size, 20))) for _ in range(count)
    ]
    found = [data.draw(boxes_in(*side)) for side in sides]
    # the pixels of an image say where they are
    whole = [np.stack(np.indices(side)).astype(np.uint8) for side in sides]
    whole = [np.concatenate([each, each[:1]]) for each in whole]
    classes = [(each[:1] * 7 + each[1:2] * 3) % 11 for each in whole]
    rows = [row_of("boxes", np.array(each, np.float32).reshape(-1, 5)) for each in found]
    dataset = Images(
        {
            "image": Ragged.joined(list(whole), size),
            "target": Ragged.joined([255 - each for each in whole], size),
            "mask": Ragged.joined(list(classes), size),
            "boxes": torch.cat(rows),
            "label": torch.arange(count),
        }
    )
    indices = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=9)))
    stored = dataset.fetch(indices, keys(len(indices), data.draw(st.integers(0, 2**31))))
    for place, index in enumerate(indices.tolist()):
        top, left = stored["image"][place, :2, 0, 0].tolist()
        window = (slice(None), slice(top, top + size), slice(left, left + size))
        np.testing.assert_array_equal(stored["image"][place], whole[index][window])
        np.testing.assert_array_equal(stored["target"][place], 255 - whole[index][window])
        np.testing.assert_array_equal(stored["mask"][place], classes[index][window])
        expected = [cut(box, top, left, size, size) for box in found[index]]
        assert stored["boxes"][place].tolist() == expected + [NONE] * (BOXES - len(expected))
        assert stored["label"][place] == index


@settings(deadline=None)
@given(
    st.data(), st.integers(5, 40), st.integers(5, 40), st.sampled_from(["resize", "pad", "crop"])
)
def test_fits_are_pillows_and_boxes_are_scaled_and_moved_alike(data, height, width, fit):
    size = data.draw(st.integers(4, 24))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    image = generator.integers(0, 256, (height, width, 3), np.uint8)
    mask = generator.integers(0, 9, (height, width, 1), np.uint8)
    found = data.draw(boxes_in(height, width))
    values = {
        "image": image, "target": image[..., ::-1].copy(), "mask": mask, "label": 4, "text": "x",
        "boxes": np.array(found, np.float32).reshape(-1, 5),
    }  # fmt: skip
    place = placed((height, width), size, fit)
    got = follow(values, place)
    if fit == "crop":
        scaled, (top, left), window = (height, width), (0, 0), (height, width)
    else:
        scale = size / min(height, width) if fit == "resize" else min(1, size / max(height, width))
        least = size if fit == "resize" else 1
        scaled = max(least, round(height * scale)), max(least, round(width * scale))
        window = (size, size)
        if fit == "resize":
            top, left = (scaled[0] - size) // 2, (scaled[1] - size) // 2
        else:
            top, left = -((size - scaled[0]) // 2), -((size - scaled[1]) // 2)

    def by_hand(array: np.ndarray, filter: Image.Resampling) -> np.ndarray:
        flat = array[..., 0] if array.shape[2] == 1 else array
        small = Image.fromarray(flat).resize(scaled[::-1], filter)
        moved = Image.new(small.mode, window[::-1])
        moved.paste(small, (-left, -top))
        return np.asarray(moved).reshape(*window, array.shape[2])

    for column, filter in (
        ("image", Image.Resampling.LANCZOS),
        ("target", Image.Resampling.LANCZOS),
        ("mask", Image.Resampling.NEAREST),
    ):
        np.testing.assert_array_equal(got[column], by_hand(values[column], filter))
    wide, high = np.float32(scaled[1] / width), np.float32(scaled[0] / height)
    moved = [[k, x0 * wide, y0 * high, x1 * wide, y1 * high] for k, x0, y0, x1, y1 in found]
    expected = [box for each in moved if (box := cut(each, top, left, *window)) != NONE]
    np.testing.assert_allclose(
        got["boxes"], np.array(expected).reshape(-1, 5), rtol=1e-5, atol=1e-5
    )
    assert (got["label"], got["text"]) == (4, "x")


@pytest.mark.parametrize("factor", [1, 2, 3])
@given(data=st.data())
def test_a_box_stays_around_what_it_was_around_where_an_image_is_enlarged(factor, data):
    box = data.draw(boxes_in(8, 8, most=1).filter(bool))[0]
    canvas = painted(box, 8, 8)[..., None]
    got = follow(
        {"mask": canvas, "boxes": np.array([box], np.float32)}, placed((8, 8), 8 * factor, "resize")
    )
    assert got["boxes"].tolist() == [[box[0], *around(got["mask"][..., 0])]]


def test_rows_are_what_networks_take():
    stored = {
        "image": torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1),
        "mask": torch.tensor([[[[0, 255]]]], dtype=torch.uint8),
        "label": torch.tensor([7]),
        "text": row_of("text", "a"),
        "boxes": row_of("boxes", np.array([[1, 2, 3, 4, 5]], np.float32)),
    }
    rows = ready(stored)
    torch.testing.assert_close(rows["image"].flatten(), torch.tensor([-1, -0.6, 1]))
    assert rows["image"].is_contiguous(memory_format=torch.channels_last)
    assert (rows["mask"].dtype, rows["mask"].tolist()) == (torch.int64, [[[0, 255]]])
    assert (rows["text"].dtype, rows["text"][0, :2].tolist()) == (torch.int64, [98, 0])
    assert rows["boxes"][0, :2].tolist() == [[1, 2, 3, 4, 5], NONE]


def test_boxes_without_extent_or_upside_down_are_left_out():
    found = np.array([[0, 2, 2, 2, 5], [1, 5, 5, 3, 3], [2, 1, 1, 3, 3]], np.float32)
    assert follow({"boxes": found}, placed((8, 8), 8, "resize"))["boxes"].tolist() == [
        [2, 1, 1, 3, 3]
    ]


def test_a_place_that_is_cut_on_one_side_and_padded_on_the_other():
    image = np.arange(1, 13, dtype=np.uint8).reshape(3, 4, 1)
    place = Place((3, 4), (3, 4), (-1, 1), (5, 2))
    got = COLUMNS["image"].fitted(image, place)[..., 0]
    assert got.tolist() == [[0, 0], [2, 3], [6, 7], [10, 11], [0, 0]]
