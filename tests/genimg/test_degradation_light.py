"""Light and colour, by the numbers."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image

from genimg.degradations.light import Gray, Light, luma
from genimg.pixels import to_bytes_range
from genimg.rng import fold

KEYS = fold(9, torch.arange(300))
SAME = dict.fromkeys(("gamma", "gain", "contrast", "saturation", "cast"), (1.0, 1.0))
COLOURS = torch.rand(300, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1


def values(images: torch.Tensor) -> torch.Tensor:
    return (images + 1) / 2


def light(images: torch.Tensor = COLOURS, **ranges) -> torch.Tensor:
    return Light.validated(SAME | ranges).damage(images, KEYS[: len(images)]).images


def test_factors_of_one_change_nothing() -> None:
    torch.testing.assert_close(light(), COLOURS)


def test_gamma_and_gain_darken() -> None:
    torch.testing.assert_close(values(light(gamma=2.2)), values(COLOURS) ** 2.2)
    torch.testing.assert_close(values(light(gain=0.25)), values(COLOURS) * 0.25)
    both = light(gain=0.5, gamma=3)
    torch.testing.assert_close(values(both), values(COLOURS) ** 3 * 0.5)


def test_contrast_is_about_mid_gray() -> None:
    torch.testing.assert_close(light(contrast=0.4), COLOURS * 0.4)
    torch.testing.assert_close(light(contrast=3), (COLOURS * 3).clamp(-1, 1))


def test_saturation_keeps_luma_and_hue() -> None:
    pale = light(saturation=0.3)
    torch.testing.assert_close(luma(pale), luma(COLOURS), rtol=0, atol=1e-5)
    before, after = (
        np.array([colorsys.rgb_to_hsv(*pixel) for pixel in values(each)[..., 0, 0].tolist()])
        for each in (COLOURS, pale)
    )
    np.testing.assert_allclose(before[:, 0], after[:, 0], atol=1e-3)
    torch.testing.assert_close(light(saturation=0), Gray().damage(COLOURS, KEYS).images)


def test_a_cast_is_a_factor_a_channel() -> None:
    factors = (values(light(cast=(0.5, 0.9))) / values(COLOURS)).flatten(2)
    torch.testing.assert_close(factors.amin(dim=2), factors.amax(dim=2), rtol=1e-3, atol=1e-3)
    drawn = factors.mean(dim=2)
    assert 0.499 < drawn.min() < 0.52
    assert 0.88 < drawn.max() < 0.901
    assert abs(float(torch.corrcoef(drawn.T)[0, 1])) < 0.2


def test_gray_images_have_no_colour_to_lose() -> None:
    gray = COLOURS[:, :1]
    assert torch.equal(light(gray, saturation=0, cast=(0.1, 0.2)), light(gray))
    assert torch.equal(Gray().damage(gray, KEYS).images, gray)


def test_it_stays_in_range_and_noise_does_no_harm() -> None:
    made = light(COLOURS * 1.5, gamma=(0.2, 3), gain=(0.1, 5), cast=(0, 4), contrast=(0, 5))
    assert made.isfinite().all()
    assert made.abs().max() <= 1


def test_gray_is_pillows_luma() -> None:
    pixels = to_bytes_range(COLOURS[:1])[0].permute(1, 2, 0).numpy()
    expected = np.array(Image.fromarray(pixels).convert("L"))
    made = Gray().damage(to_bytes_range(COLOURS[:1]).float() / 127.5 - 1, KEYS[:1]).images
    assert made.shape == (1, 3, 4, 5)
    for channel in to_bytes_range(made)[0]:
        np.testing.assert_allclose(channel.int(), expected.astype(int), atol=1)


@pytest.mark.parametrize("name", ["gamma", "gain", "contrast", "saturation"])
def test_each_image_has_its_own(name: str) -> None:
    made = light(COLOURS[:1].expand(300, -1, -1, -1), **{name: (0.5, 0.9)})
    assert len(made[:, 0, 0, 0].unique()) > 280
