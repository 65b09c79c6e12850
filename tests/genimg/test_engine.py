"""Engines of small trained checkpoints: same bytes in any batch, what they do, what they refuse."""

import copy
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_calls import picture, sample
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_recipes import OTHERS, QUICK

from genimg import checkpoint, recipes
from genimg.engine import Engine, Stopped
from genimg.errors import InputError
from genimg.inference import latents
from genimg.operations import OPERATIONS, Kind
from genimg.operations.drawing import Decode, Interpolate, Sample
from genimg.operations.reading import Classify, Encode, Reconstruct
from genimg.operations.restoring import Denoise
from genimg.pixels import to_bytes_range
from genimg.recipes import RECIPES
from genimg.training.method import load_states
from genimg.ways import spherical

CPU = torch.device("cpu")
KNOWN = {"mlp-vae": "iwae", "gray": "ffdnet"}  # kinds that are called otherwise than their recipes
MADE = 110  # images that batches have
APART = 3  # of which one in three is made alone


def encode(engine: Engine, images: np.ndarray) -> np.ndarray:
    return engine(Encode(), image=list(images)).array


def decode(engine: Engine, latents: np.ndarray) -> np.ndarray:
    return engine(Decode(), latents=latents).images


def asked(engine: Engine, name: str):
    """An operation with its defaults, on some input."""
    width = engine.abilities[name].latent if name in engine.abilities else 8
    given = {
        Kind.PICTURE: lambda: picture(9, 9, 3),
        Kind.MASK: lambda: picture(9, 9, 1) // 128 * 255,
        Kind.LATENTS: lambda: np.zeros((1, width), np.float32),
        Kind.FRAMES: lambda: picture(9, 9, 3)[None],
    }
    takes, optional = OPERATIONS[name].takes, OPERATIONS[name].optional - {"mask"}
    optional -= {"image"} if Kind.FRAMES in takes.values() else set()
    inputs = {key: given[kind]() for key, kind in takes.items() if key not in optional}
    of = {"vary": {"of": 3}, "traverse": {"dims": "0,7"}}.get(name, {})
    if name in engine.abilities and "iterations" in engine.abilities[name].conditions:
        of = {"starts": 2, "iterations": 2}
    return engine(OPERATIONS[name](**of), **inputs)


def pictures(engine: Engine, count: int) -> np.ndarray:
    data = engine.recipe.data
    return np.stack([picture(data.size, data.size, data.channels, seed=i) for i in range(count)])


def able(engines: Mapping[str, Engine], capability: str) -> list[Engine]:
    """Those that can do something; others are not even trained."""
    recipe_of = {kind: KNOWN.get(kind, kind.removesuffix("-by-class")) for kind in engines}
    found = [
        engines[kind] for kind, name in recipe_of.items() if capability in RECIPES[name]().can()
    ]
    assert found
    return found


