"""Decoding of every mode against Pillow and arithmetic; files."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from genimg import images
from genimg.errors import InputError
from genimg.images import BrokenImage
from genimg.pixels import with_channels


def file_of(image: Image.Image, format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def ramp(height: int = 5, width: int = 7, channels: int = 3) -> np.ndarray:
    """Every pixel and channel different, neither symmetric nor square."""
    count = height * width * channels
    return (np.arange(count) * 255 // (count - 1)).astype(np.uint8).reshape(height, width, channels)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG written by hand, for what Pillow cannot write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_files_come_out_as_they_were(format, channels):
    array = ramp(channels=channels)
    data = file_of(Image.fromarray(array.squeeze()), format)
    np.testing.assert_array_equal(images.decode(data), array)


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


def tiff_of(width: int, height: int, bits: int, photometric: int, strip: bytes) -> bytes:
    """A little-endian gray TIFF written by hand: its tags say what the samples mean."""
    entries = [(256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1),
               (262, 3, photometric), (273, 4, 8 + 2 + 9 * 12 + 4), (277, 3, 1), (278, 3, height),
               (279, 4, len(strip))]  # fmt: skip
    tags = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + tags + bytes(4) + strip


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


def test_signed_samples_have_no_agreed_range_either():
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((4, 5), np.int16), photometric="minisblack")
    with pytest.raises(BrokenImage, match="signed 16-bit"):
        images.decode(buffer.getvalue())


def test_a_tiff_of_a_kind_that_is_not_read_is_not_called_another_format():
    with pytest.raises(BrokenImage, match="a kind of TIFF that is not read") as caught:
        images.decode(tiff_of(2, 1, 24, 1, bytes(6)))
    assert not isinstance(caught.value, images.Unsupported)


def test_lab_becomes_srgb():
    gray = file_of(Image.new("LAB", (2, 1), (137, 128, 128)), "TIFF")  # L 53.7: sRGB 128
    assert np.abs(images.decode(gray).astype(int) - 128).max() <= 1


@pytest.mark.parametrize(("dtype", "kind"), [(np.float32, "floating"), (np.int32, "32-bit")])
def test_samples_without_a_range_are_refused(dtype, kind):
    data = file_of(Image.fromarray(np.zeros((3, 3), dtype)), "TIFF")
    with pytest.raises(BrokenImage, match=kind):
        images.decode(data)


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
    with pytest.raises(BrokenImage, match=r"more than 64,000,000|too many pixels"):
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
