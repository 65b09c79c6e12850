"""ICC profiles written by hand (ICC.1:2022), each with colours that nothing else would give."""

import io
import struct
from functools import cache
from itertools import product

from PIL import ImageCms


@cache  # each would have its own time
def rgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def gray() -> bytes:
    """Gray with a gamma of 1.8."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, int(1.8 * 256)) + bytes(2)
    return profile(b"GRAY", b"XYZ ", {b"wtpt": white_point(), b"kTRC": curve})


def cmyk() -> bytes:
    """Cyan, magenta and yellow are all the same mid gray here, L = 50; black is black."""
    header = b"mft1" + bytes(4) + bytes([4, 3, 2, 0])
    matrix = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    straight = bytes(range(256))
    nodes = bytearray()
    for c, m, y, k in product((0, 1), repeat=4):  # the first channel varies least rapidly
        lightness = 0 if k else 50 if c or m or y else 100
        nodes += bytes([lightness * 255 // 100, 128, 128])
    table = header + matrix + 4 * straight + bytes(nodes) + 3 * straight
    return profile(b"CMYK", b"Lab ", {b"wtpt": white_point(), b"A2B0": table}, b"prtr")


def profile(
    space: bytes, connection: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr"
) -> bytes:
    text = b"text" + bytes(4) + b"by hand\0"
    name = b"desc" + bytes(4) + struct.pack(">I", 8) + b"by hand\0" + bytes(4 + 4 + 2 + 1 + 67)
    tags = {b"desc": name, b"cprt": text, **tags}
    listed, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        listed += tag + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = (
        struct.pack(">I4sI", start + len(body), b"lcms", 0x02400000) + kind + space + connection
    )
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += xyz() + bytes(128 - len(header) - 12)
    return header + struct.pack(">I", len(tags)) + listed + body


def xyz() -> bytes:
    """The illuminant D50."""
    return struct.pack(">3i", *(round(value * 65536) for value in (0.9642, 1.0, 0.8249)))


def white_point() -> bytes:
    return b"XYZ " + bytes(4) + xyz()


def works(data: bytes) -> bool:
    """Whether Little CMS can open it."""
    return ImageCms.ImageCmsProfile(io.BytesIO(data)).profile is not None
