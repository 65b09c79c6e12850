"""Traversals, variations and inversions: what they show, how near they come, what they refuse."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_calls import picture, sample
from tiny_recipes import tiny

from genimg.contracts import Ability, Rows
from genimg.engine import Engine
from genimg.errors import InputError
from genimg.inference import latents
from genimg.inversion import Inverted, search
from genimg.metrics.fidelity import psnr
from genimg.operations.drawing import Decode
from genimg.operations.exploring import Traverse, Vary
from genimg.operations.reading import Encode, Invert, Reconstruct
from genimg.passes import rows_at_once

WEIGHTS = torch.tensor([0.1, 0.4, 0.0, -0.2])


def linear() -> Ability:
    """A network of four pixels, of which each latent changes one, more or less."""

    def compute(rows: Rows) -> Rows:
        return {"image": (rows["latent"] * WEIGHTS).view(-1, 1, 2, 2)}

    return Ability(compute, 1, takes=("latent",), latent=4, side=2)


def made(ability: Ability, plan):
    start = 0
    while start < plan.count:
        stop = plan.lap(start)[1]
        plan.put(start, plan.converted(ability.compute(plan.rows(start, stop))))
        start = stop
    return plan.result()


def test_latents_come_in_the_order_of_what_they_change_each_alone():
    ability = linear()
    traverse = Traverse(seed=0, n=3, frames=5, reach=2)
    frames = made(ability, traverse.plan(ability, {"latents": np.zeros((1, 4), np.float32)}))
    assert (frames.images.shape, frames.columns, frames.seeds) == ((15, 2, 2, 1), 5, ())
    rows = frames.images.reshape(3, 5, 4).astype(int)
    for row, dim in zip(rows, (1, 3, 0), strict=True):
        expected = 127.5 + 127.5 * WEIGHTS[dim].item() * np.linspace(-2, 2, 5)
        assert np.abs(row[:, dim] - expected).max() <= 1
        assert (np.delete(row, dim, axis=1) == 128).all()
    named = traverse.model_copy(update={"dims": "0,2"})
    rows = made(ability, named.plan(ability, {})).images.reshape(2, 5, 4)
    assert (np.ptp(rows, axis=1) > 0).tolist() == [[True, False, False, False], [False] * 4]
    with pytest.raises(InputError, match="dims=4: this model has the latents 0 to 3"):
        Traverse(dims="4").plan(ability, {})
    with pytest.raises(InputError, match="give those of one image"):
        traverse.plan(ability, {"latents": np.zeros((2, 4), np.float32)})


def test_a_traversal_goes_through_its_seeds_other_latents(engines):
    for kind in ("dcgan", "conv-vae", "dcgan-by-class"):
        engine = engines[kind]
        point = latents(torch.tensor([3]), 8).numpy().repeat(2, axis=0)
        point[:, 5] = (-1, 1)
        label = {"label": "disc"} if engine.abilities["decode"].classes else {}
        frames = engine(Traverse(seed=3, dims="5", frames=2, reach=1, **label)).images
        assert np.array_equal(frames, engine(Decode(**label), latents=point).images)


def test_of_too_many_latents_the_first_are_tried():
    ability = Ability(lambda rows: {"image": rows["latent"]}, 1, ("latent",), latent=300, side=2)
    plan = Traverse(seed=0, n=2, frames=3).plan(ability, {})
    assert plan.count == 2 * 256 + 2 * 3
    weights = torch.zeros(300).index_fill_(0, torch.tensor([7, 255, 256]), 0.2)
    weights[255] = 0.3
    for start, stop in ((0, 512), (512, 518)):
        latent = plan.rows(start, stop)["latent"]
        levels = (latent @ weights)[:, None, None, None].expand(-1, 1, 2, 2)
        plan.put(start, plan.converted({"image": levels}))
    assert plan.result().rows == ("latent 255", "latent 7")
    assert Traverse(seed=0, dims="256", frames=3).plan(ability, {}).count == 3


@pytest.mark.parametrize("kind", ["dcgan", "dcgan-by-class", "flow"])
def test_what_is_near_a_seed_is_of_its_length_and_its_class(engines, kind):
    engine = engines[kind]
    same = engine(Vary(of=4, n=3, seed=9, strength=0)).images
    assert all(np.array_equal(each, sample(engine, 1, seed=4)[0]) for each in same)
    off = []
    for strength in (0.05, 0.3, 10):
        varied = engine(Vary(of=4, n=6, seed=9, strength=strength))
        off.append(np.abs(varied.images.astype(float) - same[0]).mean())
        assert varied.seeds == tuple(range(9, 15))
    assert off == sorted(off)
    plan = engine.plan(Vary(of=4, n=3, seed=9, strength=0.7))
    own = latents(torch.tensor([4]), engine.recipe.latent)
    lengths = plan.rows(0, 3)["latent"].norm(dim=1)
    torch.testing.assert_close(lengths, own.norm().expand(3))
    given = engine(Vary(n=3, seed=9, strength=0.7), latents=own.numpy()).images
    if kind != "dcgan-by-class":
        assert np.array_equal(given, engine(Vary(of=4, n=3, seed=9, strength=0.7)).images)


def test_variations_are_asked_for_in_one_way(engines):
    for options, inputs, told in (
        ({}, {}, "of: neither an image nor latents are given; give one of them"),
        ({"of": 3}, {"image": picture(9, 9, 3)}, "of=3: give either that or image, not both"),
        ({}, {"image": picture(9, 9, 3)}, "image: this model reads none; give latents"),
    ):
        with pytest.raises(InputError) as caught:
            engines["dcgan"](Vary(**options), **inputs)
        assert told in str(caught.value)


def told_and_found(engine: Engine, image: np.ndarray, **options) -> tuple[float, float]:
    """(the PSNR that is told, that of what the latents decode to)"""
    found = engine(Invert(**options), image=image)
    again = engine(Decode(), latents=found.array).images
    size = engine.recipe.data.size
    assert found.array.shape == (1, engine.abilities["decode"].latent)
    assert image.shape == (size, size, 3)
    bytes_ = (torch.from_numpy(each).permute(0, 3, 1, 2) for each in (again, image[None]))
    return found.psnr[0], psnr(*bytes_).item()


@pytest.mark.parametrize("kind", ["dcgan", "r3gan", "flow", "conv-vae"])
def test_how_near_latents_come_is_told_and_what_they_decode_to(engines, kind):
    engine = engines[kind]
    options = {"starts": 2, "iterations": 4} if kind in ("dcgan", "r3gan") else {}
    image = picture(16, 16, 3)
    told, found = told_and_found(engine, image, **options)
    assert told == pytest.approx(found, abs=0.01)
    again = engine(Invert(**options), image=image)
    assert np.array_equal(again.array, engine(Invert(**options), image=image).array)


def test_an_encoder_gives_what_encode_gives(engines):
    engine, image = engines["conv-vae"], picture(20, 30, 3)
    found = engine(Invert(), image=image).array
    assert np.array_equal(found, engine(Encode(), image=image).array)
    restored = engine(Reconstruct(), image=image).images
    assert np.array_equal(engine(Decode(), latents=found).images, restored)
    for option in ("starts", "iterations"):
        with pytest.raises(InputError, match=f"{option}=3: this conv-vae takes no {option}"):
            engine(Invert(**{option: 3}), image=image)


def test_a_flows_noise_is_found_again_by_as_many_steps(engines):
    engine = engines["flow"]
    image = sample(engine, 1, seed=3, steps=6)[0]
    plan = engine.plan(Invert(steps=6), image=image)
    assert [plan.lap(row)[1] for row in range(plan.count)] == [1, 2, 3, 4, 5, 6]
    found = engine(Invert(steps=6), image=image)
    assert found.psnr[0] > 40
    assert np.corrcoef(found.array[0], latents(torch.tensor([3]), found.array.size)[0])[0, 1] > 0.9


def test_a_search_comes_nearer_with_more_iterations_and_starts(engines):
    engine = engines["dcgan"]
    image = sample(engine, 1, seed=1000)[0]
    few, many = (engine(Invert(starts=4, iterations=n), image=image).psnr[0] for n in (1, 60))
    assert many > few + 3
    one = engine(Invert(starts=1, iterations=20), image=image).psnr[0]
    assert engine(Invert(starts=4, iterations=20), image=image).psnr[0] >= one - 0.05


def test_a_search_draws_no_more_of_large_images_at_once_than_a_pass_has():
    recipe = tiny("dcgan", "data.size=256", "model.width=4")
    engine = Engine(recipe, {name: net.eval() for name, net in recipe.networks().items()})
    drawn: list[int] = []
    generator = next(iter(engine.networks.values()))
    generator.register_forward_pre_hook(lambda _, rows: drawn.append(len(rows[0])))
    engine(Invert(starts=8, iterations=1), image=picture(256, 256, 3))
    assert max(drawn) <= rows_at_once(256**2, engine.device) < 8


def test_each_row_of_a_search_is_alone_and_stays_where_latents_of_seeds_are():
    torch.manual_seed(0)
    ability = linear()

    def draw(points: torch.Tensor) -> torch.Tensor:
        return ability.compute({"latent": points})["image"].repeat(1, 1, 4, 4)

    target = draw(torch.tensor([[1.0, -1.0, 0.0, 2.0]])).expand(3, -1, -1, -1)
    start = torch.randn(3, 4)
    together, _ = search(draw, target, start, 200)
    alone = torch.cat([search(draw, target[:1], start[i : i + 1], 200)[0] for i in range(3)])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(draw(together), target, atol=0.02, rtol=0)
    far, _ = search(draw, target + 100, start, 50)
    assert far.norm(dim=1).max() <= math.sqrt(4) + 2 + 1e-4
    found, moments = start, None
    for begun in range(0, 50, 20):
        found, moments = search(draw, target + 100, found, 50, moments, begun, 20)
    assert torch.equal(found, far)


@pytest.mark.parametrize("kind", ["dcgan", "r3gan", "dcgan-by-class"])
def test_others_have_their_turn_while_a_search_goes_on(engines, kind):
    engine = engines[kind]
    asked, pictures = Invert(starts=3, iterations=50), [picture(16, 16, 3, seed=n) for n in (1, 2)]
    plans = [engine.plan(asked, image=image) for image in pictures]
    laps = [plans[0].lap(row) for row in range(plans[0].count)]
    assert [stop for _, stop in laps] == np.repeat([3, 6, 9, 12, 15], 3).tolist()
    assert len({key for key, _ in laps}) == 5  # each needs what the one before has found
    for plan, image in zip(engine.run("invert", plans), pictures, strict=True):
        assert np.array_equal(plan.result().array, engine(asked, image=image).array)


@pytest.mark.parametrize("kind", ["dcgan", "r3gan"])
def test_a_search_finds_the_same_in_passes_of_any_size(engines, kind):
    engine, asked, image = engines[kind], Invert(starts=5, iterations=25), picture(16, 16, 3)
    expected = engine(asked, image=image).array
    for most in (1, 2, 4):
        plan, start = engine.plan(asked, image=image), 0
        while start < plan.count:
            stop = min(start + most, plan.lap(start)[1])
            engine.compute("invert", [(plan, start, stop)])
            start = stop
        assert np.array_equal(plan.result().array, expected)


def test_the_best_of_several_starts_is_the_one_that_counts():
    ability = replace(linear(), takes=("image", "latent", "moments", "begun", "iterations"))
    plan = Inverted(ability, np.full((2, 2, 1), 200, np.uint8), starts=3, iterations=1)
    images = (
        torch.full((3, 1, 2, 2), 200 / 127.5 - 1)
        + torch.tensor([0.3, 0.1, -0.2])[:, None, None, None]
    )
    points = torch.arange(12.0).view(3, 4)
    plan.put(0, {"image": images, "latent": points, "moments": torch.zeros(3, 2, 4)})
    found = plan.result()
    assert found.array.tolist() == points[1:2].tolist()
    assert found.psnr[0] == pytest.approx(20 * math.log10(255 / 12.75), abs=0.2)
