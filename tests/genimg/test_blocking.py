"""PSNR-B against loops over pixels, and what it says of JPEG."""

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from genimg.errors import InputError
from genimg.metrics.blocking import blocking_effect, psnr_b
from genimg.metrics.fidelity import psnr


def drawn(*shape: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))


def loops(test: np.ndarray, truth: np.ndarray) -> float:
    """PSNR-B of [H, W], neighbour by neighbour."""
    height, width = test.shape
    edge: list[float] = []
    inner: list[float] = []
    for y in range(height):
        for x in range(width):
            for down, right in ((0, 1), (1, 0)):
                if y + down < height and x + right < width:
                    square = (float(test[y, x]) - float(test[y + down, x + right])) ** 2
                    at = x if right else y
                    (edge if at % 8 == 7 else inner).append(square)
    excess = np.mean(edge) - np.mean(inner)
    effect = excess * math.log2(8) / math.log2(min(height, width)) if excess > 0 else 0
    error = np.mean((test.astype(float) - truth.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / (error + effect)))


@given(st.integers(9, 33), st.integers(9, 33), st.integers(0, 99), st.integers(0, 60))
def test_psnr_b_is_that_of_loops(height: int, width: int, seed: int, step: int) -> None:
    """Of noise with blocks that differ by `step`, of any size."""
    truth = drawn(1, 1, height, width, seed=seed) // 8 + 64
    down, along = torch.arange(height) // 8 % 2, torch.arange(width) // 8 % 2
    test = (truth + step * (down[:, None] ^ along)).to(torch.uint8)
    expected = loops(test[0, 0].numpy(), (255 - truth)[0, 0].numpy())
    assert psnr_b(test, 255 - truth).item() == pytest.approx(expected, rel=1e-12)
    assert psnr_b(test.double(), 255 - truth.double()).item() == pytest.approx(expected, rel=1e-9)


def test_strips_and_batches_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = drawn(3, 1, 40, 33) // 4, drawn(3, 1, 40, 33, seed=1)
    a[..., 8:16, :] += 99  # edges
    whole = psnr_b(a, b)
    assert (blocking_effect(a) > 0).all()
    monkeypatch.setattr("genimg.metrics.fidelity._BYTES", 99)
    torch.testing.assert_close(psnr_b(a, b), whole, rtol=1e-12, atol=0)
    alone = torch.cat([psnr_b(x[None], y[None]) for x, y in zip(a, b, strict=True)])
    torch.testing.assert_close(alone, whole, rtol=1e-12, atol=0)


def test_without_blocks_it_is_the_psnr() -> None:
    ramp = (3 * (torch.arange(24)[:, None] + torch.arange(40))).to(torch.uint8)[None, None]
    assert blocking_effect(ramp).item() == 0
    torch.testing.assert_close(psnr_b(ramp, ramp + 3), psnr(ramp, ramp + 3))
    assert psnr_b(ramp, ramp).item() == math.inf


def test_jpeg_leaves_blocks_the_more_the_lower_its_quality() -> None:
    wave = np.sin(np.arange(96) / 11) * np.cos(np.arange(80) / 9)[:, None]
    truth = (128 + 100 * wave).astype(np.uint8)
    effects = []
    for quality in (5, 10, 40):
        out = io.BytesIO()
        Image.fromarray(truth).save(out, "JPEG", quality=quality)
        jpeg, clean = (
            torch.from_numpy(np.array(each))[None, None] for each in (Image.open(out), truth)
        )
        effects.append(blocking_effect(jpeg).item())
        assert psnr_b(jpeg, clean) < psnr(jpeg, clean) - 1
        shifted = jpeg[..., 4:, 4:]  # no longer where the blocks are looked for
        assert blocking_effect(shifted) < blocking_effect(jpeg)
    assert effects[0] > effects[1] > effects[2]


def test_colour_and_small_images_are_refused() -> None:
    with pytest.raises(InputError, match="3 channels: PSNR-B is defined on one; give their luma"):
        psnr_b(drawn(1, 3, 16, 16), drawn(1, 3, 16, 16))
    with pytest.raises(InputError, match="16x8: PSNR-B needs 9x9"):
        psnr_b(drawn(1, 1, 8, 16), drawn(1, 1, 8, 16))
