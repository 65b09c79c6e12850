"""Predictors of frames: what their layers compute, what they are shown, what they are judged by."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_recipes import tiny
from torch import nn
from training_steps import batch_at, started

from genimg import recipes
from genimg.contracts import Ability
from genimg.data.opening import open_dataset
from genimg.engine import Engine
from genimg.errors import InputError
from genimg.inference import Inference
from genimg.models.predicting import Predictor
from genimg.models.recurrent import ConvLSTM, SpatiotemporalLSTM
from genimg.operations.moving import Animate
from genimg.results import Frames
from genimg.training.sync import Alone

RECURRENT = ("conv-lstm", "predrnn")
FAMILY = ("conv-mixer", *RECURRENT, "frame-vae")


def drawn(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(len(shape))) * 2 - 1


def test_a_layer_of_memory_is_that_of_the_paper():
    torch.manual_seed(0)
    layer = ConvLSTM(3, 5, 3)
    x, h, c = drawn(2, 3, 6, 6), drawn(2, 5, 6, 6), drawn(2, 5, 6, 6) * 2
    weight, bias = layer.gates.weight, layer.gates.bias

    def gate(number: int) -> torch.Tensor:
        few = slice(5 * number, 5 * number + 5)
        return F.conv2d(x, weight[few, :3], bias[few], padding=1) + F.conv2d(
            h, weight[few, 3:], padding=1
        )

    cell = torch.sigmoid(gate(0) + 1) * c + torch.sigmoid(gate(1)) * torch.tanh(gate(2))
    hidden = torch.sigmoid(gate(3)) * torch.tanh(cell)
    made = layer(x, h, c, c)
    for got, expected in zip(made, (hidden, cell, c), strict=True):
        torch.testing.assert_close(got, expected)


def test_a_spatiotemporal_layer_is_that_of_the_paper():
    torch.manual_seed(0)
    layer = SpatiotemporalLSTM(3, 5, 3)
    x, h, c, m = drawn(2, 3, 6, 6), drawn(2, 5, 6, 6), drawn(2, 5, 6, 6) * 2, drawn(2, 5, 6, 6) * 3
    of = {"x": layer.of_x(x).split(5, 1), "h": layer.of_h(h).split(5, 1)}
    of["m"] = layer.of_m(m).split(5, 1)
    sigmoid, tanh = torch.sigmoid, torch.tanh
    forget, let, new = (of["x"][i] + of["h"][i] for i in range(3))
    cell = sigmoid(forget + 1) * c + sigmoid(let) * tanh(new)
    forget, let, new = (of["x"][3 + i] + of["m"][i] for i in range(3))
    memory = sigmoid(forget + 1) * m + sigmoid(let) * tanh(new)
    both = torch.cat([cell, memory], dim=1)
    out = sigmoid(of["x"][6] + of["h"][3] + layer.of_both(both))
    for got, expected in zip(
        layer(x, h, c, m), (out * tanh(layer.mix(both)), cell, memory), strict=True
    ):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", RECURRENT)
def test_what_is_not_shown_is_what_was_predicted(name):
    recipe = tiny(name, "model.layers=2")
    torch.manual_seed(0)
    network = recipe.predictor()
    clips, none = drawn(2, 6, 3, 16, 16), torch.zeros(2, 6, dtype=torch.bool)
    alone = network(clips[:, :3])
    assert alone.shape == (2, 3, 3, 16, 16)
    unseen = network.learn(clips, none, None)[0]
    assert unseen.shape == (2, 5, 3, 16, 16)
    torch.testing.assert_close(unseen[:, -3:], alone)
    shown = network.learn(clips, ~none, None)[0]
    torch.testing.assert_close(shown[:, :3], unseen[:, :3])  # of given frames alone
    assert not torch.allclose(shown[:, 3], unseen[:, 3])
    mixed = network.learn(clips, torch.stack([none[0], ~none[0]]), None)[0]
    torch.testing.assert_close(mixed[0], unseen[0])
    torch.testing.assert_close(mixed[1], shown[1])
    later = clips.clone()
    later[:, 4] += 1
    after = network.learn(later, ~none, None)[0]
    torch.testing.assert_close(after[:, :4], shown[:, :4])  # each goes by those before it
    assert not torch.allclose(after[:, 4], shown[:, 4])


def test_fewer_and_fewer_frames_are_shown():
    recipe = tiny("conv-lstm", "train.images=64", "loss.sampling=0.5")
    method = started(recipe)
    keys = torch.arange(4000) * 31
    for seen, expected in ((0, 1.0), (8, 0.75), (24, 0.25), (32, 0.0), (60, 0.0)):
        method.seen = seen
        shown = method.told(keys)
        assert shown.shape == (4000, 6)
        assert shown.float().mean() == pytest.approx(expected, abs=0.01)
    assert not started(tiny("conv-lstm", "loss.sampling=0")).told(keys).any()


def test_the_loss_is_the_mean_square_of_what_is_predicted():
    for name, count in (("conv-mixer", 3), ("conv-lstm", 5)):
        recipe = tiny(name, "train.precision=float32")
        method = started(recipe)
        batch = batch_at(recipe, 0)
        clips = batch.rows["frames"][:, :6]
        shown = torch.ones(8, 6, dtype=torch.bool)
        made, _ = method.networks["predictor"].learn(clips, shown, None)
        expected = (made - clips[:, -count:]).square().mean()
        (loss,) = method.learn(batch, Alone()).values()
        torch.testing.assert_close(loss, expected)


class Still(Predictor):
    """Predicts that nothing moves, and the last frame of all a gray level off."""

    def __init__(self) -> None:
        super().__init__(10, 10)
        self.off = nn.Parameter(torch.tensor(2 / 255))

    def forward(self, frames, noise=None) -> torch.Tensor:
        made = frames[:, -1:].repeat(1, 10, 1, 1, 1)
        made[:, -1] = torch.where(made[:, -1] > 0, made[:, -1] - self.off, made[:, -1] + self.off)
        return made


def test_errors_are_summed_over_a_frame_and_told_by_how_far_ahead():
    recipe = recipes.named("conv-mixer").override(["data.size=16", "evaluation.images=20"])
    data = open_dataset(recipe.data, recipe.wants, "test")
    found = recipe.evaluate(Inference({"predictor": Still()}), data)
    given, truth = recipe.clips(Inference({"predictor": Still()}), data, data.choose(20))
    assert (given.shape, truth.shape) == ((20, 10, 3, 16, 16), (20, 10, 3, 16, 16))
    errors = ((given[:, -1:] - truth) / 2).double().flatten(2)
    assert found["mse_copy_last"] == pytest.approx(errors.square().sum(2).mean().item())
    assert found["mae_copy_last"] == pytest.approx(errors.abs().sum(2).mean().item())
    for number in (1, 5):
        assert found[f"mse_at_{number}"] == found[f"mse_copy_last_at_{number}"]
    expected = errors[:, 4].square().sum(1).mean().item()
    assert found["mse_at_5"] == pytest.approx(expected)
    assert found["mse_at_10"] != found["mse_copy_last_at_10"]
    assert found["ssim"] != found["ssim_copy_last"] < 1
    assert {"mse_constant_velocity", "mse_constant_velocity_at_5"} <= found.keys()


@pytest.mark.parametrize(
    ("name", "assignments", "told"),
    [
        ("conv-mixer", ["data.given=15"], "given=15 and predicted=10: clips have 20 frames"),
        ("conv-mixer", ["data.size=8"], "data.size=8: conv-mixer takes 12 or more"),
        ("conv-mixer", ["loss.sampling=0.5"], "all frames are predicted at once"),
        ("conv-lstm", ["model.network=conv-mixer"], r"loss\.sampling=0\.4: with model\.network"),
        ("conv-lstm", ["model.patch=3"], "model.patch=3: input should be 1, 2 or 4"),
    ],
)
def test_what_cannot_be_predicted_is_refused(name, assignments, told):
    with pytest.raises(InputError, match=told):
        recipes.named(name).override(assignments)


def engine_of(name: str, *overrides: str) -> Engine:
    recipe = tiny(name, *overrides)
    torch.manual_seed(0)
    networks = recipe.networks()
    for network in networks.values():
        network.eval().requires_grad_(False)
    return Engine(recipe, networks)


@pytest.mark.parametrize("name", FAMILY)
def test_a_clip_goes_on_as_long_as_is_asked(name):
    engine = engine_of(name)
    seed = {"seed": 5} if name == "frame-vae" else {}
    clip = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    long = engine(Animate(frames=8, **seed), image=clip)
    assert isinstance(long, Frames)
    assert long.images.shape == (3 + 8, 16, 16, 3)
    assert np.array_equal(long.images[:3], clip[2:])
    short = engine(Animate(frames=4, **seed), image=list(clip)).images
    assert np.array_equal(short, long.images[:7])
    if not seed:  # a lap goes by the three frames before it
        again = engine(Animate(frames=5), image=long.images[3:6]).images
        assert np.abs(again[3:].astype(int) - long.images[6:].astype(int)).max() <= 3
    one = engine(Animate(frames=4, **seed), image=clip[:1]).images
    assert np.array_equal(one[0], clip[0])
    still = engine(Animate(frames=4, **seed), image=clip[[0, 0, 0]]).images
    assert np.array_equal(one[1:], still[3:])


def test_a_lap_that_comes_again_changes_nothing():
    ability = Ability(
        lambda rows: {"frames": rows["frames"][:, -1:] + 0.1}, 3, ("frames",), side=4, frames=(2, 1)
    )
    plan = Animate(frames=3).plan(ability, {"image": [np.full((4, 4, 3), 100, np.uint8)]})
    laps = [plan.lap(row) for row in range(plan.count)]
    assert [stop for _, stop in laps] == [1, 2, 3]
    assert len({key for key, _ in laps}) == 3
    for row in range(3):
        made = ability.compute(plan.rows(row, row + 1))
        plan.put(row, made)
        plan.put(row, made)
    levels = plan.result().images[:, 0, 0, 0].astype(int)
    assert levels.tolist() == pytest.approx([100, 112.75, 125.5, 138.25], abs=0.6)


def test_another_seed_is_another_future():
    engine = engine_of("frame-vae")
    clip = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    first, again, other = (engine(Animate(frames=5, seed=s), image=clip) for s in (7, 7, 8))
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.images[:3], other.images[:3])
    assert not np.array_equal(first.images[3], other.images[3])
    assert (first.seeds, other.seeds) == ((7,), (8,))
    (drawn_seed,) = engine(Animate(frames=1), image=clip).seeds
    assert drawn_seed >= 0
    with pytest.raises(InputError, match="seed=3: this conv-mixer takes no seed; leave it out"):
        engine_of("conv-mixer")(Animate(seed=3), image=clip)


def test_a_clip_begins_from_a_seed_where_that_was_learnt():
    engine = engine_of("frame-vae")
    first, again, other = (engine(Animate(frames=5, seed=seed)) for seed in (7, 7, 8))
    assert first.images.shape == (5, 16, 16, 3)
    assert first.seeds == (7,)
    assert np.array_equal(first.images, again.images)
    assert not np.array_equal(first.images[0], other.images[0])
    longer = engine(Animate(frames=8, seed=7)).images
    assert np.array_equal(longer[:5], first.images)
    (drawn_seed,) = engine(Animate(frames=1)).seeds
    assert drawn_seed >= 0
    for engine in (engine_of("conv-mixer"), engine_of("frame-vae", "loss.hidden=0")):
        with pytest.raises(InputError, match="image: this model goes on with a clip or an image"):
            engine(Animate(frames=2))


def test_of_the_part_of_clips_that_is_told_the_given_frames_are_hidden():
    method = started(tiny("frame-vae", "loss.hidden=0.25"))
    keys = torch.arange(400)
    clips = drawn(400, 6, 3, 4, 4)
    begun = method.begun(clips, keys)
    assert torch.equal(begun[:, 3:], clips[:, 3:])
    hidden = (begun[:, :3] == 0).flatten(1).all(1)
    assert torch.equal(begun[~hidden], clips[~hidden])
    assert 70 < hidden.sum() < 130
    assert torch.equal(method.begun(clips[:9], keys[:9]), begun[:9])
    with pytest.raises(InputError, match=r"loss.hidden=0.1: with model.network=conv-lstm"):
        recipes.named("conv-lstm").override(["loss.hidden=0.1"])


def test_latents_cost_what_they_differ_from_what_was_expected():
    recipe = tiny("frame-vae", "train.precision=float32", "loss.kl=0.25", "loss.hidden=0")
    method = started(recipe)
    network = method.networks["predictor"]
    batch = batch_at(recipe, 0)
    clips, shown = batch.rows["frames"][:, :6], torch.ones(8, 6, dtype=torch.bool)
    made, beliefs = network.learn(clips, shown, method.noise(batch.keys))
    assert {each.shape for each in beliefs} == {(8, 5, 1, 4, 4)}
    mean, spread, prior_mean, prior_spread = (
        each.exp().sqrt() if place % 2 else each for place, each in enumerate(beliefs)
    )
    normal = torch.distributions.Normal
    divergence = torch.distributions.kl_divergence(
        normal(mean, spread), normal(prior_mean, prior_spread)
    )
    told = method.learn(batch, Alone())
    torch.testing.assert_close(told["kl"], divergence.flatten(2).sum(2).mean())
    error = (made - clips[:, 1:]).square().mean()
    torch.testing.assert_close(told["squared_error"], error)
    torch.testing.assert_close(told["loss"], error + 0.25 * told["kl"])


def test_what_is_given_is_seen_and_only_then_drawn():
    recipe = tiny("frame-vae")
    torch.manual_seed(0)
    network = recipe.predictor().eval()
    clips, noise = drawn(2, 3, 3, 16, 16), drawn(2, 3 * network.latents)
    made = network(clips, noise)
    later = noise.unflatten(1, (3, -1)).clone()
    later[:, 1:] += 1
    other = network(clips, later.flatten(1))
    torch.testing.assert_close(other[:, 0], made[:, 0])
    assert not torch.allclose(other[:, 1], made[:, 1])
