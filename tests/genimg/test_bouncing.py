"""Moving-MNIST against a plain loop by its rule; scenes that move; frames that go on as they do."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from test_parquet import write_numbered
from test_stacked import numbered
from tiny_recipes import tiny

from genimg.data.bouncing import HELD_OUT, STEP, TEST, Bouncing, side_of, trajectories
from genimg.data.grids import FRAMES
from genimg.data.layout import SLOTS, compose
from genimg.data.memory import Images
from genimg.data.motion import bounced, centres_of, moved, moving
from genimg.data.opening import open_dataset
from genimg.data.scenes import Scenes
from genimg.errors import InputError
from genimg.metrics.motion import constant_velocity, copy_last, displacements
from genimg.recipe import Data
from genimg.rng import uniform

KEYS = torch.arange(40) * 7919


def way(start: list[float], angle: float) -> list[tuple[float, float]]:
    """Places of one digit, top and left, as shares of its room."""
    (y, x), turn_y, turn_x = start, 1, 1
    places = []
    for _ in range(FRAMES):
        y += turn_y * math.sin(angle) * STEP
        x += turn_x * math.cos(angle) * STEP
        if not 0 < x < 1:
            x, turn_x = min(max(x, 0.0), 1.0), -turn_x
        if not 0 < y < 1:
            y, turn_y = min(max(y, 0.0), 1.0), -turn_y
        places.append((y, x))
    return places


def test_digits_go_straight_on_and_turn_back_at_borders():
    found = trajectories(KEYS, 36)
    assert found.shape == (40, 2, FRAMES, 2)
    drawn = uniform(KEYS, (2, 3)).double()
    for number in range(40):
        for digit in range(2):
            start, angle = drawn[number, digit, :2].tolist(), drawn[number, digit, 2].item()
            expected = 36 * np.array(way(start, 2 * math.pi * angle))
            assert np.array_equal(found[number, digit].numpy(), expected.astype(int))


def test_clips_show_their_digits_over_one_another():
    draw = np.random.default_rng(0).integers(0, 256, (30, 1, 28, 28), np.uint8)
    data = Bouncing(Images({"image": torch.from_numpy(draw)}), 64)
    indices = np.array([5, 0, 123_456])
    stored = data.fetch(indices, torch.arange(3))
    assert stored["frames"].shape == (3, FRAMES, 64, 64)
    assert torch.equal(stored["image"], stored["frames"][:, :1])
    corners = trajectories(data._keys(indices, 1), 36)
    for number, digits in enumerate(data.parts(indices)):
        for frame in range(FRAMES):
            canvas = np.zeros((64, 64), np.uint8)
            for place, digit in enumerate(digits):
                top, left = corners[number, place, frame].tolist()
                here = canvas[top : top + 28, left : left + 28]
                np.maximum(here, draw[digit, 0], out=here)
            assert np.array_equal(stored["frames"][number, frame].numpy(), canvas)
    assert torch.equal(data.whole(5)["frames"], stored["frames"][0])
    assert data.locate(np.array([3, 99_999]), 1, 8).tolist() == [3, 99_999]


def test_what_is_held_out_shows_other_digits_and_is_the_same_always():
    rest, kept = Bouncing(numbered(60, 28), 64).hold_out(50)
    assert (len(rest), len(kept)) == (10_000, 50)
    names = [
        {each._gray.name(i) for i in each.parts(np.arange(300)).flatten()} for each in (rest, kept)
    ]
    assert not names[0] & names[1]
    assert len(names[1]) == 10
    assert kept.locate(np.array([51]), 0, 8).tolist() == [1]
    again = Bouncing(kept._gray, 64, seed=HELD_OUT, length=50)
    assert again.fingerprint == kept.fingerprint != rest.fingerprint
    with pytest.raises(InputError, match=r"data\.holdout=50: must be below 50"):
        kept.hold_out(50)


def test_a_recipe_asks_for_moving_digits_and_tests_on_test_digits(tmp_path):
    draw = np.random.default_rng(0).integers(1, 256, (90, 28, 28), np.uint8)
    np.savez(tmp_path / "gray.npz", x_train=draw[:60], x_test=draw[60:])
    source = f"data.source={str(tmp_path / 'gray.npz')!r}"
    wanted = ("data.bounce=true", "data.channels=1", "data.size=64", source)
    recipe = tiny("conv-mixer", *wanted)
    test = open_dataset(recipe.data, recipe.wants, "test")
    assert (len(test), test._seed, test.columns) == (10_000, TEST, ("image", "frames"))
    first = test.fetch(np.array([0]), torch.tensor([0]))["frames"][0, 0].numpy()
    top, left = trajectories(test._keys(np.array([0]), 1), 36)[0, 0, 0].tolist()
    digit = draw[60 + test.parts(np.array([0]))[0, 0]]
    assert (first[top : top + 28, left : left + 28] >= digit).all()
    assert side_of(32) == 14
    with pytest.raises(InputError, match="bounce=true makes gray clips; give channels=1"):
        tiny("conv-mixer", "data.bounce=true")
    with pytest.raises(InputError, match=r"has image and frames, but wanted .*; leave data.bounce"):
        open_dataset(recipe.data, ("image", "label"))


@pytest.mark.parametrize("shards", [False, True])
def test_of_digits_that_are_not_divided_only_those_that_were_held_out_are_judged_on(
    tmp_path, shards
):
    """As of other data, which is known by its fingerprint to be what a model was trained on."""
    source = tmp_path / "gray.npz"
    if shards:
        source = write_numbered(tmp_path / "shards", 60)
    else:
        np.savez(source, x=np.full((60, 28, 28), 9, np.uint8))
    about = Data(source=str(source), bounce=True, channels=1, size=64)
    wants = ("image", "frames")
    train, test = (open_dataset(about, wants, split) for split in ("train", "test"))
    assert train.fingerprint == test.fingerprint


def test_scenes_move_on_from_their_image():
    data = Scenes(24, 3, ("image", "frames"))
    stored = data.fetch(np.arange(6), torch.arange(6))
    frames = stored["frames"].view(6, FRAMES, 3, 24, 24)
    assert torch.equal(frames[:, 0], stored["image"])
    steps = (frames[:, 1:].float() - frames[:, :-1].float()).abs().flatten(2).mean(2)
    assert (steps > 0).all()
    alone = data.fetch(np.array([4]), torch.tensor([0]))["frames"]
    assert torch.equal(alone, stored["frames"][4:5])
    few = Scenes(24, 3, ("image",)).fetch(np.arange(6), torch.arange(6))["image"]
    assert torch.equal(few, stored["image"])


def test_objects_keep_their_speed_and_stay_in_the_frame():
    layout = compose(KEYS)
    places = centres_of(moving(layout, FRAMES)).unflatten(0, (-1, FRAMES)).transpose(0, 1)
    assert (places.abs() <= 1 - layout.radii[..., None] + 1e-5).all()
    steps = places.diff(dim=0)
    speeds = steps.square().sum(dim=-1).sqrt()
    straight = speeds.amax(dim=0)
    assert 0.03 - 1e-4 <= straight.min() <= straight.max() <= 0.1 + 1e-4
    assert ((steps - steps[0]).abs().amax(dim=-1) > 1e-3).any()  # some bounce


@given(st.floats(0.05, 0.9), st.floats(-1, 1), st.floats(-0.5, 0.5), st.integers(0, 60))
def test_a_way_is_folded_at_walls(room, share, speed, steps):
    place, speed_now = share * room, speed
    for _ in range(steps):
        place += speed_now
        while abs(place) > room:
            place, speed_now = math.copysign(2 * room, place) - place, -speed_now
    end, walls = (
        torch.tensor(x, dtype=torch.float64) for x in (share * room + speed * steps, room)
    )
    assert bounced(end, walls).item() == pytest.approx(place, abs=1e-9)


def test_what_has_moved_and_turned_takes_its_outline_and_texture_with_it():
    layout = compose(KEYS)
    draw = torch.Generator().manual_seed(0)
    centres = centres_of(layout)
    drift = torch.rand(40, SLOTS, 2, generator=draw) - 0.5
    turns = torch.randint(-90, 90, (40, SLOTS), generator=draw)
    made = moved(layout, centres, drift, turns)
    point = torch.rand(40, SLOTS, 2, generator=draw) * 2 - 1
    angle = torch.deg2rad(turns.float())
    arm, (cos, sin) = point - centres, (angle.cos(), angle.sin())
    turned = torch.stack([cos * arm[..., 0] - sin * arm[..., 1],
                          sin * arm[..., 0] + cos * arm[..., 1]], -1)  # fmt: skip

    def seen(maps, at):
        return (maps[..., :2] @ at[..., None])[..., 0] + maps[..., 2]

    for name in ("shape_maps", "texture_maps"):
        before, after = (getattr(each, name)[:, :SLOTS] for each in (layout, made))
        there = seen(after, centres + drift + turned)
        torch.testing.assert_close(there, seen(before, point), atol=1e-3, rtol=1e-4)
    assert torch.equal(made.texture_maps[:, SLOTS], layout.texture_maps[:, SLOTS])
    still = moved(layout, centres, torch.zeros_like(drift), torch.zeros_like(turns))
    assert torch.equal(still.shape_maps, layout.shape_maps)


def square(top: int, left: int, size: int = 32) -> torch.Tensor:
    image = torch.full((3, size, size), -1.0)
    image[:, top : top + 8, left : left + 8] = torch.linspace(0, 1, 64).view(8, 8)
    return image


def test_what_moves_evenly_is_predicted_as_it_goes_on():
    clip = torch.stack([square(4 + step, 20 - 2 * step) for step in range(6)])[None]
    found = constant_velocity(clip[:, :3], 3)
    assert torch.equal(found, clip[:, 3:])
    assert torch.equal(copy_last(clip[:, :3], 2), clip[:, [2, 2]])
    still = square(9, 9)[None, None].expand(2, 4, -1, -1, -1)
    assert torch.equal(constant_velocity(still, 2), still[:, :2])
    assert torch.equal(constant_velocity(still[:, :1], 2), still[:, :2])
    gone = torch.stack([square(0, 22 + 2 * step) for step in range(2)])[None]
    assert torch.equal(constant_velocity(gone, 5)[0, -1], torch.full((3, 32, 32), -1.0))


def test_what_moves_in_large_frames_is_found_to_the_pixel():
    draw = torch.Generator().manual_seed(0)
    texture = F.interpolate(torch.rand(1, 3, 8, 8, generator=draw), (40, 40), mode="bicubic")[0]
    clip = torch.full((1, 6, 3, 200, 130), -1.0)
    for step in range(6):
        clip[0, step, :, 20 + 9 * step :, 80 - 7 * step :][:, :40, :40] = texture
    found = constant_velocity(clip[:, :3], 3)
    wrong = (found != clip[:, 3:]).float().mean()
    assert wrong < 0.3 * (copy_last(clip[:, :3], 3) != clip[:, 3:]).float().mean()
    inner = (slice(60, 80), slice(66, 86))
    down, right = displacements(clip[:, 1], clip[:, 2])
    assert (down[0][inner] == 9).all()
    assert (right[0][inner] == -7).all()
