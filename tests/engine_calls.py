"""Operations of an engine in one short call, for tests that compare with what it gives."""

import numpy as np

from genimg.engine import Engine
from genimg.operations.drawing import Sample
from genimg.operations.restoring import Denoise


def sample(engine: Engine, n: int, seed: int = 0, **options) -> np.ndarray:
    return engine(Sample(n=n, seed=seed, **options)).images


def denoise(engine: Engine, image: np.ndarray, **options) -> np.ndarray:
    return engine(Denoise(**options), image=image).images[0]
