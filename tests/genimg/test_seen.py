"""Masks of images of any size and boxes in the pixels of any image, as engines give them."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_recipes import tiny

from genimg.contracts import Ability
from genimg.data.columns import COLUMNS
from genimg.data.fitting import placed
from genimg.drawing import outline, overlay
from genimg.engine import Engine
from genimg.operations.seeing import Detect, Segment
from genimg.pixels import to_tensor, with_channels
from genimg.seen import Segmented, boxes_in


@pytest.fixture(scope="module", params=[1, 3])
def engine(request) -> Engine:
    """A segmenter that was not trained: its masks are noise, which shows any seam."""
    torch.manual_seed(0)
    recipe = tiny("segmenter", f"data.channels={request.param}", "model.depth=2")
    networks = {name: network.eval() for name, network in recipe.networks().items()}
    return Engine(recipe, networks)


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


@example(1, 230, 3, 0)  # tiles are of 96 pixels
@example(97, 98, 2, 0)
@example(191, 96, 1, 0)
@settings(max_examples=6)
@given(st.integers(1, 230), st.integers(1, 230), st.sampled_from([1, 2, 3, 4]), st.integers(0, 9))
def test_a_mask_in_tiles_is_that_of_the_whole(engine, height, width, channels, seed):
    image = picture(height, width, channels, seed)
    margin = engine.abilities["segment"].margin
    whole = engine(Segment(tile=0, show="mask"), image=image).images
    tiles = engine(Segment(tile=4 * margin, show="mask"), image=image).images
    assert whole.shape == (1, height, width, 1)
    assert (whole != tiles).mean() < 1e-3  # logits that are equal but for their rounding
    network, colour = engine.networks["segmenter"], image[..., : 1 if channels < 3 else 3]
    floats = to_tensor(with_channels(np.ascontiguousarray(colour), engine.recipe.data.channels))
    with torch.no_grad():
        directly = network(floats[None]).argmax(dim=1)[0].numpy()
    assert (whole[0, ..., 0] != directly).mean() < 1e-3


def test_an_overlay_is_of_the_image_as_it_came(engine):
    image = picture(30, 41)
    mask = engine(Segment(show="mask"), image=image).images[0, ..., 0]
    shown = engine(Segment(), image=image).images[0]
    np.testing.assert_array_equal(shown, overlay(image, mask))
    deep = engine(Segment(show="mask"), image=image.astype(np.uint16) * 257).images[0, ..., 0]
    np.testing.assert_array_equal(deep, mask)


def test_masks_are_cut_of_tiles_at_borders_too():
    """A network that tells the position of a pixel, by what it was given."""
    height, width = 21, 34
    image = np.stack(np.broadcast_arrays(*np.ogrid[:height, :width], 7), axis=2).astype(np.uint8)
    ability = Ability(lambda rows: rows, 3, margin=4, stride=4)
    plan = Segmented(ability, image, 16, "mask")
    for start in range(plan.count):
        tile = ((plan.rows(start, start + 1)["image"] + 1) * 127.5).round()
        plan.put(start, {"mask": (3 * tile[:, 0] + tile[:, 1]) % 250})
    expected = (3 * image[..., 0].astype(int) + image[..., 1]) % 250
    np.testing.assert_array_equal(plan.result().images[0, ..., 0], expected)


@given(st.data(), st.integers(8, 300), st.integers(8, 300), st.sampled_from(["resize", "pad"]))
def test_boxes_are_told_in_the_pixels_of_the_image(data, height, width, fit):
    """What a set would give the network of a box leads back to it."""
    x0, x1 = sorted(data.draw(st.lists(st.integers(0, width), min_size=2, max_size=2, unique=True)))
    y0, y1 = sorted(
        data.draw(st.lists(st.integers(0, height), min_size=2, max_size=2, unique=True))
    )
    box = np.array([[1, x0, y0, x1, y1]], np.float32)
    place = placed((height, width), 32, fit)
    moved = box.copy()
    scale = np.array([place.scaled[1] / width, place.scaled[0] / height] * 2)
    moved[:, 1:] = box[:, 1:] * scale - np.array([place.corner[1], place.corner[0]] * 2)
    inside = COLUMNS["boxes"].fitted(box, place)
    if fit == "pad":
        np.testing.assert_allclose(inside, moved, atol=1e-3)  # nothing is cut off
    ability = Ability(lambda rows: rows, 3, side=32, fit=fit, classes=("cat", "dog"))
    rows = torch.from_numpy(np.concatenate([moved, [[0, 0, 0, 1, 1], [-1, 0, 0, 0, 0]]])[None])
    scores = torch.tensor([[0.9, 0.2, 0.9]])
    image = picture(height, width)
    ((told,),) = boxes_in([image], {"boxes": rows, "scores": scores}, ability, 0.3).values
    assert (told["label"], told["score"]) == ("dog", pytest.approx(0.9))
    np.testing.assert_allclose(told["box"], [x0, y0, x1, y1], atol=0.05)


def test_a_detector_finds_what_it_was_made_to_find():
    recipe = tiny("detector", "data.size=32")
    torch.manual_seed(0)
    networks = {name: network.eval() for name, network in recipe.networks().items()}
    engine = Engine(recipe, networks)
    (every,) = engine(Detect(threshold=0.0), image=picture(50, 70)).values
    (sure,) = engine(Detect(threshold=0.1), image=picture(50, 70)).values
    assert [each["score"] for each in every] == sorted((e["score"] for e in every), reverse=True)
    assert sure == [each for each in every if each["score"] >= 0.1]
    assert {each["label"] for each in every} <= {*recipe.model.classes}
    for x0, y0, x1, y1 in (each["box"] for each in every):
        assert 0 <= x0 <= x1 <= 70
        assert 0 <= y0 <= y1 <= 50


def test_boxes_are_drawn_where_they_are_told():
    image = picture(20, 16)
    rows = torch.tensor([[[1.0, 2, 4, 9, 12], [0, 5, 6, 5, 9], [-1, 0, 0, 0, 0]]])
    ability = Ability(lambda rows: rows, 3, side=20, fit="pad", classes=("cat", "dog"))
    rows[..., [1, 3]] += 2  # 16 pixels are padded to 20
    made = {"boxes": rows, "scores": torch.tensor([[0.9, 0.8, 0.0]])}
    values = boxes_in(image, made, ability, 0.3)
    ((told,),) = values.values  # the second has no area
    assert told["box"] == [2, 4, 9, 12]
    expected = outline(image, np.array([[1, 2, 4, 9, 12]]))
    assert np.array_equal(values.only(), expected)
    assert (values.only() != image).any(axis=2).sum() == 2 * 7 + 2 * 6
