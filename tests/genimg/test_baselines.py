"""Classical methods that models stand beside: each must better what it is given."""

import sys

import numpy as np
import pytest
import torch

from genimg.errors import InputError
from genimg.metrics.baselines import DENOISING, INPAINTING, bm3d, linear, non_local_means
from genimg.metrics.fidelity import psnr


def scene(channels: int) -> np.ndarray:
    """uint8 [48, 40, C]: slopes and an edge."""
    ramp = 2.0 * np.arange(48)[:, None] + 1.5 * np.arange(40)
    ramp[10:30, 15:30] += 80
    return np.repeat(ramp[..., None], channels, axis=2).astype(np.uint8)


def decibels(a: np.ndarray, b: np.ndarray) -> float:
    return psnr(*(torch.from_numpy(x.copy()).permute(2, 0, 1)[None] for x in (a, b))).item()


def missing(shape: tuple[int, ...], part: float = 0.5) -> np.ndarray:
    return np.random.default_rng(0).random(shape[:2]) < part


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", DENOISING)
def test_denoisers_better_noisy_images(name: str, channels: int) -> None:
    if name == "BM3D":
        pytest.importorskip("bm3d", reason="the package bm3d is not installed")
    clean = scene(channels)
    noisy = clean + np.random.default_rng(1).normal(0, 20, clean.shape)
    stored = noisy.round().clip(0, 255).astype(np.uint8)
    for given in (noisy, noisy.astype(np.float32), stored):
        restored = DENOISING[name](given, 20.0)
        assert restored.dtype == np.uint8
        assert restored.shape == clean.shape
        gain = decibels(restored, clean) - decibels(stored, clean)
        assert gain == 0 if name == "noisy" else gain > 4


def test_without_noise_nothing_changes() -> None:
    image = scene(3)
    assert np.array_equal(non_local_means(image, 0), image)
    assert np.array_equal(bm3d(image, 0), image)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", INPAINTING)
def test_inpainting_keeps_what_is_known_and_betters_the_rest(name: str, channels: int) -> None:
    clean = scene(channels)
    mask = missing(clean.shape)
    damaged = np.where(mask[..., None], 0, clean).astype(np.uint8)
    restored = INPAINTING[name](damaged, mask)
    assert restored.dtype == np.uint8
    assert restored.shape == clean.shape
    assert np.array_equal(restored[~mask], clean[~mask])
    gain = decibels(restored, clean) - decibels(damaged, clean)
    assert gain == 0 if name == "damaged" else gain > 15


def test_linear_interpolation_is_exact_on_a_slope() -> None:
    down, along = np.arange(20)[:, None], np.arange(30)
    clean = (3 * down + 2 * along)[..., None].astype(np.uint8)
    mask = missing(clean.shape)
    mask[[0, 0, -1, -1], [0, -1, 0, -1]] = False  # so that no pixel is outside
    damaged = np.where(mask[..., None], 0, clean).astype(np.uint8)
    assert np.array_equal(linear(damaged, mask), clean)


@pytest.mark.parametrize("known", [[(3, 4)], [(0, 0), (1, 1), (2, 2), (5, 5)], [(2, 1), (2, 5)]])
def test_linear_interpolation_from_points_on_a_line_takes_the_nearest(
    known: list[tuple[int, int]],
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    mask = np.ones((8, 8), bool)
    for place in known:
        mask[place] = False
    restored = linear(image, mask)
    colours = {tuple(image[place].tolist()) for place in known}
    assert {tuple(pixel) for pixel in restored.reshape(-1, 3).tolist()} == colours


@pytest.mark.parametrize("name", ["linear", "biharmonic"])
def test_masks_that_cannot_be_used_are_refused(name: str) -> None:
    image = scene(3)
    with pytest.raises(InputError, match="mask of 40x47 is not of an image of 40x48"):
        INPAINTING[name](image, np.zeros((47, 40), bool))
    with pytest.raises(InputError, match="all pixels are missing"):
        INPAINTING[name](image, np.ones((48, 40), bool))
    assert np.array_equal(INPAINTING[name](image, np.zeros((48, 40), bool)), image)


@pytest.mark.parametrize(
    ("call", "absent", "remedy"),
    [
        (lambda: bm3d(scene(1), 5), "bm3d", "BM3D needs bm3d.*pip install bm3d"),
        (
            lambda: non_local_means(scene(1), 5),
            "skimage.restoration",
            r"needs scikit-image.*'genimg\[baselines\]'",
        ),
        (
            lambda: linear(scene(1), missing((48, 40))),
            "scipy.interpolate",
            r"needs scipy.*'genimg\[baselines\]'",
        ),
    ],
)
def test_what_is_not_installed_is_named(monkeypatch, call, absent: str, remedy: str) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(InputError, match=remedy):
        call()
