"""PSNR, SSIM and luma against known values and scikit-image."""

import math

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from genimg.errors import InputError
from genimg.metrics.colour import luma
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


@pytest.mark.parametrize("crop", [0, 1, 4])
def test_crop_leaves_out_the_border(crop: int) -> None:
    a, b = pairs(3)
    inner = (..., slice(crop, 32 - crop), slice(crop, 40 - crop))
    for metric in (psnr, ssim):
        expected = metric(a[inner], b[inner])
        torch.testing.assert_close(metric(a, b, crop), expected, rtol=1e-12, atol=0)
    with pytest.raises(InputError, match="crop=16: nothing is left of images of 40x32"):
        psnr(a, b, 16)
    with pytest.raises(InputError, match="18x10: SSIM needs"):
        ssim(a, b, 11)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_bytes_in_float64_score_as_they_do(metric) -> None:
    a, b = pairs(3)
    torch.testing.assert_close(
        metric(a.double(), b.double(), 2), metric(a, b, 2), rtol=1e-12, atol=0
    )


def test_fidelity_of_luma_is_that_of_scikit_image() -> None:
    a, b = (luma(each) for each in pairs(3))
    expected = [
        (
            peak_signal_noise_ratio(x, y, data_range=255),
            structural_similarity(
                x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
            ),
        )
        for x, y in zip(a[:, 0].numpy(), b[:, 0].numpy(), strict=True)
    ]
    assert psnr(a, b).tolist() == pytest.approx([each for each, _ in expected], rel=1e-10)
    assert ssim(a, b).tolist() == pytest.approx([each for _, each in expected], rel=1e-9)


def test_luma_is_that_of_scikit_image() -> None:
    images, _ = pairs(3)
    expected = rgb2ycbcr(images.numpy(), channel_axis=1)[:, :1]
    np.testing.assert_allclose(luma(images).numpy(), expected, rtol=0, atol=1e-10)


def test_luma_goes_from_16_to_235() -> None:
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    assert luma(ends).flatten().tolist() == pytest.approx([16, 235], abs=1e-10)
    with pytest.raises(InputError, match="compare them as they are"):
        luma(ends[:, :1])


def test_luma_of_gray_scores_higher_by_its_range() -> None:
    """219 steps for 255: of gray images the luma's PSNR is 1.32 dB higher."""
    gray = [each.expand(-1, 3, -1, -1) for each in pairs(1)]
    gain = psnr(*map(luma, gray)) - psnr(*gray)
    assert gain.tolist() == pytest.approx([20 * math.log10(255 / 219)] * 4, abs=1e-9)
