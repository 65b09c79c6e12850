"""Directions: found where they are known, told with what they explain, and followed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_calls import sample
from hypothesis import given
from hypothesis import strategies as st

from genimg.directions import LEAST, Direction, add, clear, find, log_odds, read, shift_of
from genimg.engine import Engine
from genimg.errors import InputError
from genimg.inference import latents
from genimg.metrics.attributes import attributes
from genimg.operations.drawing import Decode, Interpolate, Sample
from genimg.operations.exploring import Traverse, Vary

POINTS = latents(torch.arange(4000), 6)
AXIS = torch.tensor([3.0, 0.0, -4.0, 0.0, 0.0, 0.0], dtype=torch.float64)


def test_a_linear_attribute_is_found_and_a_step_moves_it_by_its_deviation():
    values = POINTS.double() @ AXIS + 7
    noise = 5 * latents(torch.arange(4000, 8000), 1)[:, 0]
    found = find(
        POINTS, {"plain": values, "noisy": values + noise, "none": noise, "same": 0 * noise}
    )
    assert found["plain"].r2 == pytest.approx(1)
    assert found["plain"].deviation == pytest.approx(5, rel=0.05)
    moved = (POINTS + found["plain"].vector).double() @ AXIS + 7
    step = torch.full_like(values, found["plain"].deviation)
    torch.testing.assert_close(moved - values, step, rtol=1e-4, atol=0)
    assert found["noisy"].r2 == pytest.approx(0.5, abs=0.07)
    assert abs(found["none"].r2) < 0.05
    assert found["same"].r2 == 0
    assert list(clear(found)) == ["plain", "noisy"]
    assert found["none"].r2 < LEAST


def test_what_differs_between_classes_is_none_of_the_latents_doing():
    groups = torch.arange(4000) % 5
    values = POINTS.double() @ AXIS + 100 * groups
    assert find(POINTS, {"a": values})["a"].r2 < 0.1
    found = find(POINTS, {"a": values}, groups)["a"]
    assert found.r2 > 0.99
    assert found.deviation == pytest.approx(5, rel=0.05)


def test_fewer_samples_than_latents_call_for_are_refused():
    with pytest.raises(InputError, match="samples=20: too few for 6 latents; give 24 or more"):
        find(POINTS[:20], {"a": torch.zeros(20)})


def test_log_odds_are_finite_whatever_a_judge_is_sure_of():
    assert log_odds(torch.tensor([0.0, 0.5, 1.0])).isfinite().all()
    assert log_odds(torch.tensor([0.5])).item() == 0


def bar(width: int, height: int, lean: float = 0.0, level: int = 255) -> torch.Tensor:
    """uint8 [1, 1, 64, 64] with one bar, which leans to the right by so many pixels in each up."""
    image = torch.zeros(64, 64, dtype=torch.uint8)
    for y in range(height):
        left = round(32 - width / 2 + lean * (height / 2 - y))
        image[32 - height // 2 + y, left : left + width] = level
    return image[None, None]


def test_attributes_are_those_of_shapes_that_are_known():
    wide = {name: each.item() for name, each in attributes(bar(40, 6)).items()}
    assert wide["brightness"] == pytest.approx(240 / 64**2)
    assert wide["width"] == pytest.approx(((40**2 - 1) / 12) ** 0.5, rel=1e-6)
    assert wide["height"] == pytest.approx(((6**2 - 1) / 12) ** 0.5, rel=1e-6)
    assert wide["slant"] == pytest.approx(0, abs=1e-9)
    assert wide["thickness"] == pytest.approx(2 * 240 / 92, rel=0.02)
    assert "saturation" not in wide
    for lean in (-0.5, 0.25, 1.0):
        assert attributes(bar(6, 40, lean))["slant"].item() == pytest.approx(lean, abs=0.03)
    faint = attributes(bar(6, 40, 0.25, level=100))
    upside = attributes(255 - bar(6, 40, 0.25))  # dark ink on white
    for name, value in attributes(bar(6, 40, 0.25)).items():
        if name != "brightness":
            assert faint[name].item() == pytest.approx(value.item(), abs=1e-6)
            assert upside[name].item() == pytest.approx(value.item(), abs=1e-6)
    colour = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    colour[:, 0] = 255
    assert attributes(colour)["saturation"].item() == 1
    assert attributes(colour)["brightness"].item() == pytest.approx(0.299)


@given(st.floats(-9, 9, allow_nan=False), st.floats(-9, 9, allow_nan=False))
def test_steps_in_several_directions_add_up(one, other):
    known = {"a": torch.tensor([1.0, 0.0]), "b=2": torch.tensor([1.0, 1.0])}
    made = shift_of(f"a={one}, b=2={other}", known)
    torch.testing.assert_close(made, torch.tensor([one + other, other]), rtol=1e-4, atol=1e-4)


def test_names_of_directions_may_have_commas_and_be_typed_in_any_form_of_unicode():
    known = {"tench, Tinca tinca": torch.tensor([1.0, 0.0]), "cafe\u0301": torch.tensor([0.0, 1.0])}
    assert shift_of("tench, Tinca tinca=2,caf\u00e9=-1", known).tolist() == [2, -1]
    assert shift_of("cafe\u0301=1,cafe\u0301=2", known).tolist() == [0, 3]
    for text, unknown in (("tench=1,cafe\u0301=1", "tench"), ("cafe\u0301=1,", "")):
        with pytest.raises(InputError, match=f"unknown direction '{unknown}'"):
            shift_of(text, known)


@pytest.fixture(scope="module")
def directed(folders, tmp_path_factory) -> tuple[dict[str, Engine], torch.Tensor]:
    place = tmp_path_factory.mktemp("directed")
    made = {}
    vector = torch.arange(8.0) / 8
    for kind in ("dcgan", "conv-vae"):
        folder = add(folders[kind], place / kind, {"size": Direction(vector, 0.9, 1.0)})
        assert torch.equal(read(folder)["size"], vector)
        made[kind] = Engine.load(folder, "cpu", "float32")
    return made, vector


def test_latents_of_every_operation_that_draws_are_moved(directed):
    engines, vector = directed
    for engine in engines.values():
        points = latents(torch.arange(5, 8), 8)
        moved = (points + 2 * vector).numpy()
        expected = engine(Decode(), latents=moved).images
        along = {"direction": "size=2"}
        assert np.array_equal(engine(Sample(n=3, seed=5, **along)).images, expected)
        assert np.array_equal(engine(Decode(**along), latents=points.numpy()).images, expected)
        ends = engine(Interpolate(seeds="5,7", frames=2, **along)).images
        assert np.array_equal(ends, expected[[0, 2]])
        same = engine(Vary(of=5, n=1, strength=0, **along)).images
        assert np.array_equal(same, expected[:1])
        rows = engine(Traverse(seed=5, dims="1", frames=2, **along)).images
        assert not np.array_equal(rows, engine(Traverse(seed=5, dims="1", frames=2)).images)


def test_a_moved_plan_shares_passes_with_others_as_alone(directed):
    engine = directed[0]["dcgan"]
    asked = [
        Sample(n=number, seed=number, direction=direction)
        for number, direction in ((2, "size=1"), (1, None), (3, "size=-3"))
    ]
    plans = list(engine.run("sample", [engine.plan(each) for each in asked]))
    for plan, each in zip(plans, asked, strict=True):
        assert np.array_equal(plan.result().images, engine(each).images)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sise=1", "unknown direction 'sise'; did you mean 'size'?"),
        ("size", "unknown direction 'size'"),
        ("size=much", "size is 'much'; give standard deviations"),
        ("size=nan", "size is 'nan'"),
    ],
)
def test_unknown_directions_are_refused_with_the_nearest(directed, text, told):
    with pytest.raises(InputError) as caught:
        directed[0]["dcgan"](Sample(direction=text))
    assert str(caught.value).startswith(f"direction={text!r}: ")
    assert told in str(caught.value)


def test_a_model_without_directions_takes_none_and_its_checkpoint_is_as_before(engines, folders):
    with pytest.raises(InputError, match="direction='size=1': this dcgan takes no direction"):
        engines["dcgan"](Sample(direction="size=1"))
    assert read(Path(folders["dcgan"])) == {}
    assert sample(engines["dcgan"], 1).shape == (1, 16, 16, 3)


def test_directions_are_replaced_and_a_change_of_them_is_noticed(folders, tmp_path):
    first = add(folders["dcgan"], tmp_path / "a", {"x": Direction(torch.ones(8), 0.5, 1.0)})
    second = add(first, tmp_path / "b", {"y": Direction(torch.ones(8), 0.5, 1.0)})
    assert (list(read(first)), list(read(second))) == (["x"], ["y"])
    path = second / "directions.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    with pytest.raises(InputError, match=r"directions\.json"):
        Engine.load(second, "cpu")
