"""JPEG in batches against Pillow's libjpeg."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photographs

from genimg.degradations.jpeg import JPEG, jpeg, real
from genimg.metrics.fidelity import psnr
from genimg.pixels import to_bytes_range
from genimg.rng import fold

KEYS = fold(5, torch.arange(400))


def floats(image: np.ndarray) -> torch.Tensor:
    """uint8 [H, W] or [H, W, 3] -> float32 [1, C, H, W]."""
    planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    return torch.from_numpy(planes.copy())[None].float() / 127.5 - 1


def decibels(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(psnr(to_bytes_range(a), to_bytes_range(b)))


def by_pillow(images: torch.Tensor, quality: int, subsampling: int) -> torch.Tensor:
    pixels = to_bytes_range(images)[0].permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
        file, "JPEG", quality=quality, subsampling=subsampling
    )
    return floats(np.asarray(Image.open(file)))


GRAY = floats(photographs.camera()[100:321, 60:361])  # odd sides
COLOUR = floats(photographs.astronaut()[:187, 100:350])


@pytest.mark.parametrize("quality", [1, 10, 30, 49, 50, 75, 95, 100])
def test_gray_is_libjpegs(quality: int) -> None:
    made = jpeg(GRAY, torch.tensor([quality]))
    assert decibels(made, by_pillow(GRAY, quality, 0)) > 50


@pytest.mark.parametrize("subsample", [True, False])
@pytest.mark.parametrize("quality", [10, 30, 75, 95])
def test_colour_is_libjpegs(quality: int, subsample: bool) -> None:
    made = jpeg(COLOUR, torch.tensor([quality]), subsample)
    assert decibels(made, by_pillow(COLOUR, quality, 2 if subsample else 0)) > 50


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sides", [(1, 1), (1, 30), (9, 1), (7, 8), (16, 17), (33, 2)])
def test_any_size(sides: tuple[int, int], channels: int) -> None:
    image = (GRAY if channels == 1 else COLOUR)[..., 60 : 60 + sides[0], 80 : 80 + sides[1]]
    made = jpeg(image, torch.tensor([20]))
    assert made.shape == image.shape
    assert decibels(made, by_pillow(image, 20, 2)) > 45


def test_photographs(shared_data: Path) -> None:
    files = sorted((shared_data / "natural" / "BSDS400").glob("*.jpg"))[:4]
    for file in files:
        image = floats(np.asarray(Image.open(file).convert("RGB")))
        gray = image[:, 1:2]
        for quality in (10, 30, 75):
            told = torch.tensor([quality])
            assert decibels(jpeg(image, told), by_pillow(image, quality, 2)) > 50
            assert decibels(jpeg(gray, told), by_pillow(gray, quality, 0)) > 50


def test_libjpeg_itself_takes_a_batch_with_qualities_of_their_own() -> None:
    images = torch.cat([COLOUR, COLOUR.flip(3), COLOUR.roll(5, 2)])
    for subsample, sampling in ((True, 2), (False, 0)):
        made = real(images, torch.tensor([5, 50, 95]), subsample)
        for image, quality, result in zip(images, (5, 50, 95), made, strict=True):
            assert torch.equal(result[None], by_pillow(image[None], quality, sampling))
    gray = real(GRAY, torch.tensor([30]))
    assert torch.equal(gray, by_pillow(GRAY, 30, 0))


def test_an_image_loses_the_same_bits_in_any_batch() -> None:
    images = torch.stack([COLOUR[0, :, y : y + 96, x : x + 96] for y, x in [(0, 0), (40, 90)]])
    quality = torch.tensor([12, 70])
    many = jpeg(images.repeat(5, 1, 1, 1), quality.repeat(5))
    for row in range(10):
        alone = jpeg(images[row % 2][None], quality[row % 2][None])
        assert torch.equal(many[row], alone[0])


def test_what_is_no_byte_is_clipped_and_rounded_first() -> None:
    loud = GRAY * 1.5
    quality = torch.tensor([40])
    clipped = to_bytes_range(loud).float() / 127.5 - 1
    assert torch.equal(jpeg(loud, quality), jpeg(clipped, quality))


def test_qualities_are_whole_numbers_of_their_range_and_told() -> None:
    images = GRAY[..., :8, :8].expand(400, -1, -1, -1)
    made = JPEG(low=10, high=14).damage(images, KEYS)
    told = made.tells["quality"]
    assert told.dtype == torch.float32
    assert set(told.tolist()) == {10, 11, 12, 13, 14}
    assert torch.equal(made.images, jpeg(images, told.long()))


def test_exact_is_nearly_the_same() -> None:
    images = COLOUR[..., :96, :96].expand(4, -1, -1, -1)
    kind = JPEG(low=10, high=60, shifted=0.5)
    a = kind.damage(images, KEYS[:4])
    b = JPEG(low=10, high=60, shifted=0.5, exact=True).damage(images, KEYS[:4])
    assert torch.equal(a.tells["quality"], b.tells["quality"])
    assert decibels(a.images.flatten(0, 1)[None], b.images.flatten(0, 1)[None]) > 45


def test_saved_before_at_a_shift() -> None:
    """Of some shift: then the first saving's blocks begin there, and nothing has moved."""
    image = GRAY[..., :96, :96]
    both = JPEG(low=10, high=10, shifted=1, exact=True)
    made = both.damage(image.expand(12, -1, -1, -1), KEYS[:12]).images
    candidates = {}
    for y in range(8):
        for x in range(8):
            padded = torch.nn.functional.pad(image, (x, 7 - x, y, 7 - y), mode="replicate")
            once = by_pillow(padded, 10, 0)[..., y : y + 96, x : x + 96]
            candidates[y, x] = by_pillow(once, 10, 0)
    found = []
    for result in made:
        fits = [place for place, one in candidates.items() if torch.equal(one[0], result)]
        assert len(fits) == 1
        found += fits
    assert len(set(found)) > 6


def test_some_are_saved_before() -> None:
    images = COLOUR[..., :16, :16].expand(400, -1, -1, -1)
    once = JPEG(low=30, high=30).damage(images, KEYS).images
    some = JPEG(low=30, high=30, shifted=0.25).damage(images, KEYS).images
    alike = (once == some).flatten(1).all(dim=1).float().mean()
    assert 0.65 < alike < 0.87  # an eighth in either direction is no shift
