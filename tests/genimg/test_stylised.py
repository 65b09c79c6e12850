"""Images of any size in the style of others: tiles, masks, what is transparent, what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stylists import FEATURES, helped, picture
from tiny_recipes import tiny
from torch import Tensor, nn
from training_steps import trained

from genimg.engine import Engine
from genimg.errors import InputError
from genimg.inference import to_floats
from genimg.models.styling import Stylist
from genimg.moments import (
    exchange,
    exchanged,
    moments,
)
from genimg.operations.styling import Stylise
from genimg.pixels import with_channels


@pytest.fixture(scope="module")
def engine() -> Engine:
    recipe = tiny("adain", *FEATURES, "train.ema_half_life=0", "train.warmup=0")
    method = helped(recipe)
    trained(recipe, method, 2)
    nn.init.normal_(method.averages["stylist"].get_submodule("decoder.tail").weight, std=0.05)
    return Engine(recipe, {"stylist": method.averages["stylist"].eval()})


def whole(engine: Engine, image: np.ndarray, style: np.ndarray, strength: float = 1) -> np.ndarray:
    """An image whose sides are multiples of the stride, by its definition."""
    stylist = engine.networks["stylist"]
    assert isinstance(stylist, Stylist)
    content, other = (
        to_floats(torch.from_numpy(each).permute(2, 0, 1)[None], engine.device)
        for each in (image, style)
    )
    with torch.no_grad():
        known, theirs = (stylist.levels(each, stylist.encoder(each)) for each in (content, other))
        changes = [
            exchange(moments(a), moments(b), strength) for a, b in zip(known, theirs, strict=True)
        ]
        made = stylist.decoder([exchanged(*each) for each in zip(known, changes, strict=True)])
    levels = made.add(1).mul(127.5).round().clamp(0, 255)
    return levels[0].permute(1, 2, 0).to(torch.uint8).numpy()


def near(one: np.ndarray, other: np.ndarray) -> bool:
    """But for where a half is rounded."""
    return one.shape == other.shape and np.abs(one.astype(int) - other).max(initial=0) <= 1


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_tiles_give_what_the_whole_gives(engine, strength):
    image, style = picture(140, 216), picture(104, 72, seed=1) // 2
    expected = whole(engine, image, style, strength)
    for tile in (0, 96, "auto"):
        made = engine(Stylise(strength=strength, tile=tile), image=image, style=style).only()
        assert near(made, expected)
    other = engine(Stylise(strength=0.0), image=image, style=picture(8, 8)).only()
    assert near(other, expected) == (strength == 0)


@settings(max_examples=12)
@given(
    sides=st.tuples(*[st.integers(1, 130)] * 4),
    channels=st.integers(1, 4),
    masked=st.booleans(),
    deep=st.booleans(),
)
def test_images_of_every_size_and_mode(engine, sides, channels, masked, deep):
    image, style = picture(*sides[:2], channels), picture(*sides[2:], 5 - channels, seed=1)
    style[:1, :1, 1:] = 255  # something is seen
    given_image = image.astype(np.uint16) * 257 if deep else image
    mask = {"mask": picture(*sides[:2], 1, seed=2)} if masked else {}
    made = engine(Stylise(tile=0), image=given_image, style=style, **mask).only()
    alpha = channels in (2, 4)
    assert made.dtype == np.uint8  # files of colours have 8 bits
    assert made.shape == (*image.shape[:2], 3 + alpha)
    assert np.array_equal(made[..., 3:], image[..., channels - alpha :])
    pixel = Stylise().pixel(engine.abilities["stylise"], {"image": given_image})
    assert (pixel.dtype, pixel.shape) == (made.dtype, (1, 1, made.shape[2]))
    tiled = engine(Stylise(tile=96), image=given_image, style=style, **mask).only()
    assert np.abs(made.astype(int) - tiled).max() <= 1


def test_only_what_a_mask_marks_takes_on_the_style_and_by_its_own_moments(engine):
    image, style = picture(64, 96), picture(40, 40, seed=1)
    mask = np.zeros((64, 96, 1), np.uint8)
    mask[:, 48:] = 255
    made = engine(Stylise(), image=image, style=style, mask=mask).only()
    assert np.array_equal(made[:, :48], image[:, :48])
    # what lies elsewhere decides nothing, but where it is near
    other = image.copy()
    other[:, :16] = 0
    moved = engine(Stylise(), image=other, style=style, mask=mask).only()
    assert np.array_equal(made[:, 48:], moved[:, 48:])
    assert not np.array_equal(made, engine(Stylise(), image=image, style=style).only())
    soft = engine(Stylise(), image=image, style=style, mask=mask // 2).only()
    between = (image.astype(float) + made) / 2
    assert np.abs(soft - between).max() <= 2
    nothing = engine(Stylise(), image=image, style=style, mask=np.zeros_like(mask)).only()
    assert np.array_equal(nothing, image)


def test_what_is_transparent_of_a_style_is_passed_over(engine):
    image, style = picture(24, 32), picture(48, 64, 4, seed=1)
    style[..., 3] = 0
    style[:, 40:, 3] = 255
    other = style.copy()
    other[:, :4, :3] = 255
    made = [engine(Stylise(), image=image, style=each).only() for each in (style, other)]
    assert np.array_equal(*made)
    opaque = engine(Stylise(), image=image, style=style[..., :3]).only()
    assert not near(opaque, made[0])
    style[..., 3] = 0
    with pytest.raises(InputError, match="style: is transparent all over"):
        engine(Stylise(), image=image, style=style)


def test_what_an_image_cannot_be_given_is_refused(engine):
    image = picture(9, 8)
    with pytest.raises(InputError, match="style is missing; give the image whose style"):
        engine(Stylise(), image=image)
    with pytest.raises(InputError, match="mask of 8x8 for an image of 8x9"):
        engine(Stylise(), image=image, style=image, mask=picture(8, 8, 1))
    with pytest.raises(InputError, match=r"strength=1\.5"):
        Stylise.validated({"strength": 1.5})


def test_rows_that_come_again_after_a_pass_that_failed_count_once(engine):
    image, style = picture(200, 96), picture(150, 96, seed=1)
    expected = engine(Stylise(tile=96), image=image, style=style).only()
    plan = engine.plan(Stylise(tile=96), image=image, style=style)
    for end in (1, 3, plan.count):
        for row in range(end):
            engine.compute("stylise", [(plan, row, row + 1)])
    assert plan.count > 8
    assert np.array_equal(plan.result().only(), expected)


def test_a_plan_keeps_bytes_and_no_floats():
    recipe = tiny("adain")
    ability = recipe.abilities(recipe.networks())["stylise"]
    image, style = np.zeros((3000, 2000, 3), np.uint8), np.zeros((2000, 3000, 3), np.uint8)
    plan = Stylise().plan(ability, {"image": image, "style": style})
    assert plan.rows(0, 1)["image"].shape[2:].numel() <= 2**20
    kept = [each for each in vars(plan).values() if isinstance(each, Tensor)]
    assert kept == []
    made = plan._made.nbytes + plan._style._made.nbytes
    assert made == image.nbytes + style.nbytes


def test_luma_of_sixteen_bits_is_that_of_eight():
    image = picture(30, 20)
    expected = with_channels(image, 1)
    deep = with_channels(image.astype(np.uint16) * 257, 1)
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - expected).max() <= 0.5 + 1e-2
