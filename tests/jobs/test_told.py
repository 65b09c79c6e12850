"""Models that draw by text, before those who judge them."""

import numpy as np
import pytest
import torch

from genimg import bundled
from genimg.data.opening import open_dataset
from genimg.engine import Engine
from genimg.errors import InputError
from genimg.operations.drawing import Sample
from jobs.told import drawn_by_captions


def test_a_judge_sees_what_is_drawn_of_the_captions_of_the_data():
    """As `genimg sample --text` draws it, and over and over where there are fewer captions."""
    engine = Engine.load(bundled.FOLDER / "models/painter/versions/00001", precision="float32")
    data = open_dataset(engine.recipe.data, ("image", "text"), "test")
    told: list[tuple[int, int]] = []
    drawn = drawn_by_captions(engine, "painter", data, 3, lambda done, of: told.append((done, of)))
    assert told == [(3, 3)]
    chosen = data.choose(3)
    rows = data.fetch(chosen, torch.from_numpy(chosen))["text"]
    captions = [bytes((row[row > 0] - 1).tolist()).decode() for row in rows]
    for seed, caption in enumerate(captions):
        alone = engine(Sample(seed=seed, text=caption)).images[0]
        apart = np.abs(drawn.images[seed].astype(int) - alone).max()
        assert apart <= 1, caption  # rows of a pass may differ in the last bits
    assert len(set(captions)) > 1


def test_without_captions_there_is_nothing_to_draw():
    engine = Engine.load(bundled.FOLDER / "models/painter/versions/00001")
    data = open_dataset(engine.recipe.data, ("image",), "test")
    with pytest.raises(InputError, match="painter draws by text, and the data tells none"):
        drawn_by_captions(engine, "painter", data, 3, lambda done, of: None)
