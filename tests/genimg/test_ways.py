"""Ways through latents: great circles through any number of points, squares, classes on the way."""

import math

import numpy as np
import pytest
import torch
from engine_calls import sample
from hypothesis import given
from hypothesis import strategies as st

from genimg.engine import Engine
from genimg.errors import InputError
from genimg.inference import latents
from genimg.operations.drawing import Decode, Interpolate, Sample
from genimg.ways import along, places, spherical


def images(engine: Engine, given: np.ndarray | None = None, **options) -> np.ndarray:
    inputs = {} if given is None else {"latents": given}
    return engine(Interpolate(**options), **inputs).images


def close(one: np.ndarray, other: np.ndarray) -> bool:
    return np.abs(one.astype(int) - other).max() <= 1


@given(st.integers(1, 6), st.integers(0, 20))
def test_every_point_is_among_evenly_spaced_places(points, more):
    frames = max(points + more, 2)
    made = places(points, frames).tolist()
    assert len(made) == frames
    assert made == sorted(made)
    assert set(range(points)) <= set(made)
    if points > 1:
        steps = np.diff(made)
        assert steps.max() <= 1 / math.floor((frames - 1) / (points - 1)) + 1e-6


def test_a_great_circle_keeps_its_radius_and_its_pace():
    one, other = torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 3.0]])
    points = torch.cat([one, other, -one])
    made = along(points, torch.linspace(0, 2, 9), spherical)
    torch.testing.assert_close(made.norm(dim=1), torch.full((9,), 3.0))
    angles = torch.atan2(made[:, 2], made[:, 0])
    torch.testing.assert_close(angles, torch.linspace(0, math.pi, 9))


def test_a_way_goes_by_all_its_seeds_however_many(engines):
    for kind in ("dcgan", "conv-vae", "flow"):
        made = images(engines[kind], seeds="7,2,30", frames=6)
        for place, seed in ((0, 7), (2, 2), (5, 30)):
            assert close(made[place], sample(engines[kind], 1, seed=seed)[0])
        assert len({each.tobytes() for each in made}) == 6


def test_a_square_has_four_seeds_at_its_corners_and_ways_along_its_borders(engines):
    engine = engines["dcgan"]
    made = engine(Interpolate(seed=5, square=True, frames=16))
    assert (made.seeds, made.columns) == ((5, 6, 7, 8), 4)
    assert close(made.images[[0, 3, 12, 15]], sample(engine, 4, seed=5))
    assert close(made.images[:4], images(engine, seed=5, frames=4))
    assert close(made.images[::4], images(engine, seeds="5,7", frames=4))
    assert made.sheet().shape == (4 * 18 + 2, 4 * 18 + 2, 3)


def test_a_short_way_lies_in_one_row_of_a_picture_and_a_long_one_in_several(engines):
    for frames, size in ((10, (20, 182)), (16, (74, 74))):
        made = engines["dcgan"](Interpolate(seed=5, frames=frames))
        assert made.sheet().shape == (*size, 3)
    assert made.sheet(8).shape == (38, 146, 3)


def test_latents_are_gone_by_as_those_of_seeds(engines):
    engine = engines["dcgan"]
    points = latents(torch.tensor([3, 9]), 8).numpy()
    assert np.array_equal(images(engine, points, frames=5), images(engine, seeds="3,9", frames=5))


def test_a_way_from_label_to_label_keeps_the_latents_of_one_seed(engines):
    engine = engines["dcgan-by-class"]
    made = images(engine, seeds="4", label="disc", to_label="cross; ring", frames=5)
    for place, label in ((0, "disc"), (1, "disc=1,cross=1"), (2, "cross"), (4, "ring")):
        assert close(made[place], sample(engine, 1, seed=4, label=label)[0])
    point = latents(torch.tensor([4]), 8).numpy()
    plain = engine(Decode(), latents=point).images[0]
    assert close(images(engine, np.repeat(point, 4, 0), square=True, frames=4), plain[None])
    labels = engine(Sample(n=4, seed=5)).labels
    corners = images(engine, seed=5, square=True, frames=9)[[0, 2, 6, 8]]
    assert len(set(labels)) > 1
    assert close(corners, sample(engine, 4, seed=5))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"seeds": "1,2,3", "frames": 2}, "frames=2: fewer than the 3 images"),
        ({"seeds": "3"}, "seeds: one image leads nowhere; give two or more"),
        ({"seeds": "1,2", "square": True}, "square=True: has four corners, not 2"),
        ({"square": True, "frames": 15}, "frames=15: a square has a square number of"),
        ({"to_label": "disc"}, "to_label='disc': give label"),
        ({"label": "disc", "to_label": "dsic"}, "to_label='dsic': unknown class 'dsic'; did you"),
        ({"label": "disc", "to_label": "ring", "square": True}, "a square goes to no label"),
        ({"seeds": "one"}, "seeds='one': give it as in 3,14,15"),
        ({"seeds": "1," * 30_000 + "1"}, "frames=16: fewer than the 30001 images"),
        ({"seeds": "1," * 40_000 + "1"}, "should have at most 65536 characters"),
        ({"label": "disc", "to_label": "ring;disc", "frames": 2}, "frames=2: fewer than the 3 cla"),
        ({"label": "disc", "to_label": "ring;" * 9_999 + "ring"}, "fewer than the 10001 classes"),
    ],
)
def test_ways_that_lead_nowhere_are_refused(engines, options, told):
    with pytest.raises(InputError) as caught:
        engines["dcgan-by-class"](Interpolate.validated(options))
    assert told in str(caught.value)
    with pytest.raises(InputError, match="to_label='x': this model takes no label"):
        engines["dcgan"](Interpolate(to_label="x"))
    with pytest.raises(InputError, match="seeds='1,2': latents are given"):
        engines["dcgan"](Interpolate(seeds="1,2"), latents=np.zeros((2, 8), np.float32))
