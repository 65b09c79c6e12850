"""Decoding of every mode and depth against Pillow and arithmetic; which way up, which frame."""

import io

import numpy as np
import pytest
import tifffile
from image_files import file_of, png_of, ramp, tiff_of
from PIL import Image

from genimg import images
from genimg.pixels import with_channels


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_files_come_out_as_they_were(format, channels):
    array = ramp(channels=channels)
    data = file_of(Image.fromarray(array.squeeze()), format)
    np.testing.assert_array_equal(images.decode(data), array)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("shape", [(2100, 2001), (140_001, 30), (1, 4_200_000)])
def test_large_images_are_copied_in_bands_that_meet(mode, shape):
    kind = np.uint16 if mode == "I;16" else np.uint8
    channels = {"LA": (2,), "RGB": (3,), "RGBA": (4,)}.get(mode, ())
    pixels = np.random.default_rng(0).integers(0, 255, (*shape, *channels), kind)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=0)
    decoded = images.decode(out.getvalue(), keep_alpha=True)
    assert decoded.dtype == kind
    assert np.array_equal(decoded, pixels.reshape(*shape, -1))
    decoded[:] = 0  # it is the caller's own


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_files_come_out_as_pillow_reads_them(format):
    data = file_of(Image.fromarray(ramp(40, 30)), format)
    expected = np.array(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(images.decode(data), expected)


def test_gray_of_colour_is_bt601_luma():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 200, 90]]], np.uint8)
    gray = images.decode(file_of(Image.fromarray(colours), "PNG"), channels=1)
    luma = colours.astype(float) @ [0.299, 0.587, 0.114]
    np.testing.assert_array_equal(gray[..., 0], luma.round())
    np.testing.assert_array_equal(with_channels(colours, 1), gray)


def test_gray_asked_for_in_colour_is_repeated():
    gray = ramp(channels=1)
    colour = images.decode(file_of(Image.fromarray(gray[..., 0]), "PNG"), channels=3)
    np.testing.assert_array_equal(colour, np.concatenate([gray] * 3, axis=2))
    np.testing.assert_array_equal(with_channels(gray, 3), colour)


def test_one_bit_is_black_and_white():
    bits = np.array([[0, 1, 1], [1, 0, 0]], bool)
    decoded = images.decode(file_of(Image.fromarray(bits), "PNG"))
    np.testing.assert_array_equal(decoded[..., 0], bits * 255)


def test_palette_is_looked_up():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    decoded = images.decode(file_of(image, "PNG"))
    np.testing.assert_array_equal(decoded, [[[10, 20, 30], [200, 100, 50]]])


def test_transparent_palette_entry_is_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    decoded = images.decode(file_of(image, "PNG", transparency=0))
    np.testing.assert_array_equal(decoded, [[[255, 255, 255], [200, 100, 50]]])


def test_transparent_colour_of_an_image_without_alpha_is_white():
    colours = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    decoded = images.decode(file_of(colours, "PNG", transparency=(1, 2, 3)))
    np.testing.assert_array_equal(decoded, [[[255, 255, 255], [4, 5, 6]]])
    gray = Image.fromarray(np.array([[7, 8]], np.uint8))
    decoded = images.decode(file_of(gray, "PNG", transparency=7))
    np.testing.assert_array_equal(decoded, [[[255], [8]]])


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_alpha_is_composited_on_white(mode, format):
    values, alpha = ramp(4, 6, 1 if mode == "LA" else 3), ramp(6, 4, 1).reshape(4, 6, 1)
    image = Image.fromarray(np.concatenate([values, alpha], axis=2), mode)
    weight = alpha / 255.0
    expected = values * weight + 255 * (1 - weight)
    decoded = images.decode(file_of(image, format))
    assert decoded.shape == values.shape
    assert np.abs(decoded - expected).max() < 1


def test_cmyk_is_converted_to_rgb():
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], np.uint8)
    decoded = images.decode(file_of(Image.fromarray(inks, "CMYK"), "TIFF"))
    np.testing.assert_array_equal(decoded, [[[255] * 3, [0, 255, 255], [0] * 3]])


WIDE = np.array([[0, 1, 128, 129, 255], [256, 257, 32768, 65406, 65535]], np.uint16)


def assert_is_wide(decoded):
    np.testing.assert_array_equal(decoded[..., 0], np.rint(WIDE / 257))


def test_sixteen_bit_gray_png_is_scaled():
    data = file_of(Image.fromarray(WIDE), "PNG")
    assert Image.open(io.BytesIO(data)).mode == "I;16"
    assert_is_wide(images.decode(data))
    assert images.decode(data, channels=3).shape == (2, 5, 3)


