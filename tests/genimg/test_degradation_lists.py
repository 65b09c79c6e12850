"""What all degradations promise, alone and in a recipe's list."""

import pytest
import torch
from pydantic import Field

from genimg.degradations import KINDS, Damage, Degradation, degrade
from genimg.degradations.blur import Blur
from genimg.degradations.holes import Holes
from genimg.degradations.jpeg import JPEG
from genimg.degradations.light import Gray, Light
from genimg.degradations.noise import Noise
from genimg.errors import InputError
from genimg.rng import fold
from genimg.section import Section

KEYS = fold(11, torch.arange(8))
ALL: list[Damage] = [
    *(kind() for kind in KINDS.values()),
    Noise(shot=20, quantise=True),
    Blur(of=("gaussian", "motion"), ratio=(0.4, 1)),
    JPEG(shifted=0.5, subsample=False),
    JPEG(shifted=0.5, exact=True),
]
KEEPING = [each for each in ALL if each.kind != "shrink"]


def images(count: int = 8, channels: int = 3, height: int = 26, width: int = 33) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, 5, 6, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def name(degradation: Damage) -> str:
    changed = degradation.model_dump(exclude_defaults=True)
    return "-".join([degradation.kind, *changed])


@pytest.mark.parametrize("degradation", ALL, ids=name)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_row_becomes_the_same_in_any_batch_and_again(degradation: Damage, channels: int) -> None:
    given = images(channels=channels)
    before = given.clone()
    whole = degradation.damage(given, KEYS)
    assert torch.equal(given, before)
    again = degradation.damage(given, KEYS)
    assert torch.equal(again.images, whole.images)
    order = torch.tensor([5, 0, 3])
    some = degradation.damage(given[order], KEYS[order])
    torch.testing.assert_close(some.images, whole.images[order], rtol=0, atol=1e-6)
    for row in (0, 5):
        alone = degradation.damage(given[row : row + 1], KEYS[row : row + 1])
        torch.testing.assert_close(alone.images[0], whole.images[row], rtol=0, atol=1e-6)
        for tell, values in alone.tells.items():
            assert torch.equal(values[0], whole.tells[tell][row])


