"""The blind estimate of noise against noise of known level."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from genimg import noise_level
from genimg.degradations.noise import gaussian_noise
from genimg.noise_level import MOST_PATCHES, _stride, estimate_sigma
from genimg.pixels import to_bytes_range
from genimg.rng import fold


def noisy(images: torch.Tensor, sigma: float, seed: int = 0) -> torch.Tensor:
    keys = fold(seed, torch.arange(len(images)))
    return gaussian_noise(images, keys, torch.full((len(images),), sigma))


def natural(folder: Path) -> list[torch.Tensor]:
    """Every other image of Set12: float32 [1, 1, H, W]."""
    files = sorted((folder / "denoise" / "Set12").glob("*.png"))[::2]
    images = [torch.from_numpy(np.array(Image.open(file).convert("L"))) for file in files]
    return [image[None, None].float() / 127.5 - 1 for image in images]


@pytest.mark.parametrize("sigma", [5.0, 15.0, 50.0])
def test_natural_images(shared_data: Path, sigma: float) -> None:
    errors = [
        float(estimate_sigma(noisy(image, sigma, seed))) - sigma
        for seed, image in enumerate(natural(shared_data))
    ]
    assert np.abs(errors).mean() < 0.7
    assert np.abs(errors).max() < 1.5


@pytest.mark.parametrize("sigma", [0.5, 10.0, 50.0])
def test_pure_noise(sigma: float) -> None:
    assert float(estimate_sigma(noisy(torch.zeros(1, 1, 128, 128), sigma))) == pytest.approx(
        sigma, rel=0.04
    )


@pytest.mark.parametrize("sigma", [5.0, 25.0])
def test_texture_is_not_read_as_noise(sigma: float) -> None:
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    image = torch.sin(x / 3) * torch.cos(y / 4) * (x > 64)
    estimate = float(estimate_sigma(noisy(image[None, None], sigma)))
    assert estimate == pytest.approx(sigma, abs=0.8)


@pytest.mark.parametrize("end", [0, 255])
def test_frames_and_what_is_overexposed_do_not_hide_noise(end: int) -> None:
    ramp = torch.linspace(-1, 1, 128).expand(1, 1, 128, 128)
    image = to_bytes_range(noisy(ramp + (0.5 if end else -0.5), 20.0))
    image[..., :40, :] = end  # a third, without noise
    assert float(estimate_sigma(image, peak=255)) == pytest.approx(20, abs=1)
    drawing = torch.full((1, 1, 128, 128), end, dtype=torch.uint8)
    drawing[..., 30:60, 30:60] = 255 - end
    assert float(estimate_sigma(drawing, peak=255)) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("size", [(16, 16), (28, 28), (32, 48)])
def test_tiny_images(size: tuple[int, int]) -> None:
    ramp = torch.linspace(-1, 1, size[1]).expand(40, 1, *size)
    estimates = estimate_sigma(noisy(ramp, 20.0))
    assert estimates.shape == (40,)
    assert float(estimates.mean()) == pytest.approx(20, abs=2)
    assert float(estimates.std()) < 3


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (3, 3), (8, 8), (40, 40), (100, 70)])
def test_constant_images_are_clean(size: tuple[int, int]) -> None:
    images = torch.tensor([-1.0, 0.3, 1.0])[:, None, None, None].expand(3, 3, *size)
    assert estimate_sigma(images).tolist() == pytest.approx([0, 0, 0], abs=1e-4)


def test_every_image_of_a_batch_is_judged_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.cat([noisy(torch.zeros(1, 3, 70, 80), sigma) for sigma in (2.0, 20.0, 60.0)])
    together = estimate_sigma(images)
    assert together.tolist() == pytest.approx([2, 20, 60], rel=0.05)
    monkeypatch.setattr(noise_level, "VALUES_AT_ONCE", 1)  # a plane at a time
    torch.testing.assert_close(estimate_sigma(images), together)


def test_channels_are_averaged() -> None:
    plane = noisy(torch.zeros(2, 1, 96, 96), 30.0)
    image = torch.stack([plane[0, 0], torch.zeros(96, 96), plane[1, 0]])[None]
    assert float(estimate_sigma(image)) == pytest.approx(20, rel=0.05)


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_large_images_are_sampled_on_the_densest_grid_allowed(rows: int, columns: int) -> None:
    def patches(stride: int) -> int:
        return len(range(0, rows, stride)) * len(range(0, columns, stride))

    stride = _stride(rows, columns)
    assert patches(stride) <= MOST_PATCHES
    assert stride == 1 or patches(stride - 1) > MOST_PATCHES


def test_a_sampled_image_is_judged_as_well() -> None:
    image = noisy(torch.zeros(1, 1, 300, 500), 12.0)
    assert _stride(300 - 7, 500 - 7) == 3
    assert float(estimate_sigma(image)) == pytest.approx(12, rel=0.03)
