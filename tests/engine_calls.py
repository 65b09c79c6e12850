"""Operations of an engine in one short call, and a picture to ask them of."""

import numpy as np

from genimg.engine import Engine
from genimg.operations.drawing import Sample
from genimg.operations.restoring import Denoise


def sample(engine: Engine, n: int, seed: int = 0, **options) -> np.ndarray:
    return engine(Sample(n=n, seed=seed, **options)).images


def denoise(engine: Engine, image: np.ndarray, **options) -> np.ndarray:
    return engine(Denoise(**options), image=image).images[0]


def picture(height: int, width: int, channels: int, dtype=np.uint8, seed: int = 0) -> np.ndarray:
    """Smooth waves with noise of about 10 gray levels, [H, W, C]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.sin(y[..., None] / 7 + np.arange(channels)) + np.cos(x[..., None] / 5)
    levels = (128 + 50 * waves + random.normal(0, 10, waves.shape)).clip(0, 255) / 255
    return (levels * np.iinfo(dtype).max).round().astype(dtype)
