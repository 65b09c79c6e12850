"""Image formats by their first bytes, their media types, and what a compression means to each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.errors import ApiError

if TYPE_CHECKING:
    from genimg import moving
    from genimg.images import Format

MEDIA_TYPES: dict[Format | moving.Format, str] = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "bmp": "image/bmp",
    "tiff": "image/tiff",
    "gif": "image/gif",
}
ARRAY = "application/x-npy"  # of a .npy file; none is registered
_LOSSY = ("jpeg", "webp")


def written_as(data: bytes) -> Format | None:
    """The format in which an image of these bytes goes back; None if they are no image we read.

    Told by the first bytes: content types and names of uploads lie. GIF goes back as PNG.
    """
    starts: dict[bytes, Format] = {
        b"\x89PNG\r\n\x1a\n": "png",
        b"\xff\xd8\xff": "jpeg",
        b"BM": "bmp",
        b"II*\0": "tiff",
        b"MM\0*": "tiff",
        b"II+\0": "tiff",
        b"MM\0+": "tiff",
        b"GIF87a": "png",
        b"GIF89a": "png",
    }
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((format for start, format in starts.items() if data.startswith(start)), None)


def quality(format: Format, compression: int | None) -> int | None:
    """genimg.images.encode's quality for `output_compression` (0 to 100, 100 the best).

    0 is 1, the lowest that encoders take. None: JPEG at its default, WebP lossless, and every
    lossless format, which is never worse than what was asked for.
    """
    return None if compression is None or format not in _LOSSY else max(compression, 1)


def unsupported(name: str = "image") -> ApiError:
    known = "PNG, JPEG, WebP, BMP, TIFF, GIF"
    message = f"{name}: these bytes are none that are read here; give {known}"
    return ApiError(415, "unsupported_image_media_type", message, name)
