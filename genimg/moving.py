"""Images that follow one another, in one file."""

import io
from typing import Any, Literal

import numpy as np
from PIL import Image

Format = Literal["webp", "gif"]
FRAME_MS = 80  # milliseconds that a frame is shown


def encode(frames: np.ndarray, format: Format = "webp", frame_ms: int = FRAME_MS) -> bytes:
    """uint8 [N, H, W, 1 or 3] as an animation that begins anew at its end.

    WebP is lossless; GIF has 256 colours a frame.
    """
    assert frames.ndim == 4, frames.shape
    assert frames.dtype == np.uint8, frames.dtype
    first, *others = (
        Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame) for frame in frames
    )
    out = io.BytesIO()
    options: dict[str, Any] = {"lossless": True} if format == "webp" else {}
    options |= {"save_all": True, "append_images": others, "duration": frame_ms, "loop": 0}
    first.save(out, format.upper(), **options)
    return out.getvalue()
