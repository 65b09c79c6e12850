"""Images that follow one another, in one file, or in a folder."""

import io
import math
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from genimg import images
from genimg.errors import InputError
from genimg.images import BrokenImage, Channels, TooLarge
from genimg.pillow_arrays import as_array

Format = Literal["webp", "gif"]
FRAME_MS = 80  # milliseconds that a frame is shown
LONGEST = 1000  # frames of an animation that is read
GONE_BY = 20  # frames, at most, that a model goes by


def encode(frames: np.ndarray, format: Format = "webp", frame_ms: int = FRAME_MS) -> bytes:
    """uint8 [N, H, W, 1 or 3] as an animation that begins anew at its end.

    WebP is lossless; GIF has 256 colours a frame and times in hundredths of a second. A frame like
    the one before it is no frame of its own: that one is shown for as long as both.
    """
    assert frames.ndim == 4, frames.shape
    assert frames.dtype == np.uint8, frames.dtype
    first, *others = (
        Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame) for frame in frames
    )
    out = io.BytesIO()
    options: dict[str, Any] = {"lossless": True} if format == "webp" else {}
    duration = frame_ms if format == "webp" else 10 * round(frame_ms / 10)
    options |= {"save_all": True, "append_images": others, "duration": duration, "loop": 0}
    first.save(out, format.upper(), **options)
    return out.getvalue()


def decode(
    data: bytes,
    channels: Channels | None = None,
    most: int | None = None,
    max_pixels: int = 64_000_000,
) -> list[np.ndarray]:
    """The frames of an animation, uint8 [H, W, C] each; of any other image the one.

    channels: of an animation 3, unless asked for. most: no more than so many, the first ones.
    Transparency is composited on white. Raises BrokenImage as genimg.images.decode does, for more
    than `max_pixels` of all frames together, and for more than LONGEST frames.
    """
    image = images.opened(data, max_pixels)
    frames: list[np.ndarray] = []
    try:
        if image.format == "MPO" or not getattr(image, "is_animated", False):
            return [images.decode(data, channels, max_pixels)]
        while most is None or len(frames) < most:
            if len(frames) == LONGEST:
                raise BrokenImage(f"has more than {LONGEST} frames; cut it")
            if (len(frames) + 1) * image.width * image.height > max_pixels:
                raise TooLarge(f"its frames have more than {max_pixels:,} pixels in all")
            image.load()
            if image.mode[0] in "IF" and image.mode != "I;16":
                raise BrokenImage("its samples have no agreed range; save it with 8 bits")
            frames.append(as_array(image, channels or 3))
            if frames[-1].shape != frames[0].shape:
                raise BrokenImage("its frames differ in size")
            image.seek(len(frames))
    except EOFError:  # behind the last
        pass
    except BrokenImage:
        raise
    except Exception as error:  # on damaged pixels Pillow raises almost anything
        raise BrokenImage(f"damaged or truncated ({error})") from error
    return frames


def load(path: Path, max_pixels: int = 64_000_000) -> np.ndarray:
    """uint8 [N, H, W, 3]: the frames in a file, or of the images in a folder, in their order.

    Of a folder, which may hold hours, the last GONE_BY files. Raises InputError naming the file,
    also for more than `max_pixels` of all frames together, by their headers.
    """
    files = [path]
    if path.is_dir():
        inside = (file for file in path.iterdir() if not file.name.startswith("."))
        files = [file for file in inside if file.suffix.lower() in images.READABLE_SUFFIXES]
        files = sorted(files, key=lambda file: in_order(file.name))[-GONE_BY:]
    if not files:
        raise InputError(f"{path}: no images in it; give a folder of frames")
    frames: list[np.ndarray] = []
    for file in files:
        left = max_pixels - sum(frame[..., 0].size for frame in frames)
        with images.reading(file):
            data = file.read_bytes()
            if len(files) > 1 and math.prod(images.size(data, max_pixels)) > left:
                raise TooLarge(
                    f"with the frames before it has more than {max_pixels:,} pixels; shrink them,"
                    " or leave fewer in the folder"
                )
            frames += decode(data, 3, max_pixels=max(left, 1))
        if frames[-1].shape != frames[0].shape:
            raise InputError(f"{file}: its size is not that of the frames before it")
    return np.stack(frames)


def in_order(name: str) -> list[tuple[int, str]]:
    """What names of frames are sorted by: numbers in them count as such.

    >>> sorted(["f10.png", "f9.png", "e.png"], key=in_order)
    ['e.png', 'f9.png', 'f10.png']
    """
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)]
