"""Losses of restoration against closed forms, NumPy's transform, the metrics and gradcheck."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from genimg.errors import InputError
from genimg.losses import RestorationLoss, charbonnier, fourier_l1, psnr_loss, ssim_loss
from genimg.losses.restoration import LOSSES
from genimg.metrics.fidelity import psnr, ssim
from genimg.pixels import to_bytes_range
from genimg.similarity import window_mean


def pair(*shape: int, noise: float = 0.2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Waves in [-1, 1] and a noisy copy, rounded as bytes are."""
    generator = torch.Generator().manual_seed(seed)
    phase = torch.rand(*shape[:2], 1, 1, generator=generator) * 6
    down, along = torch.arange(shape[-2]) / 5, torch.arange(shape[-1]) / 7
    clean = 0.8 * (down[:, None] + phase).sin() * (along + phase).cos()
    noisy = clean + noise * torch.randn(shape, generator=generator)
    return to_bytes_range(noisy) / 127.5 - 1, to_bytes_range(clean) / 127.5 - 1


def test_charbonnier_is_the_absolute_difference_smoothed_at_zero() -> None:
    zero = torch.zeros(1, 1, 2, 2)
    assert charbonnier(zero, zero).item() == pytest.approx(1e-3)
    assert charbonnier(zero + 0.3, zero, eps=0.4).item() == pytest.approx(0.5)
    restored, clean = pair(2, 3, 16, 16)
    assert charbonnier(restored, clean, eps=1e-6).item() == pytest.approx(
        (restored - clean).abs().mean().item(), abs=2e-6
    )


def test_the_psnr_loss_is_minus_the_mean_psnr() -> None:
    restored, clean = pair(4, 3, 16, 20)
    values = psnr(to_bytes_range(restored), to_bytes_range(clean))
    assert psnr_loss(restored, clean).item() == pytest.approx(-values.mean().item(), abs=1e-3)
    assert psnr_loss(clean, clean).item() == pytest.approx(-80, abs=1e-4)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.2, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_ssim_loss_is_that_of_the_metric(noise: float, channels: int) -> None:
    restored, clean = pair(3, channels, 48, 37, noise=noise)
    expected = 1 - ssim(to_bytes_range(restored), to_bytes_range(clean)).mean().item()
    assert ssim_loss(restored, clean).item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("levels", [(-1.0, -1.0), (1.0, 1.0), (1.0, 0.98), (-1.0, 1.0)])
def test_the_ssim_loss_of_one_colour_is_that_of_the_metric(levels: tuple[float, float]) -> None:
    a, b = (torch.full((1, 1, 32, 32), level) for level in levels)
    expected = 1 - ssim(to_bytes_range(a), to_bytes_range(b)).item()
    assert ssim_loss(a, b).item() == pytest.approx(expected, abs=1e-3)


def test_the_ssim_loss_is_float32_within_autocast_too() -> None:
    restored, clean = pair(2, 1, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = ssim_loss(restored, clean)
    assert within.item() == pytest.approx(ssim_loss(restored, clean).item(), abs=1e-6)


def test_a_window_first_used_without_gradients_still_gives_them() -> None:
    with torch.inference_mode():
        window_mean(torch.zeros(1, 23, 29))
    planes = torch.rand(1, 23, 29, requires_grad=True)
    window_mean(planes).sum().backward()
    assert planes.grad is not None


def test_images_below_the_window_are_refused() -> None:
    with pytest.raises(InputError, match="12x10: the SSIM loss needs 11x11"):
        ssim_loss(torch.zeros(1, 1, 10, 12), torch.zeros(1, 1, 10, 12))


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (1, 1, 9, 14)])
def test_the_fourier_loss_is_that_of_numpys_transform(shape: tuple[int, ...]) -> None:
    restored, clean = pair(*shape)
    difference = np.fft.fft2(restored.double().numpy()) - np.fft.fft2(clean.double().numpy())
    expected = np.concatenate([np.abs(difference.real), np.abs(difference.imag)]).mean()
    assert fourier_l1(restored, clean).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.rand(2, 2, 1, 12, 13, dtype=torch.float64, generator=generator) * 2 - 1
    assert torch.autograd.gradcheck(LOSSES[name], (a.requires_grad_(), b), fast_mode=True)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("level", [-1.0, 0.0, 1.0])
def test_gradients_are_finite_at_equality_and_of_one_colour(name: str, level: float) -> None:
    flat = torch.full((2, 3, 16, 16), level)
    other = torch.full((2, 3, 16, 16), -0.5)
    for start, clean in ((flat, flat), (flat, other), pair(2, 3, 16, 16), pair(2, 3, 16, 16)[::-1]):
        restored = start.clone().requires_grad_()
        loss = LOSSES[name](restored, clean)
        loss.backward()
        assert loss.isfinite()
        assert restored.grad is not None
        assert restored.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_least_at_the_truth_and_a_mean_over_images(name: str) -> None:
    restored, clean = pair(4, 3, 16, 16)
    loss = LOSSES[name]
    assert loss(clean, clean) < loss(0.5 * (restored + clean), clean) < loss(restored, clean)
    alone = [loss(x[None], y[None]).item() for x, y in zip(restored, clean, strict=True)]
    assert loss(restored, clean).item() == pytest.approx(sum(alone) / 4, rel=1e-4)


def test_the_sum_is_weighted() -> None:
    restored, clean = pair(2, 3, 16, 16)
    section = RestorationLoss(absolute=0.5, psnr=0.01, ssim=2, fourier=0.05)
    expected = (
        0.5 * LOSSES["absolute"](restored, clean) + 0.01 * psnr_loss(restored, clean)
        + 2 * ssim_loss(restored, clean) + 0.05 * fourier_l1(restored, clean)
    )  # fmt: skip
    torch.testing.assert_close(section.between(restored, clean), expected)
    plain = RestorationLoss().between(restored, clean)
    torch.testing.assert_close(plain, (restored - clean).abs().mean())
    assert set(RestorationLoss.model_fields) == set(LOSSES)


def test_a_loss_without_weights_is_refused() -> None:
    with pytest.raises(InputError, match="all weights of the loss are 0; give one above 0"):
        RestorationLoss.validated({"absolute": 0})
    with pytest.raises(InputError, match="ssim=-1"):
        RestorationLoss.validated({"ssim": -1})
    with pytest.raises(InputError, match="did you mean 'fourier'"):
        RestorationLoss().override(["fourrier=0.05"])


@pytest.mark.parametrize("name", LOSSES)
def test_descent_restores_the_image(name: str) -> None:
    restored, clean = pair(1, 1, 16, 16, noise=0.3)
    guess = restored.clone().requires_grad_()
    optimizer = torch.optim.Adam([guess], lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        LOSSES[name](guess, clean).backward()
        optimizer.step()
    before, after = ((x - clean).square().mean().item() for x in (restored, guess.detach()))
    assert after < 0.5 * before
    assert math.isfinite(after)
