"""The one place that decodes and encodes image bytes.

Decoded images are uint8 [H, W, C] with C = 1 (gray) or 3 (RGB); see genimg.pixels for what becomes
of them inside the library.
"""

import io
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal
from uuid import uuid4

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, TiffImagePlugin, UnidentifiedImageError

from genimg.errors import InputError, nearest
from genimg.pillow_arrays import Channels as Channels
from genimg.pillow_arrays import as_array, as_it_is

Format = Literal["png", "jpeg", "webp", "bmp", "tiff"]

# What decode() tries. Pillow knows many more, some of which start other programs (EPS).
READABLE = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
READABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
MOST_SIDES = {"jpeg": 65_500, "webp": 16_383}  # pixels, of the formats that have a limit
WRITABLE_SUFFIXES: dict[str, Format] = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
    ".bmp": "bmp",
    ".tif": "tiff",
    ".tiff": "tiff",
}
PNG_LEVEL = 4  # of a photograph 3 % larger than by the usual 6, in a third of the time
JPEG_QUALITY = 95
MAX_PROFILE_BYTES = 4 << 20  # a larger ICC profile is left out; those of printers have 0.5 to 3 MB
_SIGNED = 2  # TIFF 6.0, SampleFormat
_WHITE_IS_ZERO = 0  # TIFF 6.0, PhotometricInterpretation


# Pillow warns of large images; here a limit is asked of each, and refused in a line.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class BrokenImage(InputError):
    """Bytes that are no image, or none that this library takes: `reason`, and whose (`name`)."""

    def __init__(self, reason: str, name: str = "") -> None:
        super().__init__(f"{name}: {reason}" if name else reason)
        self.reason = reason
        self.name = name


class Unsupported(BrokenImage):
    """Bytes in none of the formats that are read."""


class TooLarge(BrokenImage):
    """An image of more pixels than are allowed; none of them were decoded."""


class Animated(BrokenImage):
    """Several frames or pages, where one picture was to be given."""


def decode(
    data: bytes,
    channels: Channels | None = None,
    max_pixels: int = 64_000_000,
    keep_alpha: bool = False,
    animated: bool = True,
) -> np.ndarray:
    """Encoded image bytes as uint8 [H, W, C], upright; C as asked, or natural to the image.

    keep_alpha: a transparent image keeps its alpha as one more channel (C is then 2 or 4), and
    16-bit gray its depth (uint16), where `channels` is not given.

    Of an animation the first frame, unless not `animated`: then it is refused. EXIF orientation is
    applied. Transparency is composited on white. Gray of 9 to 16 bits is scaled from the peak that
    the file declares, and rounded; 16-bit colour is what Pillow makes of it (the high byte). Gray
    from colour is ITU-R BT.601 luma. CMYK and Lab become sRGB, CMYK by its ICC profile where it
    has one; what is gray or RGB is left in the colours of its profile, see profile(). Floating
    point, signed and 32-bit samples are refused, for want of an agreed range.

    Raises BrokenImage (Unsupported, TooLarge, Animated where that is the reason); above
    `max_pixels` from the header alone, before pixels are decoded.
    """
    image = opened(data, max_pixels)
    try:
        if not animated:
            _refuse_several(image)
        image.load()
        turn_upright(image)
        image = _without_inks(_sixteen_bits(image))
    except BrokenImage:
        raise
    except Exception as error:  # on damaged pixels Pillow raises almost anything
        raise BrokenImage(f"damaged or truncated ({error})") from error
    if keep_alpha and channels is None:
        return as_it_is(image)
    return as_array(image, channels)


def profile(data: bytes) -> bytes | None:
    """The ICC profile of decode(data), for encode(); None where its colours are sRGB or not told.

    Read from the header alone; raises as decode() does of a header.
    """
    image = opened(data, max_pixels=sys.maxsize)
    found = image.info.get("icc_profile") or b""
    return found if _colour_space(found) in (b"RGB ", b"GRAY") else None


def _colour_space(profile: bytes) -> bytes:
    """Of a profile's pixels, four letters (ICC.1:2022, 7.2); empty for what is no profile."""
    whole = 128 <= len(profile) <= MAX_PROFILE_BYTES and profile[36:40] == b"acsp"
    return profile[16:20] if whole else b""


def size(data: bytes, max_pixels: int = 64_000_000) -> tuple[int, int]:
    """(width, height) in pixels, from the header alone; raises as decode() does of a header."""
    return opened(data, max_pixels).size


def opened(data: bytes | BinaryIO, max_pixels: int) -> Image.Image:
    """Pillow's image of an encoded one or an open file, of which only the header was read."""
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        image: Image.Image = Image.open(file, formats=READABLE)
    except Image.DecompressionBombError:  # above a limit of Pillow's own
        most = min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))
        raise TooLarge(f"more than {most:,} pixels") from None
    except UnidentifiedImageError:
        file.seek(0)
        if file.read(4).startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
            raise BrokenImage("damaged, or a kind of TIFF that is not read; save it anew") from None
        raise Unsupported(f"not an image in {', '.join(READABLE)}") from None
    except Exception as error:  # on damaged headers Pillow's parsers raise almost anything
        raise BrokenImage(f"damaged header ({error})") from error
    if image.width * image.height > max_pixels:
        raise TooLarge(f"{image.width}x{image.height} is more than {max_pixels:,} pixels")
    return image


def turn_upright(image: Image.Image) -> None:
    """Turn a loaded image as its EXIF orientation says. Most have none, which is soon seen."""
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        ImageOps.exif_transpose(image, in_place=True)


def _refuse_several(image: Image.Image) -> None:
    if image.format == "MPO":  # a telephone's JPEG; what follows are previews and depth maps
        return
    if getattr(image, "is_animated", False):
        raise Animated("has several frames or pages; give an image of one")