@pytest.mark.parametrize(
    "names", [QUICK, pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["quick", "others"]
)
def test_every_engine_does_what_it_declares_and_refuses_the_rest(engines, names):
    for engine in (engines[name] for name in names):
        assert tuple(engine.abilities) == engine.recipe.can()
        for name in OPERATIONS:
            if name in engine.abilities:
                asked(engine, name)
            else:
                kind = engine.recipe.recipe
                with pytest.raises(InputError, match=f"{kind} models cannot {name}; they can"):
                    asked(engine, name)


def networks_of(folder: Path) -> dict[str, torch.nn.Module]:
    """As they are in a checkpoint, in evaluation mode."""
    networks = recipes.from_json((folder / checkpoint.RECIPE).read_text()).networks()
    load_states(networks, checkpoint.read_tensors(folder, checkpoint.WEIGHTS))
    for network in networks.values():
        network.eval().requires_grad_(False)
    return networks


def test_an_engine_gives_what_the_networks_of_its_checkpoint_give(engines, folders):
    assert not any(
        network.training for name in QUICK for network in engines[name].networks.values()
    )
    expected = networks_of(folders["dcgan"])["generator"](latents(torch.arange(5, 9), 8))
    levels = to_bytes_range(expected).permute(0, 2, 3, 1).numpy().astype(int)
    for precision, most, mean in (("float32", 1, 0.01), ("bfloat16", 12, 1.0)):
        engine = Engine.load(folders["dcgan"], CPU, precision)
        assert engine.precision == precision
        difference = np.abs(sample(engine, 4, seed=5) - levels)
        assert difference.max() <= most
        assert difference.mean() <= mean


def test_an_altered_or_foreign_folder_is_refused(folders, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(folders["dcgan"], folder)
    Engine.load(folder, CPU)
    weights = folder / checkpoint.WEIGHTS
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(InputError, match=r"weights\.safetensors: altered since it was written"):
        Engine.load(folder, CPU)
    with pytest.raises(InputError, match="not a genimg checkpoint"):
        Engine.load(tmp_path, CPU)


@pytest.fixture(scope="module")
def one_by_one(engines) -> list[tuple[Engine, np.ndarray]]:
    """Engines that sample, one of each kind, with images of seeds 0 to 109, each made alone.

    Alike are those whose layers are of the same types.
    """
    kinds = {
        frozenset(
            type(layer) for network in engine.networks.values() for layer in network.modules()
        )
        | {bool(engine.abilities["sample"].classes)}: engine
        for engine in reversed(able(engines, "sample"))
    }
    return [
        (engine, np.concatenate([sample(engine, 1, seed=seed) for seed in range(0, MADE, APART)]))
        for engine in reversed(kinds.values())
    ]


def as_alone(images: np.ndarray, seed: int, alone: np.ndarray) -> bool:
    """Whether images of seeds from `seed` on have the bytes of those that were made alone."""
    images = images[-seed % APART : max(MADE - seed, 0) : APART]
    return np.array_equal(images, alone[-(-seed // APART) :][: len(images)])


@example(n=64, seed=3)
@example(n=65, seed=0)
@settings(max_examples=4)
@given(n=st.integers(1, 70), seed=st.integers(0, MADE - 70))
def test_an_image_has_the_same_bytes_in_whatever_batch_it_is_made(one_by_one, n, seed):
    for engine, expected in one_by_one:
        images = sample(engine, n, seed=seed)
        assert images.dtype == np.uint8
        assert as_alone(images, seed, expected)


@settings(max_examples=5)
@given(
    asked_for=st.lists(
        st.tuples(st.integers(0, MADE - 10), st.integers(1, 9)), min_size=1, max_size=9
    ),
    factor=st.sampled_from([1.0, 0.7]),
)
def test_plans_share_a_pass_each_with_its_own_truncation(one_by_one, asked_for, factor):
    for engine, expected in one_by_one:
        plans = [
            engine.plan(Sample(n=n, seed=seed, truncation=factor if i % 2 else 1.0))
            for i, (seed, n) in enumerate(asked_for)
        ]
        engine.compute("sample", [(plan, 0, plan.count) for plan in plans])
        for i, (plan, (seed, n)) in enumerate(zip(plans, asked_for, strict=True)):
            made = plan.result().images
            if i % 2:
                assert np.array_equal(made, sample(engine, n, seed, truncation=factor))
            else:
                assert as_alone(made, seed, expected)


def test_passes_of_sizes_that_are_tried_give_the_same_bytes(one_by_one, monkeypatch):
    monkeypatch.setattr("genimg.passes.TRIES", 1)
    monkeypatch.setattr("genimg.passes.TRIED_OF", 0)
    for engine, expected in one_by_one:
        fresh = Engine(engine.recipe, engine.networks, engine.precision)
        with watched(fresh, monkeypatch) as passes:
            assert as_alone(sample(fresh, 150), 0, expected)
        assert passes[:3] == [64, 32, 16]


def test_a_pass_that_is_too_large_for_memory_is_made_smaller(one_by_one, monkeypatch):
    monkeypatch.setattr("genimg.passes.TRIES", 1)
    monkeypatch.setattr("genimg.passes.TRIED_OF", 0)
    monkeypatch.setattr("genimg.passes.FASTER", 0)  # none is fast enough, so that all are tried
    engine, expected = one_by_one[0]
    fresh = Engine(engine.recipe, engine.networks, engine.precision)
    with watched(fresh, monkeypatch, fails=lambda rows: rows > 64) as passes:
        assert as_alone(sample(fresh, 300), 0, expected)
    assert passes == [64, 32, 16, 188, 64, 64, 60]
    fresh = Engine(engine.recipe, engine.networks, engine.precision)
    with (
        watched(fresh, monkeypatch, fails=lambda rows: rows == 38) as passes,
        pytest.raises(RuntimeError, match="out of memory"),
    ):
        sample(fresh, 150)
    assert passes == [64, 32, 16, 38]


def test_small_passes_that_disagree_are_filled_up(one_by_one, monkeypatch):
    monkeypatch.setattr("genimg.passes.TRIES", 1)
    monkeypatch.setattr("genimg.passes.TRIED_OF", 0)
    engine = next(engine for engine, _ in one_by_one if "generator" in engine.networks)
    generator = copy.deepcopy(engine.networks["generator"])
    forward, odd = generator.forward, 64
    generator.forward = lambda *rows: forward(*rows) + 0.1 * (len(rows[0]) < odd)
    fresh = Engine(engine.recipe, {"generator": generator}, engine.precision)
    assert np.array_equal(sample(fresh, 150), sample(engine, 150))


@contextmanager
def watched(
    engine: Engine, monkeypatch, fails: Callable[[int], bool] = lambda rows: False
) -> Iterator[list[int]]:
    """The rows of each pass; some fail."""
    passes: list[int] = []
    compute = engine.compute

    def watching(name, parts, size=None):
        passes.append(sum(stop - start for _, start, stop in parts))
        if fails(passes[-1]):
            raise RuntimeError("out of memory")
        compute(name, parts, size)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "compute", watching)
        yield passes


def test_seeds_differ_and_truncation_shrinks_the_variety(engines):
    for engine in able(engines, "sample"):
        data = engine.recipe.data
        images = sample(engine, 32)
        assert images.shape == (32, data.size, data.size, data.channels)
        assert len({image.tobytes() for image in images}) == 32
        if engine.recipe.recipe == "vq-vae":  # whose codes are chosen: they jump
            continue
        one = {"label": classes[0]} if (classes := engine.abilities["sample"].classes) else {}
        near, far = (
            sample(engine, 32, truncation=factor, **one).astype(float).std(axis=0).mean()
            for factor in (0.5, 1.0)
        )
        assert near < far
        assert len({image.tobytes() for image in sample(engine, 4, truncation=0.0, **one)}) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n=0: input should be greater than or equal to 1"),
        ({"seed": -2}, "seed=-2: input should be greater than or equal to -1"),
        ({"seed": 2**53}, "seed=9007199254740992: input should be less than"),
        ({"label": "cat"}, "label='cat': this dcgan takes no label"),
        ({"text": "a cat"}, "text='a cat': this dcgan takes no text"),
        ({"steps": 8}, "steps=8: this dcgan takes no steps"),
        ({"guidance": 2.0}, "guidance=2.0: this dcgan takes no guidance"),
        ({"steps": 51}, "steps=51: input should be less than or equal to 50"),
        ({"truncation": float("nan")}, "truncation=nan: input should be a finite number"),
        ({"truncation": float("inf")}, "truncation=inf: input should be a finite number"),
        ({"truncation": -1.0}, "truncation=-1.0: input should be greater than or equal to 0"),
    ],
)
def test_what_cannot_be_sampled_is_refused(engines, options, message):
    with pytest.raises(InputError) as caught:
        engines["dcgan"](Sample.validated(options))
    assert str(caught.value).startswith(message)


def test_the_last_seed_that_there_is_can_be_sampled_and_random_ones_are_told(engines):
    assert sample(engines["dcgan"], 1, seed=2**53 - 1).shape == (1, 16, 16, 3)
    first, second = (engines["dcgan"](Sample(n=2)) for _ in range(2))
    assert first.seeds != second.seeds
    assert first.seeds[1] == first.seeds[0] + 1
    assert np.array_equal(first.images, sample(engines["dcgan"], 2, seed=first.seeds[0]))


def test_interpolation_goes_from_one_seed_to_the_next_on_a_great_circle(engines):
    for engine in able(engines, "interpolate"):
        made = engine(Interpolate(seed=3, frames=5))
        ends = sample(engine, 2, seed=3)
        assert made.images.shape[0] == 5
        assert np.abs(made.images[[0, -1]].astype(int) - ends).max() <= 1
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    half = spherical(one, other, torch.tensor([[0.5]]))
    torch.testing.assert_close(half, torch.tensor([[0.5**0.5, 2 * 0.5**0.5]]))
    near = spherical(one, one, torch.linspace(0, 1, 3)[:, None])
    torch.testing.assert_close(near, one.expand(3, 2))


def test_work_ends_between_passes_where_nobody_waits(engines):
    asked_again = iter([True, True, False])
    with pytest.raises(Stopped):
        engines["dcgan"](Sample(n=300, seed=0), alive=lambda: next(asked_again))


def test_encoding_and_decoding_go_there_and_back_image_by_image(engines):
    engine = engines["conv-vae"]
    images = pictures(engine, 70)
    codes = encode(engine, images)
    assert codes.dtype == np.float32
    assert codes.shape == (70, 8)
    assert decode(engine, codes).shape == images.shape
    assert decode(engine, codes).dtype == np.uint8
    for rows in (slice(7, 8), slice(7, 9), slice(0, 5), slice(3, 68)):
        assert np.array_equal(encode(engine, images[rows]), codes[rows])
        assert np.array_equal(decode(engine, codes[rows]), decode(engine, codes)[rows])
    sampled = decode(engine, latents(torch.arange(3), 8).numpy())
    assert np.array_equal(sampled, sample(engine, 3))


def test_images_of_any_size_and_mode_are_brought_to_the_models_own(engines):
    vae = engines["conv-vae"]
    image = picture(16, 16, 3)
    wide = np.concatenate(
        [np.zeros((16, 7, 3), np.uint8), image, np.zeros((16, 7, 3), np.uint8)], 1
    )
    veiled = np.concatenate([image, np.full((16, 16, 1), 9, np.uint8)], 2)
    expected = encode(vae, [image])
    for other in (wide, veiled, image.astype(np.uint16) * 257):
        assert np.array_equal(encode(vae, [other]), expected)
    assert encode(vae, [picture(40, 90, 1)]).shape == (1, 8)
    for bad in (image[0], np.zeros((4, 4, 5), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(InputError, match=r"expected \[H, W, 1 to 4\]"):
            vae(Encode(), image=bad)
    for latent_shape in ((2, 7), (8,), (0, 8)):
        with pytest.raises(InputError, match=r"this model takes \[N, 8\]"):
            decode(vae, np.zeros(latent_shape, np.float32))


def test_a_reconstruction_is_what_the_code_decodes_to(engines):
    engine = engines["conv-vae"]
    image = picture(16, 16, 3)
    made = engine(Reconstruct(), image=image).images
    assert np.array_equal(made, decode(engine, encode(engine, [image])))


def test_the_likeliest_classes_come_first_with_their_probabilities(engines):
    engine = engines["classifier"]
    images = pictures(engine, 5)
    every = engine(Classify(top=100), image=list(images)).values
    few = engine(Classify(top=2), image=images[3]).values
    for row in every:
        probabilities = [each["probability"] for each in row]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert {each["label"] for each in row} == set(engine.recipe.model.classes)
    assert few == [every[3][:2]]


@pytest.mark.parametrize(
    ("kind", "operation"), [("ffdnet", Denoise(sigma=20)), ("classifier", Classify())]
)
def test_images_that_share_passes_come_out_in_order_and_as_alone(engines, kind, operation):
    engine = engines[kind]
    shapes = [(9, 9), (40, 30), (9, 9), (9, 9), (600, 20), (9, 9), (13, 9)]
    given_images = [picture(*shape, 3, seed=n) for n, shape in enumerate(shapes)]
    drawn: list[int] = []

    def plans():
        for number, image in enumerate(given_images):
            drawn.append(number)
            yield engine.plan(operation, image=image)

    results = []
    for plan in engine.run(operation.name, plans()):
        results.append(plan.result())
        assert len(drawn) <= len(results) + engine.inference.most
    assert len(results) == len(given_images)
    for image, made in zip(given_images, results, strict=True):
        alone = engine(operation, image=image)
        if isinstance(operation, Denoise):
            assert np.array_equal(made.only(), alone.only())
        else:
            assert made.values == alone.values
    assert list(engine.run(operation.name, iter(()))) == []
