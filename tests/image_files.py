"""Image files: written by Pillow, and by hand what it cannot write."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


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


def tiff_of(width: int, height: int, bits: int, photometric: int, strip: bytes) -> bytes:
    """A little-endian gray TIFF written by hand: its tags say what the samples mean."""
    entries = [(256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1),
               (262, 3, photometric), (273, 4, 8 + 2 + 9 * 12 + 4), (277, 3, 1), (278, 3, height),
               (279, 4, len(strip))]  # fmt: skip
    tags = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + tags + bytes(4) + strip
