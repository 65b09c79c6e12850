"""PSNR and SSIM against known values and scikit-image."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from genimg.errors import InputError
from genimg.metrics.fidelity import psnr, ssim


def pairs(channels: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth images and noisier and noisier versions of them, uint8 [4, C, 32, 40]."""
    rng = np.random.default_rng(seed)
    wave = np.sin(np.arange(40) / 5) * np.cos(np.arange(32) / 7)[:, None]
    clean = np.clip(128 + 90 * wave + rng.normal(0, 3, (4, channels, 32, 40)), 0, 255)
    sigma = np.array([1, 10, 40, 120]).reshape(4, 1, 1, 1)
    noisy = np.clip(clean + sigma * rng.normal(size=clean.shape), 0, 255)
    return torch.from_numpy(clean.astype(np.uint8)), torch.from_numpy(noisy.astype(np.uint8))


def test_psnr_of_known_errors() -> None:
    black = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    other = torch.stack([black[0], black[0] + 1, black[0] + 255])
    assert psnr(black, other).tolist() == pytest.approx([math.inf, 20 * math.log10(255), 0.0])


def test_psnr_of_one_wrong_pixel() -> None:
    a = torch.full((1, 3, 10, 10), 100, dtype=torch.uint8)
    b = a.clone()
    b[0, 1, 2, 3] = 110
    assert psnr(a, b).item() == pytest.approx(10 * math.log10(255**2 / (100 / 300)))


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_is_that_of_scikit_image(channels: int) -> None:
    a, b = pairs(channels)
    expected = [peak_signal_noise_ratio(x, y) for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    assert psnr(a, b).tolist() == pytest.approx(expected, rel=1e-12)
    assert torch.equal(psnr(a, b), psnr(b, a))


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_scikit_image(channels: int) -> None:
    a, b = pairs(channels)
    expected = [
        structural_similarity(
            x, y, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for x, y in zip(a.numpy(), b.numpy(), strict=True)
    ]
    assert ssim(a, b).tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("side", [1, 7, 30])
def test_blocks_do_not_change_the_similarity(monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    a, b = pairs(3)
    whole = ssim(a, b)
    monkeypatch.setattr("genimg.metrics.fidelity._SIDE", side)
    monkeypatch.setattr("genimg.metrics.fidelity._BYTES", side)
    torch.testing.assert_close(ssim(a, b), whole, rtol=1e-12, atol=0)
    expected = [peak_signal_noise_ratio(x, y) for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    assert psnr(a, b).tolist() == pytest.approx(expected, rel=1e-12)


def test_ssim_of_flat_images_is_the_luminance_term() -> None:
    a = torch.full((1, 1, 11, 11), 50, dtype=torch.uint8)
    b = torch.full((1, 1, 11, 11), 200, dtype=torch.uint8)
    c1 = 2.55**2
    assert ssim(a, b).item() == pytest.approx((2 * 50 * 200 + c1) / (50**2 + 200**2 + c1))
    assert ssim(a, a).item() == pytest.approx(1)


def test_scores_do_not_depend_on_the_batch() -> None:
    a, b = pairs(3)
    for metric in (psnr, ssim):
        alone = torch.cat([metric(x[None], y[None]) for x, y in zip(a, b, strict=True)])
        torch.testing.assert_close(metric(a, b), alone, rtol=1e-12, atol=0)


def test_images_that_cannot_be_compared_are_refused() -> None:
    a, b = pairs(1)
    with pytest.raises(InputError, match=r"\[4, 1, 32, 40\] cannot be compared"):
        psnr(a, b[..., :-1])
    with pytest.raises(InputError, match="cannot be compared"):
        ssim(a, b[:2])
    with pytest.raises(InputError, match="10x32: SSIM needs 11x11"):
        ssim(a[..., :10], b[..., :10])
