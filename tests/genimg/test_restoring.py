"""Engines restore any image: in its own shape and type, in tiles, at any level and strength."""

import numpy as np
import pytest
import torch
from engine_calls import denoise, picture
from hypothesis import example, given, settings
from hypothesis import strategies as st

from genimg.errors import InputError
from genimg.noise_level import estimate_sigma
from genimg.operations.restoring import Denoise


@example("ffdnet", 1, 1, 4, np.uint16)
@example("gray", 1, 1, 3, np.uint8)
@example("ffdnet", 1, 40, 2, np.uint8)
@example("gray", 37, 1, 4, np.uint16)
@settings(max_examples=12)
@given(
    kind=st.sampled_from(["ffdnet", "gray"]),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.integers(1, 4),
    dtype=st.sampled_from([np.uint8, np.uint16]),
)
def test_any_image_is_restored_in_its_own_shape_and_type(
    engines, kind, height, width, channels, dtype
):
    image = picture(height, width, channels, dtype)
    for sigma in (None, 25.0):
        restored = denoise(engines[kind], image, sigma=sigma)
        assert restored.shape == image.shape
        assert restored.dtype == dtype
        if channels in (2, 4):
            assert np.array_equal(restored[..., -1], image[..., -1])
    assert np.array_equal(denoise(engines[kind], image, sigma=25, strength=0), image)


def test_every_level_survives_strength_nought(engines):
    for dtype in (np.uint8, np.uint16):
        levels = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
        image = levels.reshape(16 if dtype == np.uint8 else 256, -1, 1)
        assert np.array_equal(denoise(engines["gray"], image, sigma=25, strength=0), image)


@pytest.mark.parametrize("kind", ["ffdnet", "gray"])
@pytest.mark.parametrize(("height", "width"), [(150, 97), (97, 150), (131, 131), (64, 150)])
def test_tiles_leave_no_seams(engines, kind, height, width):
    engine = engines[kind]
    image = picture(height, width, engine.recipe.data.channels)
    smallest = 4 * 2 * -(-engine.networks["restorer"].receptive_field // 4)
    whole = denoise(engine, image, sigma=30, tile=0).astype(int)
    assert (whole != image).mean() > 0.5
    for tile in (smallest, smallest + 6):
        tiled = denoise(engine, image, sigma=30, tile=tile).astype(int)
        assert np.abs(tiled - whole).max() <= 1
        assert (tiled != whole).mean() < 0.01


@pytest.mark.parametrize(("height", "width"), [(131, 131), (131, 80), (80, 131)])
def test_an_odd_tile_as_large_as_the_image_is_one_tile(engines, height, width):
    image = picture(height, width, 3)
    whole = denoise(engines["ffdnet"], image, sigma=30, tile=0)
    assert np.array_equal(denoise(engines["ffdnet"], image, sigma=30, tile=131), whole)


def test_large_images_are_tiled_by_themselves(engines):
    image = picture(530, 40, 1)
    whole = denoise(engines["gray"], image, sigma=30, tile=0).astype(int)
    assert np.abs(denoise(engines["gray"], image, sigma=30).astype(int) - whole).max() <= 1


def test_the_noise_level_is_estimated_where_it_is_not_given(engines):
    image = picture(64, 64, 3)
    floats = torch.from_numpy(image).permute(2, 0, 1)[None].float() * (2 / 255) - 1
    sigma = float(estimate_sigma(floats))
    assert sigma == pytest.approx(10, abs=3)
    blind = denoise(engines["ffdnet"], image)
    assert np.abs(blind.astype(int) - denoise(engines["ffdnet"], image, sigma=sigma)).max() <= 1
    assert not np.array_equal(blind, denoise(engines["ffdnet"], image, sigma=2 * sigma))


def test_sixteen_bits_restore_as_eight_do(engines):
    image = picture(40, 40, 3)
    eight = denoise(engines["ffdnet"], image, sigma=20).astype(float)
    sixteen = denoise(engines["ffdnet"], image.astype(np.uint16) * 257, sigma=20) / 257
    assert np.abs(eight - sixteen).max() <= 0.51


def test_a_gray_model_restores_colours_one_by_one_and_a_colour_model_takes_gray(engines):
    image = picture(20, 20, 3)
    colours = denoise(engines["gray"], image, sigma=20)
    for channel in range(3):
        alone = denoise(engines["gray"], image[..., channel : channel + 1], sigma=20)
        assert np.abs(alone.astype(int) - colours[..., channel : channel + 1]).max() <= 1
    gray = image[..., :1]
    spread = denoise(engines["ffdnet"], gray.repeat(3, axis=2), sigma=20).astype(float)
    difference = denoise(engines["ffdnet"], gray, sigma=20)[..., 0] - spread.mean(axis=2)
    assert np.abs(difference).max() <= 1


def test_strength_mixes_the_image_with_the_restored(engines):
    image = picture(20, 20, 3)
    full = denoise(engines["ffdnet"], image, sigma=40).astype(float)
    half = denoise(engines["ffdnet"], image, sigma=40, strength=0.5)
    assert np.abs(half - (image + full) / 2).max() <= 1


def test_a_little_training_already_removes_noise(engines):
    clean = picture(64, 64, 3, seed=1).astype(float)
    noisy = (clean + np.random.default_rng(2).normal(0, 40, clean.shape)).clip(0, 255)
    restored = denoise(engines["ffdnet"], noisy.round().astype(np.uint8), sigma=40)
    assert np.square(restored - clean).mean() < 0.8 * np.square(noisy - clean).mean()


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.zeros((4, 4), np.uint8), {}, "image of shape [4, 4]: expected [H, W, 1 to 4]"),
        (np.zeros((4, 4, 5), np.uint8), {}, "image of shape [4, 4, 5]"),
        (np.zeros((0, 4, 3), np.uint8), {}, "image of shape [0, 4, 3]"),
        (np.zeros((4, 4, 3), np.float32), {}, "image of float32: expected uint8 or uint16"),
        (np.zeros((4, 4, 3), np.uint8), {"strength": 1.1}, "strength=1.1: input should be less"),
        (np.zeros((4, 4, 3), np.uint8), {"strength": float("nan")}, "strength=nan: input should"),
        (np.zeros((4, 4, 3), np.uint8), {"sigma": -1}, "sigma=-1: input should be greater than"),
        (np.zeros((4, 4, 3), np.uint8), {"sigma": float("nan")}, "sigma=nan: input should be"),
        (np.zeros((4, 4, 3), np.uint8), {"tile": -2}, "tile=-2: give 'auto', 0 (off) or a number"),
    ],
)  # fmt: skip
def test_what_cannot_be_restored_is_refused(engines, image, options, message):
    with pytest.raises(InputError) as caught:
        engines["ffdnet"](Denoise.validated({"sigma": 10} | options), image=image)
    assert str(caught.value).startswith(message)
