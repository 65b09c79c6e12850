"""Flow matching: what is learnt, by hand; where noise is led, with velocities that are known."""

import math

import pytest
import torch
from scipy.stats import kstest, norm
from tiny_recipes import tiny
from torch import nn
from training_steps import batch_at, started

from genimg import rng
from genimg.contracts import Batch
from genimg.engine import Engine
from genimg.errors import InputError
from genimg.models.velocity import Attention, VelocityUNet, waves
from genimg.operations.drawing import Sample
from genimg.operations.exploring import Traverse
from genimg.passes import rows_at_once
from genimg.training.flow_matching import drawn_times
from genimg.training.sync import Alone

KEYS = torch.arange(4000)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def busy(network: VelocityUNet) -> VelocityUNet:
    """One whose last layers are not zero, so that it does something."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return network.eval()


@pytest.mark.parametrize("conditional", [False, True])
def test_the_loss_is_that_of_straight_paths(conditional):
    """Of all of them at once: the network is asked for an image's own velocity where it lies."""
    recipe = tiny("flow", "train.precision=float32", f"model.conditional={conditional}")
    method = started(recipe)
    busy(method.networks["velocity"])
    batch, (network,) = batch_at(recipe, 0), method.networks.values()
    squares = []
    for number, key in enumerate(batch.keys):
        own = key[None]
        image, noise = batch.rows["image"][number], rng.normal(rng.fold(own, 1), (3, 16, 16))[0]
        time = torch.sigmoid(rng.normal(rng.fold(own, 2), (1,))[0])
        told = None
        if conditional:
            told = torch.zeros(1, len(recipe.model.classes))
            told[0, batch.rows["label"][number]] = float(rng.uniform(rng.fold(own, 3)) >= 0.1)
        with torch.no_grad():
            made = network((time * image + (1 - time) * noise)[None], time, told)[0]
        squares.append((made - (image - noise)).square().mean())
    losses = method.update(batch, Alone())
    torch.testing.assert_close(losses["loss"], torch.stack(squares).mean(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("width", "heads"), [(56, 1), (128, 2), (224, 2), (240, 3), (416, 4)])
def test_attention_has_as_many_heads_as_there_are_equal_ones_of_64_channels_or_more(width, heads):
    attention = Attention(width)
    assert attention.heads == heads
    nn.init.normal_(attention.out.weight, std=0.1)
    features = torch.randn(2, width, 3, 2)
    made = attention(features)
    assert made.shape == features.shape
    assert not torch.equal(made, features)


def test_times_are_drawn_as_their_names_say():
    uniform, logit_normal = (drawn_times(KEYS, kind) for kind in ("uniform", "logit-normal"))
    assert kstest(uniform.numpy(), "uniform").pvalue > 0.01
    assert kstest(torch.logit(logit_normal).numpy(), norm.cdf).pvalue > 0.01


def test_a_class_is_dropped_as_often_as_asked_for_and_is_else_its_own():
    recipe = tiny("flow", "model.conditional=true", "loss.drop=0.25")
    method, labels = recipe.method(torch.device("cpu")), KEYS % 8
    told = method.told(Batch({"label": labels}, KEYS, len(KEYS)))
    dropped = told.sum(dim=1) == 0
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(told[~dropped].argmax(dim=1), labels[~dropped])
    assert set(told.flatten().tolist()) == {0.0, 1.0}


def test_a_class_that_is_always_told_cannot_be_insisted_on():
    """What would be drawn of none, which guidance leads away from, has not been learnt then."""
    always = ["model.conditional=true", "loss.drop=0"]
    with pytest.raises(InputError, match=r"sampler.guidance=1.5: goes beyond what is drawn of no"):
        tiny("flow", *always)
    recipe = tiny("flow", *always, "sampler.guidance=1")
    with pytest.raises(InputError, match=r"guidance=2.0: this flow takes no guidance"):
        recipe.allow(Sample(guidance=2.0))
    assert recipe.allow(Sample(steps=2, label="disc")).takes == ("latent", "classes", "steps")
    with pytest.raises(InputError, match=r"loss.drop=1: input should be less than 1"):
        tiny("flow", "loss.drop=1")


class Towards(nn.Module):
    """A velocity that leads every noise, straight, to a plain image of its class's level."""

    def __init__(self, levels: list[float]) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.tensor(levels))
        self.asked = 0

    def forward(self, images, times, classes=None):
        self.asked += 1
        level = torch.zeros(len(images)) if classes is None else classes @ self.levels
        return (level[:, None, None, None] - images) / (1 - times[:, None, None, None])


