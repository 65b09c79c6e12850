"""ICC profiles come through, where they mean the colours of what is written."""

import io

import icc
import numpy as np
import pytest
import tifffile
from PIL import Image

from genimg import images

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
HOLD_PROFILES = ("png", "jpeg", "webp", "tiff")


def file_of(pixels: np.ndarray, mode: str, format: str, profile: bytes | None) -> bytes:
    out = io.BytesIO()
    image = Image.fromarray(pixels)
    assert image.mode == mode or mode == "CMYK"
    Image.frombytes(mode, image.size, pixels.tobytes()).save(out, format, icc_profile=profile)
    return out.getvalue()


def kept(data: bytes) -> bytes | None:
    return Image.open(io.BytesIO(data)).info.get("icc_profile")


@pytest.mark.parametrize("given", HOLD_PROFILES)
@pytest.mark.parametrize("written", HOLD_PROFILES)
def test_a_profile_goes_from_any_format_to_any_other(given, written):
    data = file_of(PIXELS, "RGB", given, icc.rgb())
    out = images.encode(images.decode(data), written, profile=images.profile(data))
    assert kept(out) == icc.rgb()


@pytest.mark.parametrize("format", ["png", "jpeg", "tiff"])
def test_a_gray_profile_stays_with_gray(format):
    data = file_of(PIXELS[..., 0], "L", format, icc.gray())
    assert images.profile(data) == icc.gray()
    for written in ("png", "jpeg", "tiff"):
        out = images.encode(images.decode(data), written, profile=images.profile(data))
        assert kept(out) == icc.gray()


def test_alpha_and_sixteen_bits_keep_theirs():
    transparent = np.concatenate([PIXELS, PIXELS[..., :1] | 1], axis=2)
    data = file_of(transparent, "RGBA", "png", icc.rgb())
    out = images.encode(images.decode(data, keep_alpha=True), "webp", profile=images.profile(data))
    assert kept(out) == icc.rgb()
    wide = PIXELS[..., 0].astype(np.uint16) * 257
    data = file_of(wide, "I;16", "png", icc.gray())
    out = images.encode(images.decode(data, keep_alpha=True), "tiff", profile=images.profile(data))
    with tifffile.TiffFile(io.BytesIO(out)) as tiff:  # as another program reads it
        assert tiff.pages[0].tags["InterColorProfile"].value == icc.gray()
        assert tiff.pages[0].bitspersample == 16


def test_a_profile_of_other_colours_is_left_out():
    colour = file_of(PIXELS, "RGB", "png", icc.rgb())
    out = images.encode(images.decode(colour, channels=1), "png", profile=images.profile(colour))
    assert kept(out) is None  # what is gray now
    assert kept(images.encode(PIXELS, "png", profile=icc.gray())) is None
    assert kept(images.encode(PIXELS, "png", profile=icc.cmyk())) is None
    assert images.encode(PIXELS, "bmp", profile=icc.rgb()) == images.encode(PIXELS, "bmp")


@pytest.mark.parametrize(
    "junk",
    [b"", b"junk", bytes(200), icc.rgb()[:100], b"x" * (5 << 20)],
    ids=["empty", "word", "zeros", "cut", "huge"],
)
def test_what_is_no_profile_does_no_harm(junk):
    data = file_of(PIXELS, "RGB", "tiff", junk)
    assert images.profile(data) is None
    np.testing.assert_array_equal(images.decode(data), PIXELS)
    assert kept(images.encode(PIXELS, "jpeg", profile=junk)) is None


@pytest.mark.parametrize("format", ["tiff", "jpeg"])
def test_cmyk_becomes_srgb_by_its_own_profile(format):
    assert icc.works(icc.cmyk())
    cyan = np.zeros((16, 16, 4), np.uint8)
    cyan[..., 0] = 255
    data = file_of(cyan, "CMYK", format, icc.cmyk())
    assert np.abs(images.decode(data).astype(int) - 119).max() <= 2  # L = 50 in sRGB
    assert images.profile(data) is None  # it is no longer what the colours are in
    out = images.encode(images.decode(data), "png", profile=images.profile(data))
    assert kept(out) is None


def test_cmyk_with_a_profile_that_does_not_work_is_converted_as_without_one():
    cyan = np.full((4, 4, 4), [255, 0, 0, 0], np.uint8)
    broken = icc.cmyk()[:132] + bytes(200)
    data = file_of(cyan, "CMYK", "tiff", broken)
    np.testing.assert_array_equal(images.decode(data)[0, 0], [0, 255, 255])


def test_a_saved_file_keeps_it(tmp_path):
    images.save(PIXELS, tmp_path / "a.png", profile=icc.rgb())
    assert images.profile((tmp_path / "a.png").read_bytes()) == icc.rgb()
