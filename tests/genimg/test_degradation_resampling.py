"""Bicubic resampling against the published row of Set5, Pillow, and float64 written out."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from genimg.degradations.resampling import Shrink, bicubic
from genimg.errors import InputError
from genimg.rng import fold


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    made = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made * 2 - 1


def rounded(images: torch.Tensor) -> torch.Tensor:
    return ((images.clamp(-1, 1) + 1) * 127.5).round()


def luma(images: torch.Tensor) -> torch.Tensor:
    """Y of BT.601 in 16..235, float64 [N, 1, H, W], of RGB in [-1, 1]: whole, as bytes hold it.

    As rgb2ycbcr of MATLAB makes it of bytes. Left unrounded it would score 0.02 to 0.03 dB more.
    """
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64) / 255
    return (16 + torch.einsum("nchw,c->nhw", rounded(images), weights)).round()[:, None]


def decibels(a: torch.Tensor, b: torch.Tensor, crop: int) -> float:
    error = (a - b)[..., crop:-crop, crop:-crop].square().mean()
    return 10 * math.log10(255**2 / float(error))


SET5 = [(2, 33.66), (3, 30.39), (4, 28.42)]


def set5(shared_data: Path, scale: int) -> list[torch.Tensor]:
    """float64 [1, 3, H, W] in [-1, 1], sides multiples of the scale."""
    images = []
    for file in sorted((shared_data / "sr" / "Set5").glob("*.bmp")):
        pixels = np.asarray(Image.open(file).convert("RGB"))
        height, width = (side - side % scale for side in pixels.shape[:2])
        image = torch.tensor(pixels[:height, :width]).permute(2, 0, 1)[None]
        images.append(image.double() / 127.5 - 1)
    assert len(images) == 5
    return images


@pytest.mark.parametrize(("scale", "published"), SET5)
def test_the_bicubic_row_of_set5(shared_data: Path, scale: int, published: float) -> None:
    scores = []
    for image in set5(shared_data, scale):
        small = Shrink(scale=scale).damage(image.float(), fold(0, torch.arange(1))).images
        large = bicubic(small.double(), scale)
        scores.append(decibels(luma(image), luma(large), scale))
    assert np.mean(scores) == pytest.approx(published, abs=0.02)


@pytest.mark.parametrize(("scale", "published"), SET5)
def test_that_row_as_it_was_made(shared_data: Path, scale: int, published: float) -> None:
    """Of luma alone, not rounded where it is small: so the row comes out to the digit."""
    scores = []
    for image in set5(shared_data, scale):
        y = luma(image)
        large = bicubic(bicubic(y, Fraction(1, scale)), scale).round()
        scores.append(decibels(y, large, scale))
    assert np.mean(scores) == pytest.approx(published, abs=0.005)


def keys_cubic(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def by_hand(row: list[float], size: int, scale: float) -> list[float]:
    """imresize's definition along one row, a pixel at a time."""
    length, stretch = len(row), max(1.0, 1 / scale)
    mirror = [*row, *reversed(row)]
    made = []
    for place in range(size):
        centre = (place + 0.5) / scale - 0.5
        reach = range(math.floor(centre - 2 * stretch), math.ceil(centre + 2 * stretch) + 1)
        weights = [keys_cubic((centre - source) / stretch) for source in reach]
        values = [mirror[source % (2 * length)] for source in reach]
        made.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
    return made


@given(st.integers(1, 23), st.fractions(Fraction(1, 6), 5, max_denominator=6))
def test_a_row_by_its_definition(length: int, scale: Fraction) -> None:
    row = noise(length, seed=length)
    made = bicubic(row[None, None, None].expand(1, 1, 2, -1), scale)
    size = math.ceil(scale * length)
    assert made.shape == (1, 1, math.ceil(2 * scale), size)
    expected = by_hand(row.tolist(), size, float(scale))
    np.testing.assert_allclose(made[0, 0, 0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sides", [(20, 30), (15, 47), (120, 180), (60, 90)])
def test_inside_it_is_pillows(sides: tuple[int, int]) -> None:
    """Which cuts the kernel at the borders, and does not mirror."""
    image = noise(60, 90).float()
    made = bicubic(image[None, None], sides)[0, 0]
    expected = np.asarray(
        Image.fromarray(image.numpy()).resize(sides[::-1], Image.Resampling.BICUBIC)
    )
    skip_y, skip_x = (
        math.ceil(2 * max(1, new / old)) for new, old in zip(sides, (60, 90), strict=True)
    )
    np.testing.assert_allclose(
        made[skip_y:-skip_y, skip_x:-skip_x], expected[skip_y:-skip_y, skip_x:-skip_x],
        rtol=0, atol=2e-5,
    )  # fmt: skip


def test_known_values() -> None:
    """An impulse twice as large: Keys' kernel at odd quarters."""
    row = torch.zeros(1, 1, 1, 9, dtype=torch.float64)
    row[..., 4] = 1
    made = bicubic(row, (1, 18))[0, 0, 0, 5:13] * 128
    assert made.tolist() == pytest.approx([-3, -9, 29, 111, 111, 29, -9, -3])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 90), st.integers(1, 90))
def test_constants_stay(height: int, width: int, tall: int, wide: int) -> None:
    constant = torch.full((2, 3, height, width), 0.3)
    torch.testing.assert_close(bicubic(constant, (tall, wide)), torch.full((2, 3, tall, wide), 0.3))


def test_rows_and_columns_are_resampled_alike() -> None:
    image = noise(1, 1, 31, 57)
    torch.testing.assert_close(bicubic(image.mT, (20, 70)).mT, bicubic(image, (70, 20)))
    torch.testing.assert_close(
        bicubic(bicubic(image, (31, 20)), (70, 20)), bicubic(image, (70, 20))
    )


def test_it_is_symmetric() -> None:
    image = noise(1, 2, 24, 36)
    for scale in (Fraction(1, 3), Fraction(1, 4), 2, Fraction(3, 2)):
        torch.testing.assert_close(
            bicubic(image.flip(2, 3), scale), bicubic(image, scale).flip(2, 3)
        )


def test_large_images_are_made_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(1, 1, 100, 130)
    whole = [bicubic(image, scale) for scale in (Fraction(1, 3), 4)]
    monkeypatch.setattr("genimg.degradations.resampling._BLOCK", 7)
    for scale, expected in zip((Fraction(1, 3), 4), whole, strict=True):
        torch.testing.assert_close(bicubic(image, scale), expected)


@pytest.mark.parametrize("sides", [(1, 1), (1, 9), (5, 5), (8, 7)])
def test_shrunk_sides_are_rounded_up(sides: tuple[int, int]) -> None:
    images = noise(2, 3, *sides).float() * 1.4
    for scale in (2, 3, 4):
        keys = fold(0, torch.arange(2))
        small = Shrink(scale=scale).damage(images, keys).images
        assert small.shape[-2:] == tuple(-(-side // scale) for side in sides)
        levels = (small + 1) * 127.5
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
        free = Shrink(scale=scale, quantise=False).damage(images, keys).images
        torch.testing.assert_close(small, free.clamp(-1, 1), rtol=0, atol=0.5 / 127.5 + 1e-6)


def test_some_of_a_batch_cannot_shrink() -> None:
    with pytest.raises(InputError, match=r"probability=0\.5: .* leave it out"):
        Shrink.validated({"probability": 0.5})
