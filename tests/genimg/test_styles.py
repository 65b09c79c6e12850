"""Networks with styles: what a style does to a layer, mean styles, and the styles of two mixed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine_calls import sample
from tiny_recipes import tiny
from training_steps import batch_at, started

from genimg.directions import steered
from genimg.engine import Engine
from genimg.errors import InputError
from genimg.inference import latents
from genimg.models.growing import GAIN
from genimg.models.styled import Generator, Modulated
from genimg.operations.drawing import Decode
from genimg.operations.exploring import Mix
from genimg.training.adversarial import crossed
from genimg.training.sync import Alone

LATENTS = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
OTHERS = torch.randn(6, 8, generator=torch.Generator().manual_seed(2))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def generator(classes: int = 0) -> Generator:
    """Of 16 x 16 pixels, and so of six styles."""
    made = Generator(8, 4, 2, 16, 3, classes).eval().requires_grad_(False)
    torch.nn.init.normal_(made.means)
    return made


def test_whatever_the_style_channels_go_out_with_one_variance():
    layer, noise = Modulated(24, 10, 3, 8), torch.randn(6, 24, 66, 66)
    for scale in (0.1, 1.0, 30.0):
        made = layer(noise, layer.told(scale * LATENTS))[:, :, 1:-1, 1:-1]
        variance = made.var(dim=(2, 3))  # neighbours are not independent
        torch.testing.assert_close(variance, torch.full_like(variance, GAIN**2), rtol=0.2, atol=0)
    plain = Modulated(24, 10, 1, 8, demodulated=False)
    small, large = (plain(noise, plain.told(s * LATENTS)).std().item() for s in (1.0, 10.0))
    assert large > 5 * small


@pytest.mark.parametrize("demodulated", [True, False])
def test_features_are_scaled_as_weights_of_each_rows_own_would_be(demodulated):
    layer = Modulated(5, 7, 3, 8, demodulated)
    torch.nn.init.normal_(layer.bias)
    features = torch.randn(6, 5, 9, 9)
    made = layer(features, layer.told(LATENTS))
    scale = layer.affine(LATENTS)
    weight = layer.convolution.weight * scale[:, None, :, None, None]
    if demodulated:
        weight = GAIN * weight / weight.square().sum(dim=(2, 3, 4), keepdim=True).sqrt()
    else:
        weight = weight * 5**-0.5
    for row in range(6):
        expected = F.conv2d(features[row : row + 1], weight[row], layer.bias, padding=1)
        torch.testing.assert_close(made[row : row + 1], expected, rtol=1e-4, atol=1e-5)


def test_shorter_latents_have_styles_nearer_to_the_mean_and_it_is_that_of_their_class():
    network, classes = generator(3), torch.eye(3).repeat(2, 1)
    whole = LATENTS * 8**0.5 / LATENTS.norm(dim=1, keepdim=True)
    mean = network.means[0] + network.means[1:].repeat(2, 1)
    styles = network.styles(whole, classes)
    for factor in (0.0, 0.3, 2.0):
        expected = mean + factor * (styles - mean)
        torch.testing.assert_close(network.styles(factor * whole, classes), expected)
    alone = generator()
    assert alone.styles(0 * LATENTS, None).eq(alone.means).all()


@pytest.mark.parametrize("classes", [0, 3])
def test_mean_styles_are_found_as_a_training_goes_on(classes):
    network = generator(classes).train()
    network.means.zero_()
    told = torch.eye(3)[torch.randint(3, (64,))] if classes else None
    points = torch.randn(64, 8)
    for _ in range(400):
        network.styles(points, told)
    network.eval()
    styles = network.styles(points * 8**0.5 / points.norm(dim=1, keepdim=True), told)
    found = network.styles(0 * points, told)
    for kind in range(max(classes, 1)):
        mine = told[:, kind] > 0 if told is not None else slice(None)
        torch.testing.assert_close(found[mine][0], styles[mine].mean(dim=0), rtol=0, atol=1e-2)


def test_from_where_styles_cross_over_layers_are_told_those_of_the_other_and_no_sooner():
    network, seen = generator(), {}
    modulated = [*network.convolutions, *network.to_image]
    for number, layer in zip([0, 2, 3, 4, 5, 1, 3, 5], modulated, strict=True):
        key = (number, layer in network.to_image)
        layer.register_forward_pre_hook(lambda _, given, key=key: seen.update({key: given[1]}))

    def told(*given: torch.Tensor) -> dict[tuple[int, bool], torch.Tensor]:
        seen.clear()
        network(*given)
        return dict(seen)

    first, second = told(LATENTS), told(OTHERS)
    assert network.layers == 6
    for cut in range(7):
        layers = (torch.arange(6) >= cut).float().expand(6, -1)
        mixed = told(LATENTS, None, OTHERS, layers)
        for key, each in mixed.items():
            assert torch.equal(each, (second if key[0] >= cut else first)[key])
        image = network(LATENTS, None, OTHERS, layers)
        for end, same in ((LATENTS, cut == 6), (OTHERS, cut == 0)):
            assert torch.equal(image, network(end)) == same


def test_a_share_of_images_is_mixed_from_any_layer_but_the_first():
    keys = torch.arange(6000)
    layers = crossed(keys, 6, 0.9)
    first = 6 - layers.sum(dim=1)
    assert torch.equal(layers, (torch.arange(6) >= first[:, None]).float())
    counts = torch.bincount(first.long(), minlength=7) / 6000
    torch.testing.assert_close(
        counts, torch.tensor([0, *[0.18] * 5, 0.1]), rtol=0, atol=4 * (0.18 / 6000) ** 0.5
    )
    assert torch.equal(crossed(keys[7:9], 6, 0.9), layers[7:9])
    assert not crossed(keys, 6, 0.0).any()


def test_a_training_draws_of_mixed_styles_as_often_as_it_is_told():
    drawn = []
    for share in (1, 0):
        recipe = tiny("stylegan", f"loss.style_mixing={share}", "train.precision=float32")
        method, batch = started(recipe), batch_at(recipe, 0)
        network = method.networks["generator"]
        network.register_forward_hook(lambda _, given, made: drawn.append((given, made.detach())))
        method.update(batch, Alone())
    (mixed, images), (plain, others) = drawn
    assert torch.equal(mixed[0], plain[0])
    assert (len(mixed), len(plain)) == (4, 2)
    assert all(not torch.equal(one, other) for one, other in zip(images, others, strict=True))


def mix(engine: Engine, inputs=(), **options) -> np.ndarray:
    """[rows, columns, H, W, C]"""
    made = engine(Mix(**options), **dict(inputs))
    return made.images.reshape(-1, made.columns, *made.images.shape[1:])


@pytest.mark.parametrize("kind", ["stylegan", "stylegan-by-class"])
def test_a_grid_shows_images_and_what_each_is_with_the_styles_of_each(engines, kind):
    engine = engines[kind]
    rows, columns = (
        np.stack([sample(engine, 1, seed)[0] for seed in seeds]) for seeds in ((3, 9), (4, 4, 7))
    )
    asked = {"seeds": "3,9", "styles": "4,4,7"}
    grids = [mix(engine, **asked, layers=layers) for layers in ("0-5", "4-5", "16px")]
    for grid in grids:
        assert grid.shape == (3, 4, 16, 16, 3)
        assert (grid[0, 0] == 255).all()
        assert np.array_equal(grid[0, 1:], columns)
        assert np.array_equal(grid[1:, 0], rows)
    assert all(np.array_equal(row, columns) for row in grids[0][1:, 1:])
    assert np.array_equal(grids[1], grids[2])
    fine = grids[1][1:, 1:]
    assert np.array_equal(fine[:, 0], fine[:, 1])
    for one, other in ((rows[:, None], fine), (columns[None], fine)):
        assert (one != other).any(axis=(2, 3, 4)).all()
    alone = mix(engine, **asked, layers="4-5", alone=True)
    assert np.array_equal(alone, fine)
    single = mix(engine, seeds="9", styles="7", layers="4-5", alone=True)
    assert np.array_equal(single[0, 0], fine[1, 2])


def test_without_others_images_are_given_one_anothers_styles_in_the_finer_half(engines):
    engine = engines["stylegan"]
    made = engine(Mix(n=3, seed=5, truncation=0.7))
    assert (made.columns, made.seeds, len(made.images)) == (4, (5, 6, 7), 16)
    assert made.sheet().shape == (74, 74, 3)  # with lines between
    grid = made.images.reshape(4, 4, 16, 16, 3)
    expected = sample(engine, 3, 5, truncation=0.7)
    for number in range(3):
        assert np.array_equal(grid[number + 1, number + 1], expected[number])
    same = mix(engine, seeds="5,6,7", styles="5,6,7", truncation=0.7, layers="3-5")
    assert np.array_equal(grid, same)
    points = latents(torch.arange(5, 8), 8).numpy()
    assert np.array_equal(mix(engine, {"latents": points}, truncation=0.7), grid)


def test_a_direction_moves_all_that_is_mixed(engines):
    loaded = engines["stylegan"]
    engine = Engine(loaded.recipe, loaded.networks, loaded.precision)
    shift = torch.linspace(-1, 1, 8)
    engine.abilities = steered(engine.abilities, {"size": shift})
    points = latents(torch.arange(2), 8)
    grid = mix(engine, seeds="0,1", direction="size=0.5")
    moved = (points + 0.5 * shift).numpy()
    assert np.array_equal(grid, mix(loaded, {"latents": moved}))
    assert np.array_equal(grid[0, 1:], loaded(Decode(), latents=moved).images)


@pytest.mark.parametrize(
    ("options", "inputs", "told"),
    [
        (
            {"layers": "4-6"},
            {},
            "layers='4-6': this model has the layers 0 to 5, two of each of 4px",
        ),
        ({"layers": "3-2"}, {}, "layers='3-2': this model has the layers 0 to 5"),
        ({"layers": "8-32px"}, {}, "4px, 8px, 16px; give some of them, as 3-5 or 4-8px"),
        ({"layers": "6px"}, {}, "layers='6px': this model has the layers 0 to 5"),
        ({"layers": "fine"}, {}, "layers='fine'"),
        ({"n": 1}, {}, "seeds: one image has no other to take styles from"),
        ({"seeds": "1,2"}, {"latents": LATENTS.numpy()}, "seeds='1,2': latents are given"),
        ({}, {"latents": LATENTS[:, :7].numpy()}, "this model takes [N, 8]"),
    ],
)
def test_what_cannot_be_mixed_is_refused(engines, options, inputs, told):
    with pytest.raises(InputError) as caught:
        engines["stylegan"](Mix.validated({"seed": 0, **options}), **inputs)
    assert told in str(caught.value)
    with pytest.raises(InputError, match="dcgan models cannot mix; they can"):
        engines["dcgan"](Mix(seed=0))