def test_sixteen_bit_big_endian_tiff_is_scaled():
    big = Image.frombytes("I;16B", (5, 2), WIDE.astype(">u2").tobytes())
    data = file_of(big, "TIFF")
    assert Image.open(io.BytesIO(data)).mode == "I;16B"
    assert_is_wide(images.decode(data))


def test_dark_sixteen_bit_image_stays_dark():
    dark = np.full((4, 4), 200, np.uint16)  # would be bright, taken for 8 bits
    assert images.decode(file_of(Image.fromarray(dark), "PNG")).max() == 1


def test_sixteen_bit_colour_png_keeps_the_high_byte():
    samples = np.array([[[0x1234, 0xABCD, 0x00FF]]], ">u2")
    data = png_of(1, 1, 16, 2, b"\0" + samples.tobytes())
    np.testing.assert_array_equal(images.decode(data), [[[0x12, 0xAB, 0x00]]])


def twelve_bits(values: list[int]) -> bytes:
    """TIFF 6.0: samples packed without gaps, the high bits first, rows padded to bytes."""
    return bytes.fromhex("".join(f"{value:03x}" for value in values) + "0" * (len(values) % 2))


def test_twelve_bits_are_scaled_from_their_own_peak():
    values = [4095, 0, 2048, 256, 1, 4094]
    decoded = images.decode(tiff_of(6, 1, 12, 1, twelve_bits(values)))
    np.testing.assert_array_equal(decoded[0, :, 0], np.rint(np.array(values) * 255 / 4095))
    wide = images.decode(tiff_of(6, 1, 12, 1, twelve_bits(values)), keep_alpha=True)
    np.testing.assert_array_equal(wide[0, :, 0], np.rint(np.array(values) * 65535 / 4095))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_white_is_zero_is_the_negative_of_black_is_zero(bits):
    levels = np.arange(8) * ((1 << bits) - 1) // 7
    packed = "".join(f"{level:0{bits}b}" for level in levels)
    octets = bytes(int(packed[at : at + 8], 2) for at in range(0, len(packed), 8))
    strip = levels.astype("<u2").tobytes() if bits == 16 else octets
    black, white = (images.decode(tiff_of(8, 1, bits, p, strip)).astype(int) for p in (1, 0))
    assert (black.min(), black.max()) == (0, 255)
    np.testing.assert_array_equal(white, 255 - black)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiffs_of_another_writer_mean_what_it_wrote(dtype, photometric):
    peak = np.iinfo(dtype).max
    shown = np.random.default_rng(0).integers(0, peak, (9, 13), dtype, endpoint=True)
    buffer = io.BytesIO()
    stored = peak - shown if photometric == "miniswhite" else shown
    tifffile.imwrite(buffer, stored, photometric=photometric)
    decoded = images.decode(buffer.getvalue(), keep_alpha=True)
    np.testing.assert_array_equal(decoded[..., 0], shown)


def test_sixteen_bits_of_a_dark_image_survive_there_and_back():
    """Told by its mode, not by `max > 255`, it keeps its depth and is not stretched."""
    dark = np.random.default_rng(0).integers(0, 200, (6, 7, 1), np.uint16)
    for format in ("png", "tiff"):
        data = images.encode(dark, format)
        np.testing.assert_array_equal(images.decode(data, keep_alpha=True), dark)
        assert images.decode(data).max() <= 1


def test_lab_becomes_srgb():
    gray = file_of(Image.new("LAB", (2, 1), (137, 128, 128)), "TIFF")  # L 53.7: sRGB 128
    assert np.abs(images.decode(gray).astype(int) - 128).max() <= 1


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_orientation_is_applied_once(format, orientation, turns):
    array = np.zeros((16, 32, 3), np.uint8)
    array[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = images.decode(file_of(Image.fromarray(array), format, exif=exif))
    expected = np.rot90(array, turns)
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).mean() < 8  # JPEG's ringing


def test_animated_gif_gives_its_first_frame():
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue", "lime")]
    data = file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 3
    np.testing.assert_array_equal(images.decode(data), np.array(frames[0]))


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animations_and_pages_are_refused_where_one_picture_is_wanted(format):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue", "lime")]
    several = file_of(frames[0], format, save_all=True, append_images=frames[1:])
    with pytest.raises(images.Animated, match="several frames or pages"):
        images.decode(several, animated=False)
    assert images.decode(several).shape == (4, 6, 3)
    assert images.decode(file_of(frames[0], format), animated=False).shape == (4, 6, 3)


def test_a_telephones_jpeg_with_previews_is_one_picture():
    photograph, preview = Image.new("RGB", (8, 6), "red"), Image.new("RGB", (4, 3), "red")
    data = file_of(photograph, "MPO", save_all=True, append_images=[preview])
    assert images.decode(data, animated=False).shape == (6, 8, 3)
