"""What models are compared with: classical methods, for a line each in an evaluation's table.

They need the extra `baselines` (BM3D: the package bm3d, whose licence is not for commerce), and
take one image at a time on the CPU. What was damaged comes out in bytes, [H, W, C]. Upscaling has
bicubic beside it, which is what makes its low resolutions: see the degradations.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from genimg.errors import InputError

Denoise = Callable[[np.ndarray, float], np.ndarray]
Inpaint = Callable[[np.ndarray, np.ndarray], np.ndarray]


def as_it_is(image: np.ndarray, _: object = None) -> np.ndarray:
    """The damaged image itself: uint8, or float on the scale of 0 to 255, [H, W, C] -> uint8."""
    return _to_bytes(image)


def non_local_means(image: np.ndarray, sigma: float) -> np.ndarray:
    """Non-local means (Buades et al. 2005), told the noise level, by scikit-image.

    image: uint8, or float on the scale of 0 to 255 (noise that was neither clipped nor rounded),
    [H, W, C]; sigma on that scale. Patches of 5x5 in a window of 13x13, weighted uniformly (its
    fast mode), h = 0.6 sigma: the settings that scikit-image recommends. -> uint8 [H, W, C].
    """
    if sigma <= 0:
        return _to_bytes(image)
    restoration = _needed("skimage.restoration", "scikit-image", "non-local means")
    out = restoration.denoise_nl_means(
        image.astype(np.float64) / 255, patch_size=5, patch_distance=6, h=0.6 * sigma / 255,
        sigma=sigma / 255, fast_mode=True, channel_axis=-1,
    )  # fmt: skip
    return _to_bytes(out.reshape(image.shape) * 255)


def bm3d(image: np.ndarray, sigma: float) -> np.ndarray:
    """BM3D, of colour CBM3D (Dabov et al. 2007), told the noise level, by the package bm3d.

    image: uint8, or float on the scale of 0 to 255 (noise that was neither clipped nor rounded),
    [H, W, 1 or 3]; sigma on that scale. Its profile "np", both stages. -> uint8 [H, W, C].
    """
    if sigma <= 0:
        return _to_bytes(image)
    package = _needed("bm3d", "bm3d", "BM3D")
    scaled, level = image.astype(np.float64) / 255, sigma / 255
    if image.shape[2] == 1:
        out = package.bm3d(scaled[..., 0], level)[..., None]
    else:
        out = package.bm3d_rgb(scaled, level)
    return _to_bytes(out.reshape(image.shape) * 255)


def biharmonic(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """The biharmonic equation solved for the missing pixels (Damelin and Hoang 2018), scikit-image.

    image: uint8 [H, W, C]; missing: bool [H, W], of which some are False. Time and memory grow
    with the missing pixels that hang together. -> uint8 [H, W, C], what is known as it was.
    """
    _refuse_unlike(image, missing)
    restoration = _needed("skimage.restoration", "scikit-image", "biharmonic inpainting")
    out = restoration.inpaint_biharmonic(image / 255, missing, channel_axis=-1)
    return np.where(missing[..., None], _to_bytes(out * 255), image)


def linear(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Linear interpolation in Delaunay's triangles of the known pixels, by SciPy.

    image: uint8 [H, W, C]; missing: bool [H, W], of which some are False. Outside all triangles
    the nearest known pixel. -> uint8 [H, W, C], what is known as it was.
    """
    _refuse_unlike(image, missing)
    interpolate = _needed("scipy.interpolate", "scipy", "linear interpolation")
    places, values = np.argwhere(~missing), image[~missing].astype(np.float64)
    wanted = np.argwhere(missing)
    out = interpolate.NearestNDInterpolator(places, values)(wanted)
    try:
        inside = interpolate.LinearNDInterpolator(places, values)(wanted)
        out = np.where(np.isnan(inside), out, inside)
    except import_module("scipy.spatial").QhullError:  # all that is known lies on a line
        pass
    filled = image.copy()
    filled[missing] = _to_bytes(out)
    return filled


DENOISING: dict[str, Denoise] = {
    "noisy": as_it_is,
    "non-local means": non_local_means,
    "BM3D": bm3d,
}
INPAINTING: dict[str, Inpaint] = {
    "damaged": as_it_is,
    "linear": linear,
    "biharmonic": biharmonic,
}


def _to_bytes(image: np.ndarray) -> np.ndarray:
    """Any numbers on the scale of 0 to 255 as uint8, clipped and rounded half to even."""
    return image if image.dtype == np.uint8 else image.round().clip(0, 255).astype(np.uint8)


def is_here(method: str) -> bool:
    """Whether this installation has what a method needs."""
    needs = {"bm3d": "bm3d", "linear": "scipy"}.get(method, "skimage")
    return find_spec(needs) is not None


def _needed(module: str, package: str, method: str) -> Any:
    """A module that only some installations have, or InputError that names what to install."""
    try:
        return import_module(module)
    except ImportError:
        remedy = "bm3d" if package == "bm3d" else "'genimg[baselines]'"
        raise InputError(
            f"{method} needs {package}, which is not installed: pip install {remedy}"
        ) from None


def _refuse_unlike(image: np.ndarray, missing: np.ndarray) -> None:
    """InputError for a mask that is not of the image, or knows no pixel of it."""
    assert missing.dtype == bool, missing.dtype
    if missing.shape != image.shape[:2]:
        (height, width), (rows, columns) = image.shape[:2], missing.shape
        raise InputError(
            f"a mask of {columns}x{rows} is not of an image of {width}x{height}; give one of its "
            "size"
        )
    if missing.all():
        raise InputError("the mask says that all pixels are missing; leave some that are known")