@pytest.mark.parametrize("steps", [1, 3, 50])
@pytest.mark.parametrize("solver", ["euler", "midpoint"])
def test_noise_is_led_to_images_in_as_many_steps_as_asked_for(steps, solver):
    recipe = tiny("flow", f"sampler.solver={solver}")
    network = Towards([])
    compute = recipe.drawer({"velocity": network})
    noise = torch.randn(5, recipe.latent)
    made = compute({"latent": noise, "steps": torch.full((5,), steps)})["image"]
    assert made.shape == (5, 3, 16, 16)
    torch.testing.assert_close(made, torch.zeros_like(made), atol=1e-5, rtol=0)
    assert network.asked == steps * (1 if solver == "euler" else 2)
    compute({"latent": noise})
    assert network.asked == (steps + recipe.sampler.steps) * (1 if solver == "euler" else 2)


@pytest.mark.parametrize(("guidance", "passes"), [(0.0, 2), (1.0, 1), (2.5, 2)])
def test_guidance_goes_on_from_no_class_beyond_the_wanted_one(guidance, passes):
    recipe = tiny("flow", "model.conditional=true", "sampler.solver=euler")
    levels = torch.arange(8) / 20
    network = Towards(levels.tolist())
    rows = {
        "latent": torch.randn(8, recipe.latent),
        "classes": torch.eye(8),
        "guidance": torch.full((8,), guidance),
    }
    made = recipe.drawer({"velocity": network})(rows)["image"]
    # where no class is wanted, this one's velocity leads to 0
    torch.testing.assert_close(made.mean(dim=(1, 2, 3)), guidance * levels, atol=1e-5, rtol=0)
    assert network.asked == passes * recipe.sampler.steps


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "unshuffle", "depth"), [(8, 1, 0), (12, 2, 1), (32, 4, 2)])
def test_the_network_starts_at_rest_and_keeps_its_images_shape(size, unshuffle, depth, channels):
    network = VelocityUNet(8, depth, 1, unshuffle, channels, 0)
    images = torch.randn(3, channels, size, size)
    assert torch.equal(network(images, torch.rand(3)), torch.zeros_like(images))
    assert busy(network)(images, torch.rand(3)).shape == images.shape


def test_the_network_looks_at_each_image_its_time_and_its_class_alone():
    network = busy(VelocityUNet(16, 1, 2, 2, 3, 4))
    images, times, classes = torch.randn(5, 3, 16, 16), torch.rand(5), torch.eye(5)[:, :4]
    together = network(images, times, classes)
    alone = [network(*(each[i : i + 1] for each in (images, times, classes))) for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-3, atol=1e-4)
    for other in (network(images, 1 - times, classes), network(images, times, classes.flip(1))):
        assert (other - together).abs().mean() > 1e-3


def test_each_pixel_attends_to_words_wherever_they_stand():
    network = busy(VelocityUNet(16, 1, 1, 2, 3, 8, words=True))
    images, times, words = torch.randn(2, 3, 16, 16), torch.rand(2), torch.randn(2, 5, 9)
    words[..., -1] = 1
    words[:, 3:] = 0  # there are three
    told = network(images, times, words)
    torch.testing.assert_close(network(images, times, words.flip(1)), told, rtol=1e-3, atol=1e-4)
    words.requires_grad_()
    at_a_corner = network(images, times, words)[..., 0, 0].square().sum()
    (moved,) = torch.autograd.grad(at_a_corner, words)
    assert (moved[..., :-1].abs().amax(dim=2) > 1e-5).all()


def test_times_become_waves_from_fast_to_slow():
    made = waves(torch.tensor([0.0, 0.25, 1.0]), 8)
    torch.testing.assert_close(made[0], torch.tensor([1.0] * 4 + [0.0] * 4))
    expected = [math.cos(250 / 10_000 ** (i / 4)) for i in range(4)]
    torch.testing.assert_close(made[1, :4], torch.tensor(expected), rtol=1e-3, atol=1e-3)


def test_sizes_that_cannot_be_halved_so_often_are_refused():
    with pytest.raises(InputError, match=r"data.size=20: with model.unshuffle=2 and model.depth=2"):
        tiny("flow", "data.size=20", "model.depth=2")


def test_its_own_steps_make_passes_as_short_as_those_asked_for():
    """Whoever leaves the option out waits, and lets others wait, no longer."""
    for own in (1, 8, 50):
        recipe = tiny("flow", f"sampler.steps={own}")
        engine = Engine(recipe, {name: net.eval() for name, net in recipe.networks().items()})
        ability = engine.abilities["sample"]
        asked, left_out = (Sample(n=4, steps=steps).plan(ability, {}) for steps in (own, None))
        assert asked.steps == left_out.steps == own
        assert asked.pixels == left_out.pixels == recipe.data.size**2
        few = rows_at_once(own * recipe.data.size**2, engine.device)
        assert engine.most(asked, waited=True) == engine.most(left_out, waited=True) == few
        assert Traverse(dims="0,1", steps=own).plan(ability, {}).steps == own
