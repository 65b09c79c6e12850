"""ProGAN's networks: what they know of an image at each level, and how they come to the next."""

import pytest
import torch
import torch.nn.functional as F
from tiny_recipes import tiny
from torch import nn
from training_steps import batch_at, started, trained

from genimg import losses, recipes, rng
from genimg.models.growing import (
    Discriminator,
    EqualConv2d,
    EqualLinear,
    Generator,
    Growing,
    enlarged,
    grown_after,
    level_at,
    pixel_norm,
    shrunk,
)
from genimg.models.minibatch_std import GROUP, MinibatchStd
from genimg.models.upscaling import folded
from genimg.training.sync import Alone

LATENTS = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(2))
CLASSES = torch.eye(4).repeat(2, 1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def pair(classes: int = 0, phase: int = 100) -> tuple[Generator, Discriminator]:
    return Generator(5, 4, 32, 3, phase, classes), Discriminator(4, 32, 3, phase, classes)


@pytest.mark.parametrize(
    ("seen", "level"),
    [(0, 0), (100, 0), (125, 0.25), (200, 1), (300, 1), (350, 1.5), (400, 2), (500, 2), (9999, 2)],
)
def test_levels_stay_for_a_phase_and_fade_in_for_one(seen, level):
    assert level_at(seen, 100, 2) == level
    assert level_at(seen, 0, 2) == 2


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_a_level_knows_so_many_pixels_and_no_others(level):
    generator, discriminator = pair()
    for network in (generator, discriminator):
        network.grow(200 * level)
    factor = 8 >> level
    images = generator(LATENTS)
    assert images.shape == (8, 3, 32, 32)
    torch.testing.assert_close(images, enlarged(shrunk(images, factor), factor))
    assert not torch.allclose(images, enlarged(shrunk(images, 2 * factor), 2 * factor))
    coarse = enlarged(shrunk(IMAGES, factor), factor)
    torch.testing.assert_close(discriminator(coarse), discriminator(IMAGES))
    other = enlarged(shrunk(IMAGES, 2 * factor), 2 * factor)
    assert not torch.allclose(discriminator(other), discriminator(IMAGES))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_next_level_begins_as_this_one_and_fades_in_along_a_line(level):
    def at(seen: float) -> list[torch.Tensor]:
        for network in (generator, discriminator):
            network.grow(seen)
        real = discriminator.faded(IMAGES)
        return [generator(LATENTS), discriminator.body(real), shrunk(real, 4 >> level)]

    generator, discriminator = pair()
    now, soon, half, then = (at(200 * level + 100 + more) for more in (0, 1e-4, 50, 100))
    torch.testing.assert_close(soon[0], now[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(soon[1], now[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(half[0], (now[0] + then[0]) / 2)
    torch.testing.assert_close(half[2], (enlarged(shrunk(half[2], 2), 2) + then[2]) / 2)
    torch.testing.assert_close(then[2], shrunk(IMAGES, 4 >> level))


def test_the_level_is_read_where_the_weights_are():
    old, new = pair()[0], pair()[0]
    old.grow(350)
    new.load_state_dict(old.state_dict())
    assert torch.equal(new(LATENTS), old(LATENTS))
    assert (new.level, new.doublings) == (1.5, 2)


def test_classes_change_what_is_drawn_and_judged():
    generator, discriminator = pair(classes=4)
    for network in (generator, discriminator):
        network.grow(150)
    same = LATENTS[:1].expand(8, -1)
    images = generator(same, CLASSES)
    assert len({image.detach().numpy().tobytes() for image in images}) == 4
    torch.testing.assert_close(generator(same), generator(same, torch.zeros(8, 4)))
    logits = discriminator(IMAGES[:1].expand(8, -1, -1, -1), CLASSES)
    assert len(set(logits.tolist())) == 4


def test_gradients_reach_what_has_grown_twice_and_nothing_else():
    discriminator = pair(classes=4)[1]
    discriminator.grow(350)
    images = IMAGES.clone().requires_grad_()
    losses.gradient_penalty(discriminator(images, CLASSES), images).backward()
    without = {name for name, p in discriminator.named_parameters() if p.grad is None}
    grown = ("to_logit", "directions", *(f"blocks.{i}" for i in (0, 1)), *(
        f"from_image.{i}" for i in (1, 2)))  # fmt: skip
    outside = {n for n, _ in discriminator.named_parameters() if not n.startswith(grown)}
    assert outside <= without
    assert {name for name in without - outside if name.endswith("weight")} == set()


def test_layers_are_scaled_and_folded_into_plain_ones():
    layer, dense = EqualConv2d(6, 50, 3, 2**0.5), EqualLinear(400, 300, 1.0)
    assert layer.weight.std().item() == pytest.approx(1, rel=0.05)
    noise = torch.randn(4, 6, 9, 9)
    expected = F.conv2d(noise, layer.weight * (2 / 54) ** 0.5, padding=1)
    torch.testing.assert_close(layer(noise), expected)
    assert dense(torch.randn(64, 400)).std().item() == pytest.approx(1, rel=0.05)
    network = nn.Sequential(layer, nn.Flatten(), EqualLinear(50 * 81, 3, 1.0))
    for parameter in network.parameters():
        parameter.data.add_(0.1)
    plain = folded(network).eval()
    assert not any(isinstance(each, EqualConv2d | EqualLinear) for each in plain.modules())
    torch.testing.assert_close(plain(noise), network(noise), rtol=1e-4, atol=1e-4)


def test_each_pixel_has_a_mean_square_of_1():
    features = 7 * torch.randn(2, 6, 3, 3)
    torch.testing.assert_close(pixel_norm(features).square().mean(dim=1), torch.ones(2, 3, 3))
    torch.testing.assert_close(pixel_norm(features), pixel_norm(3 * features))


def test_minibatch_deviation_is_of_a_group_of_neighbours():
    features = torch.randn(2 * GROUP, 3, 4, 4)
    features[:GROUP] = features[0]
    made = MinibatchStd()(features)
    assert torch.equal(made[:, :3], features)
    assert made[:GROUP, 3].max() < 1e-3
    expected = features[GROUP:].std(dim=0, correction=0).mean()
    torch.testing.assert_close(made[GROUP:, 3], expected.expand(GROUP, 4, 4))


def test_a_training_grows_by_the_images_that_it_has_seen():
    recipe = tiny("progan")
    method, levels = started(recipe), []
    for _ in range(5):
        trained(recipe, method, 1)
        networks = (*method.networks.values(), *method.averages.values())
        assert all(isinstance(network, Growing) for network in networks)
        (level,) = {float(network.level) for network in networks}
        levels.append(level)
    assert levels == pytest.approx([0, 1 / 3, 1, 2, 2])


def test_a_step_is_that_of_a_drifting_critic():
    recipe = tiny("progan", "train.precision=float32", "loss.drift=0.5")
    method, without = started(recipe), started(recipe)
    for one in (method, without):
        one.seen = 8
        for network in one.networks.values():
            network.grow(8)
    batch, g, d = batch_at(recipe, 8), *without.networks.values()
    with torch.no_grad():
        fake = g(rng.normal(rng.fold(batch.keys, 1), (8,)))
    real = d.faded(batch.rows["image"])
    part = rng.uniform(rng.fold(batch.keys, 2), (1, 1, 1))
    between = (real * part + fake * (1 - part)).requires_grad_()
    loss = d(fake).mean() - d(real).mean() + 0.5 * d(real).square().mean()
    (loss + 10 * losses.gradient_penalty(d(between), between)).backward()
    method.update(batch, Alone())
    for got, wanted in zip(
        method.networks["discriminator"].parameters(), d.parameters(), strict=True
    ):
        assert (got.grad is None) == (wanted.grad is None)
        if wanted.grad is not None:
            scale = wanted.grad.abs().max().item()
            torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-3, atol=1e-4 * scale + 1e-8)


def test_a_training_that_ends_before_all_has_grown_is_told_of():
    assert level_at(grown_after(100, 3) - 1, 100, 3) < level_at(grown_after(100, 3), 100, 3) == 3
    short = recipes.named("progan").override(["train.images=599999"])
    assert list(short.cautions()) == [
        "train.images=599999: the networks draw all of data.size=32 after 600000 images; train on"
        " as many, or give model.phase=99999"
    ]
    for enough in ("train.images=600000", "model.phase=99999", "model.phase=0"):
        assert not list(short.override([enough]).cautions())
