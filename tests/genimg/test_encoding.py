"""Encoding, and files: what is written comes back, and what a format cannot hold is refused."""

import io

import numpy as np
import pytest
from image_files import ramp
from PIL import Image

from genimg import images
from genimg.errors import InputError
from genimg.images import BrokenImage


@pytest.mark.parametrize("format", ["png", "webp", "bmp", "tiff"])
def test_encoding_is_lossless_unless_asked_otherwise(format):
    array = ramp(9, 13)
    np.testing.assert_array_equal(
        np.array(Image.open(io.BytesIO(images.encode(array, format)))), array
    )


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_lower_quality_is_smaller_and_farther(format):
    array = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    low, high = (images.encode(array, format, quality) for quality in (20, 95))
    assert len(low) < len(high)
    errors = [np.abs(images.decode(data).astype(int) - array).mean() for data in (low, high)]
    assert errors[0] > errors[1]


def test_quality_that_would_do_nothing_is_refused():
    with pytest.raises(InputError, match="quality=80: png is lossless"):
        images.encode(ramp(), "png", quality=80)
    with pytest.raises(InputError, match="1 to 100"):
        images.encode(ramp(), "jpeg", quality=0)


@pytest.mark.parametrize("suffix", [".png", ".BMP", ".tif", ".webp"])
def test_saved_files_are_loaded_back(tmp_path, suffix):
    path = tmp_path / f"picture{suffix}"
    images.save(ramp(), path)
    np.testing.assert_array_equal(images.load(path), ramp())
    np.testing.assert_array_equal(np.array(Image.open(path)), ramp())
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_saving_replaces_the_file_and_a_failure_leaves_it(tmp_path):
    path = tmp_path / "picture.png"
    images.save(ramp(), path)
    with pytest.raises(InputError):
        images.save(ramp(), path, quality=3)
    np.testing.assert_array_equal(images.load(path), ramp())
    images.save(255 - ramp(), path)
    np.testing.assert_array_equal(images.load(path), 255 - ramp())


def test_unknown_suffix_names_the_known_ones(tmp_path):
    with pytest.raises(InputError, match=r"\.txt.*known: .*\.png"):
        images.save(ramp(), tmp_path / "picture.txt")
    assert list(tmp_path.iterdir()) == []


def test_load_names_the_file(tmp_path):
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    with pytest.raises(BrokenImage, match=r"torn\.png: not an image"):
        images.load(tmp_path / "torn.png")
    with pytest.raises(InputError, match=r"absent\.png: No such file"):
        images.load(tmp_path / "absent.png")


@pytest.mark.parametrize(
    ("mode", "shape", "dtype", "formats"),
    [
        ("RGBA", (5, 7, 4), np.uint8, ("png", "tiff", "webp")),
        ("LA", (5, 7, 2), np.uint8, ("png", "tiff")),
        ("I;16", (5, 7), np.uint16, ("png", "tiff")),
    ],
)
def test_alpha_and_depth_are_kept_when_asked_for(mode, shape, dtype, formats):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)
    pixels[..., -1] |= 1  # where alpha is 0, lossless WebP may forget the colour
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    kept = images.decode(buffer.getvalue(), keep_alpha=True)
    np.testing.assert_array_equal(kept, pixels.reshape(5, 7, -1))
    for name in formats:
        again = images.decode(images.encode(kept, name), keep_alpha=True)
        np.testing.assert_array_equal(again, kept)


def test_a_format_without_alpha_or_depth_refuses_them():
    with pytest.raises(InputError, match="jpeg holds no transparency"):
        images.encode(np.zeros((2, 2, 4), np.uint8), "jpeg")
    with pytest.raises(InputError, match="webp holds 8 bits"):
        images.encode(np.zeros((2, 2, 1), np.uint16), "webp")
