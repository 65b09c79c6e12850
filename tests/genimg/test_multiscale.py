"""MS-SSIM against an implementation of its own: SciPy's filters, float64, one image at a time."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from torch import Tensor

from genimg.errors import InputError
from genimg.metrics.fidelity import ssim
from genimg.metrics.multiscale import ms_ssim, pairs_of, scales_of

WEIGHTS = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]


def pairs(height: int, width: int, channels: int = 1) -> tuple[Tensor, Tensor]:
    """Waves and noisier and noisier versions of them, uint8 [3, C, H, W]."""
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(width) / 9) * np.cos(np.arange(height) / 7)[:, None]
    clean = np.clip(128 + 90 * wave + rng.normal(0, 5, (3, channels, height, width)), 0, 255)
    sigma = np.array([2, 20, 90]).reshape(3, 1, 1, 1)
    noisy = np.clip(clean + sigma * rng.normal(size=clean.shape), 0, 255)
    return torch.from_numpy(clean.astype(np.uint8)), torch.from_numpy(noisy.astype(np.uint8))


def smooth(plane: np.ndarray) -> np.ndarray:
    weights = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    for axis in (0, 1):
        plane = correlate1d(plane, weights / weights.sum(), axis=axis)
    return plane[5:-5, 5:-5]


def halved(plane: np.ndarray) -> np.ndarray:
    height, width = plane.shape
    even = np.pad(plane, ((0, height % 2), (0, width % 2)), mode="symmetric")
    return even.reshape(-(-height // 2), 2, -(-width // 2), 2).mean(axis=(1, 3))


def straightforward(x: np.ndarray, y: np.ndarray, scales: int = 5) -> float:
    out = 1.0
    weights = np.array(WEIGHTS[:scales])
    for scale, weight in enumerate(weights / weights.sum() if scales < 5 else weights):
        mx, my = smooth(x), smooth(y)
        vx, vy, cov = (smooth(u * v) - smooth(u) * smooth(v) for u, v in ((x, x), (y, y), (x, y)))
        terms = (2 * cov + 7.65**2) / (vx + vy + 7.65**2)
        if scale == scales - 1:
            terms = terms * (2 * mx * my + 2.55**2) / (mx**2 + my**2 + 2.55**2)
        out *= max(terms.mean(), 0) ** weight
        x, y = halved(x), halved(y)
    return out


@pytest.mark.parametrize("shape", [(161, 176, 1), (183, 201, 3)])
def test_ms_ssim_is_that_of_a_straightforward_implementation(shape: tuple[int, int, int]) -> None:
    a, b = pairs(*shape)
    expected = [
        np.mean([straightforward(*planes) for planes in zip(x, y, strict=True)])
        for x, y in zip(a.double().numpy(), b.double().numpy(), strict=True)
    ]
    assert ms_ssim(a, b).tolist() == pytest.approx(expected, rel=1e-9)
    assert ms_ssim(a.double(), b.double()).tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("side", "scales"), [(11, 1), (20, 1), (28, 2), (41, 3), (128, 4)])
def test_smaller_images_have_fewer_scales(side: int, scales: int) -> None:
    a, b = pairs(side, side)
    assert scales_of(side) == scales
    expected = [
        straightforward(x[0], y[0], scales)
        for x, y in zip(a.double().numpy(), b.double().numpy(), strict=True)
    ]
    assert ms_ssim(a, b, scales=scales).tolist() == pytest.approx(expected, rel=1e-9)
    with pytest.raises(InputError, match=r"MS-SSIM, of \w+ scales, needs"):
        ms_ssim(a, b, scales=scales + 1)
    assert scales_of(10) == 0
    assert (scales_of(160), scales_of(161)) == (4, 5)


def test_pairs_are_of_one_class_and_no_image_is_in_two() -> None:
    labels = torch.randint(0, 7, (1001,), generator=torch.Generator().manual_seed(0))
    every = pairs_of(labels, 10_000)
    assert len(every) == sum(int(count) // 2 for count in labels.bincount())
    assert (labels[every[:, 0]] == labels[every[:, 1]]).all()
    assert len(every.unique()) == 2 * len(every)
    few = pairs_of(labels, 350)
    assert len(few) == 350
    shares = labels[few[:, 0]].bincount(minlength=7) / 350  # of every class by its share
    assert (shares - labels.bincount() / 1001).abs().max() < 0.05
    assert not torch.equal(few, pairs_of(labels, 350, seed=1))
    assert pairs_of(torch.arange(5), 10).shape == (0, 2)
    assert pairs_of(labels[:1], 10).shape == (0, 2)


def test_identical_images_score_1_and_noise_counts_less_than_at_one_scale() -> None:
    a, b = pairs(170, 180)
    assert ms_ssim(a, a).tolist() == pytest.approx([1.0] * 3)
    assert (ms_ssim(a, b) > ssim(a, b)).all()
    assert (ms_ssim(a, b).diff() < 0).all()


def test_a_negative_image_scores_0() -> None:
    a, _ = pairs(161, 161)
    assert ms_ssim(a, 255 - a).tolist() == [0.0] * 3


def test_crop_leaves_out_the_border() -> None:
    a, b = pairs(170, 180)
    torch.testing.assert_close(ms_ssim(a, b, 4), ms_ssim(a[..., 4:-4, 4:-4], b[..., 4:-4, 4:-4]))


def test_images_without_five_scales_are_refused() -> None:
    a, b = pairs(160, 200)
    with pytest.raises(InputError, match=r"200x160: MS-SSIM.* needs 161x161 or more; use PSNR"):
        ms_ssim(a, b)