@pytest.mark.parametrize("degradation", ALL, ids=name)
def test_shapes_and_types(degradation: Damage) -> None:
    scale = getattr(degradation, "scale", 1)
    for channels, height, width in [(1, 1, 1), (3, 1, 1), (3, 1, 12), (1, 11, 2), (3, 16, 24)]:
        damaged = degradation.damage(images(2, channels, height, width), KEYS[:2])
        assert damaged.images.shape == (2, channels, -(-height // scale), -(-width // scale))
        assert damaged.images.dtype == torch.float32
        assert damaged.images.isfinite().all()
        for tell, values in damaged.tells.items():
            shape = {"mask": (2, 1, height, width)}.get(tell, (2,))
            assert values.shape == shape
            assert values.dtype == torch.float32


@pytest.mark.parametrize("degradation", KEEPING, ids=name)
def test_those_passed_over_keep_their_pixels_exactly(degradation: Damage) -> None:
    given, keys = images(60), fold(2, torch.arange(60))
    always = degradation.damage(given, keys)
    never = degradation.model_copy(update={"probability": 0.0}).damage(given, keys)
    assert torch.equal(never.images, given)
    neutral = {"sigma": 0, "quality": 100, "mask": 0}
    assert never.tells.keys() == always.tells.keys()
    for tell, values in never.tells.items():
        assert values.eq(neutral[tell]).all()
    half = degradation.model_copy(update={"probability": 0.5}).damage(given, keys)
    kept = (half.images == given).flatten(1).all(dim=1)
    assert 15 < kept.sum() < 45
    assert torch.equal(half.images[~kept], always.images[~kept])
    for tell, values in half.tells.items():
        assert torch.equal(values[~kept], always.tells[tell][~kept])


def test_no_degradations_change_nothing() -> None:
    damaged = degrade([], images(), KEYS)
    assert torch.equal(damaged.images, images())
    assert damaged.tells == {}


def test_they_follow_one_another_each_with_its_own_luck() -> None:
    noise = Noise(low=10, high=50)
    damaged = degrade([noise, Gray(), noise], images(), KEYS)
    first = noise.damage(images(), KEYS)
    second = noise.damage(Gray().damage(first.images, KEYS).images, fold(KEYS, 2))
    assert torch.equal(damaged.images, second.images)
    assert torch.equal(damaged.tells["sigma"], second.tells["sigma"])
    assert not torch.equal(first.tells["sigma"], second.tells["sigma"])


def test_the_last_that_befell_an_image_is_told_and_all_holes() -> None:
    given, keys = images(60), fold(3, torch.arange(60))
    holes = Holes(low=0.2, high=0.3, probability=0.5)
    rare = Noise(low=40, high=50, probability=0.5)
    tells = degrade([Noise(low=5, high=10), holes, rare, holes], given, keys).tells
    sigma = tells["sigma"]
    last = sigma >= 40
    assert 15 < last.sum() < 45
    assert sigma[~last].min() >= 5
    assert sigma[~last].max() <= 10
    masks = [holes.damage(given, fold(keys, place)).tells["mask"] for place in (1, 3)]
    assert torch.equal(tells["mask"], torch.maximum(*masks))


def test_a_mask_shrinks_with_its_image() -> None:
    holes = Holes(of=("boxes",))
    tells = degrade([holes, KINDS["shrink"](scale=2)], images(height=26, width=34), KEYS).tells
    mask = holes.damage(images(height=26, width=34), KEYS).tells["mask"]
    assert tells["mask"].shape == (8, 1, 13, 17)
    assert torch.equal(tells["mask"], torch.nn.functional.max_pool2d(mask, 2))


class Training(Section):
    degradations: tuple[Degradation, ...] = Field((Noise(high=50),), min_length=1)


def test_a_list_is_written_in_yaml() -> None:
    given = (
        "degradations=[{kind: blur, sigma: [0.2, 3]}, {kind: noise, low: 0, high: 50}, "
        "{kind: jpeg, low: 10, high: 95, probability: 0.5}, {kind: light}]"
    )
    section = Training().override([given])
    assert section.degradations == (
        Blur(sigma=(0.2, 3)), Noise(low=0, high=50), JPEG(low=10, high=95, probability=0.5),
        Light(),
    )  # fmt: skip
    assert Training.model_validate_json(section.model_dump_json()) == section
    assert section.override([]) == section


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_named_and_has_defaults_of_use(kind: str) -> None:
    (made,) = Training().override([f"degradations=[{{kind: {kind}}}]"]).degradations
    assert type(made) is KINDS[kind]
    assert not torch.equal(made.damage(images(), KEYS).images, images())
    for field in KINDS[kind].model_fields.values():
        assert field.description


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("[{kind: blurr}]", r"degradations\.0: kind='blurr': did you mean 'blur'\?"),
        ("[{sigma: 3}]", r"degradations\.0: kind is missing; known: blur, gray, holes, jpeg"),
        (
            "[{kind: gray}, {kind: blur, sgima: 3}]",
            r"degradations\.1: unknown key 'sgima'; did you",
        ),
        ("[{kind: blur, sigma: [3, 1]}]", r"sigma=\[3, 1\]: .* smallest value first: \[1, 3\]"),
        ("[{kind: blur, sigma: 0}]", r"sigma\.0=0: input should be greater than 0"),
        ("[{kind: noise, low: 60}]", r"low=60: must be at most high=55"),
        ("[{kind: jpeg, low: 0}]", r"low=0: input should be greater than or equal to 1"),
        ("[{kind: holes, high: 2}]", r"high=2: input should be less than or equal to 1"),
        ("[{kind: holes, of: []}]", "of="),
        ("[{kind: holes, of: [circles]}]", r"of\.0='circles'"),
        ("[{kind: gray, probability: 1.1}]", r"probability=1\.1"),
        ("[3]", "degradations"),
        ("noise", r"give a list, as \[noise\]"),
        ("[]", "degradations"),
    ],
)
def test_what_is_wrong_is_named(given: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Training().override([f"degradations={given}"])
