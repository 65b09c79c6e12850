"""What is no image, not a whole one, too large or of no agreed range is refused with its reason."""

import io

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from image_files import file_of, png_of, ramp, tiff_of
from PIL import Image

from genimg import images
from genimg.images import BrokenImage


def test_what_is_wrong_with_an_image_is_told_apart():
    with pytest.raises(images.Unsupported):
        images.decode(b"hello")
    with pytest.raises(images.TooLarge):
        images.decode(file_of(Image.fromarray(ramp(5, 7)), "PNG"), max_pixels=34)
    with pytest.raises(BrokenImage) as caught:
        images.decode(file_of(Image.fromarray(ramp(64, 64)), "PNG")[:300])
    assert type(caught.value) is BrokenImage


def test_the_size_is_read_from_the_header_alone():
    header_only = png_of(7, 5, 8, 2, b"")
    assert images.size(header_only) == (7, 5)
    with pytest.raises(images.TooLarge, match="7x5 is more than 34 pixels"):
        images.size(header_only, max_pixels=34)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("left", [0.05, 0.5, 0.9])
def test_truncated_files_are_broken(format, left):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = file_of(Image.fromarray(noise), format)
    with pytest.raises(BrokenImage):
        images.decode(data[: int(len(data) * left)])


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"])
)
def test_garbage_is_broken_and_nothing_else(noise, head):
    with pytest.raises(BrokenImage):
        images.decode(head + noise)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_one_wrong_byte_never_escapes_as_another_error(position, value):
    data = bytearray(file_of(Image.fromarray(ramp(24, 24)), "TIFF", compression="tiff_lzw"))
    data[position % len(data)] = value
    try:
        decoded = images.decode(bytes(data), max_pixels=10_000)
    except BrokenImage:
        return
    assert decoded.dtype == np.uint8
    assert decoded.ndim == 3


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 20_000])  # below and above Pillow's own limit
def test_huge_image_is_refused_from_its_header(side):
    header_only = png_of(side, side, 8, 2, b"")  # its pixels are missing: decoding would say so
    with pytest.raises(BrokenImage, match=r"more than 64,000,000"):
        images.decode(header_only)


def test_limit_on_pixels_is_inclusive():
    data = file_of(Image.fromarray(ramp(5, 7)), "PNG")
    assert images.decode(data, max_pixels=35).shape == (5, 7, 3)
    with pytest.raises(BrokenImage, match="7x5 is more than 34"):
        images.decode(data, max_pixels=34)


def test_formats_that_start_other_programs_are_not_tried():
    eps = file_of(Image.new("RGB", (8, 8)), "EPS")
    with pytest.raises(BrokenImage, match="not an image in"):
        images.decode(eps)


@pytest.mark.parametrize(("dtype", "kind"), [(np.float32, "floating"), (np.int32, "32-bit")])
def test_samples_without_a_range_are_refused(dtype, kind):
    data = file_of(Image.fromarray(np.zeros((3, 3), dtype)), "TIFF")
    with pytest.raises(BrokenImage, match=kind):
        images.decode(data)


def test_signed_samples_have_no_agreed_range_either():
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((4, 5), np.int16), photometric="minisblack")
    with pytest.raises(BrokenImage, match="signed 16-bit"):
        images.decode(buffer.getvalue())


def test_a_tiff_of_a_kind_that_is_not_read_is_not_called_another_format():
    with pytest.raises(BrokenImage, match="a kind of TIFF that is not read") as caught:
        images.decode(tiff_of(2, 1, 24, 1, bytes(6)))
    assert not isinstance(caught.value, images.Unsupported)