def _sixteen_bits(image: Image.Image) -> Image.Image:
    """Gray of more than 8 bits with 0 black and 65535 white; other images as they are.

    Told by the mode, never by the values: a dark image has small ones too.
    """
    if image.mode != "I" and not image.mode.startswith(("I;16", "F")):
        return image
    tags: Mapping[int, Any] = {}
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
    bits = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1 if tags else 16,)))
    signed = _SIGNED in tags.get(TiffImagePlugin.SAMPLEFORMAT, ())
    if image.mode == "F" or bits > 16 or signed:
        kind = f"{'signed ' if signed else ''}{bits}-bit integer"
        kind = "floating-point" if image.mode == "F" else kind
        raise BrokenImage(f"{kind} samples have no agreed range; save it with 8 or 16 bits")
    peak = (1 << bits) - 1
    values = np.asarray(image).astype(np.int64).clip(0, peak)
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO:
        values = peak - values
    return Image.fromarray(((values * 65535 + peak // 2) // peak).astype(np.uint16))


def _without_inks(image: Image.Image) -> Image.Image:
    """CMYK and Lab as sRGB, CMYK by its profile where there is one; other images as they are."""
    found = image.info.get("icc_profile") or b""
    try:
        if image.mode == "LAB":
            return _in_srgb(image, ImageCms.createProfile("LAB"))
        if image.mode == "CMYK" and _colour_space(found) == b"CMYK":
            return _in_srgb(image, io.BytesIO(found))
    except ImageCms.PyCMSError:  # a profile that does not work is none
        pass
    return image


def _in_srgb(image: Image.Image, profile: Any) -> Image.Image:
    srgb = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
    assert converted is not None  # it is not done in place
    return converted


def encode(
    array: np.ndarray,
    format: Format = "png",
    quality: int | None = None,
    profile: bytes | None = None,
) -> bytes:
    """uint8 [H, W, 1 to 4] as the bytes of a file; the last of 2 or 4 channels is alpha.

    uint16 [H, W, 1] is written with 16 bits by PNG and TIFF; other formats take no alpha (JPEG,
    BMP) or 8 bits, and what they cannot hold is an InputError.

    `quality` (1 to 100) is for JPEG (default 95) and WebP (default lossless); for the lossless
    formats it is an InputError, so that nobody believes it did something.

    `profile`: an ICC profile that the colours are in (see profile()). It is left out where it is
    of other colours than these, gray or RGB, and in BMP.
    """
    assert array.ndim == 3, array.shape
    assert array.shape[2] in (1, 2, 3, 4), array.shape
    assert array.dtype == np.uint8 or (array.dtype == np.uint16 and array.shape[2] == 1)
    refuse_sides(format, array.shape[1], array.shape[0])
    if array.dtype == np.uint16 and format not in ("png", "tiff"):
        raise InputError(f"{format} holds 8 bits a channel; write 16-bit images as png or tiff")
    if array.shape[2] in (2, 4) and format in ("jpeg", "bmp"):
        raise InputError(f"{format} holds no transparency; write it as png, webp or tiff")
    if quality is not None:
        if format not in ("jpeg", "webp"):
            raise InputError(f"quality={quality}: {format} is lossless; leave quality out")
        if not 1 <= quality <= 100:
            raise InputError(f"quality={quality}: must be 1 to 100")
    out = io.BytesIO()
    image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    fits = _colour_space(profile or b"") == (b"GRAY" if array.shape[2] <= 2 else b"RGB ")
    icc = {"icc_profile": profile} if fits else {}
    match format:
        case "jpeg":
            image.save(out, "JPEG", quality=quality or JPEG_QUALITY, **icc)
        case "webp" if quality is None:
            image.save(out, "WEBP", lossless=True, **icc)
        case "webp":
            image.save(out, "WEBP", quality=quality, **icc)
        case "tiff":
            image.save(out, "TIFF", compression="tiff_adobe_deflate", **icc)
        case "png":
            image.save(out, "PNG", compress_level=PNG_LEVEL, **icc)
        case "bmp":
            image.save(out, "BMP")
    return out.getvalue()


def refuse_sides(format: Format, width: int, height: int) -> None:
    """InputError where a format cannot hold an image so wide or so high."""
    most = MOST_SIDES.get(format)
    if most is not None and max(width, height) > most:
        raise InputError(
            f"{width}x{height}: {format} holds at most {most:,} pixels a side; write it as png"
        )


def load(
    path: str | Path,
    channels: Channels | None = None,
    keep_alpha: bool = False,
    animated: bool = True,
) -> np.ndarray:
    """The image in a file as [H, W, C]; see decode(). Raises InputError naming the file."""
    path = Path(path)
    with reading(path):
        return decode(path.read_bytes(), channels, keep_alpha=keep_alpha, animated=animated)


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """What is wrong with a file that is read within the block is raised as InputError naming it."""
    try:
        yield
    except BrokenImage as error:
        raise BrokenImage(error.reason, str(file)) from error
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from error


def save(
    array: np.ndarray,
    path: str | Path,
    quality: int | None = None,
    profile: bytes | None = None,
) -> None:
    """Write [H, W, C] (see encode()) in the format of the path's suffix, whole or not at all."""
    path = Path(path)
    write(path, encode(array, format_of(path), quality, profile))


def format_of(path: Path) -> Format:
    """That of a path's suffix, or InputError."""
    format = WRITABLE_SUFFIXES.get(path.suffix.lower())
    if format is None:
        hint = nearest(path.suffix.lower(), WRITABLE_SUFFIXES)
        raise InputError(f"{path}: cannot write images as {path.suffix!r}; {hint}")
    return format


def write(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all. Raises InputError naming it."""
    part = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
