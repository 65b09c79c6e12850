"""Augmentations of what a discriminator sees, against images changed by hand, one by one."""

import pytest
import torch

from genimg import rng
from genimg.training.differentiable import AUGMENTATIONS, augmented, colour, cutout, translation

KEYS = rng.fold(7, torch.arange(40))
every_kind = pytest.mark.parametrize("kind", AUGMENTATIONS)


def images(count: int = 40, channels: int = 3, side: int = 16) -> torch.Tensor:
    made = torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(0))
    return made.clamp(-1, 1)


def test_shifted_images_are_those_cut_from_a_gray_frame():
    before, most = images(), 2
    made = translation(before, KEYS)
    shifts = (rng.integers(KEYS, 2 * most + 1, (2,)) - most).tolist()
    assert {each for pair in shifts for each in pair} == {-2, -1, 0, 1, 2}
    for image, one, (down, right) in zip(before, made, shifts, strict=True):
        framed = torch.zeros(3, 16 + 2 * most, 16 + 2 * most)
        framed[:, most:-most, most:-most] = image
        top, left = most - down, most - right
        assert torch.equal(one, framed[:, top : top + 16, left : left + 16])


def test_a_square_is_cut_out_of_each_image():
    before = images().abs() + 0.1
    made = cutout(before, KEYS)
    centres = rng.integers(KEYS, 17, (2,)).tolist()
    for image, one, (y, x) in zip(before, made, centres, strict=True):
        expected = image.clone()
        expected[:, max(y - 4, 0) : y + 4, max(x - 4, 0) : x + 4] = 0
        assert torch.equal(one, expected)


def test_colours_change_in_three_ways():
    before = images()
    draws = rng.uniform(KEYS, (3,)).tolist()
    for image, one, (b, s, c) in zip(before, colour(before, KEYS), draws, strict=True):
        image = image + b - 0.5
        gray = image.mean(dim=0)
        image = (image - gray) * 2 * s + gray
        torch.testing.assert_close(one, (image - image.mean()) * (c + 0.5) + image.mean())


@every_kind
def test_gradients_pass_through_twice(kind):
    before, change = images(2, side=8).double().requires_grad_(), AUGMENTATIONS[kind]
    assert torch.autograd.gradcheck(lambda x: change(x, KEYS[:2]), before)
    assert torch.autograd.gradgradcheck(lambda x: change(x, KEYS[:2]), before)


@every_kind
def test_an_image_is_changed_by_its_own_key_whatever_is_beside_it(kind):
    before = images()
    made = augmented(before, KEYS, (kind,))
    assert torch.equal(augmented(before[5:7], KEYS[5:7], (kind,)), made[5:7])
    assert not torch.equal(augmented(before, KEYS + 1, (kind,)), made)
    assert made.shape == before.shape


def test_each_kind_befalls_some_images_by_their_keys():
    before, keys = images(400), rng.fold(3, torch.arange(400))
    kinds = ("colour", "translation")
    changed = {kind: augmented(before, keys, (kind,)) for kind in kinds}
    often = torch.tensor(0.3)
    some = {kind: augmented(before, keys, (kind,), often) for kind in kinds}
    hit = {}
    for kind in kinds:
        hit[kind] = (some[kind] != before).flatten(1).any(dim=1)
        assert torch.equal(some[kind][hit[kind]], changed[kind][hit[kind]])
        assert 0.22 < hit[kind].float().mean() < 0.38
    both = (hit["colour"] & hit["translation"]).float().mean()
    assert 0.04 < both < 0.15  # each for itself
    assert torch.equal(augmented(before[7:9], keys[7:9], kinds, 0.3),
                       augmented(before, keys, kinds, often)[7:9])  # fmt: skip
    assert torch.equal(augmented(before, keys, kinds, 0.0), before)
    assert torch.equal(augmented(before, keys, kinds, torch.ones(())),
                       augmented(before, keys, kinds))  # fmt: skip


def test_nothing_befalls_images_unless_it_is_asked_for():
    before = images()
    assert augmented(before, KEYS, ()) is before
    both = augmented(before, KEYS, ("cutout", "colour"))
    assert torch.equal(both, augmented(before, KEYS, ("colour", "cutout")))
    gray = images(channels=1)
    assert augmented(gray, KEYS, tuple(AUGMENTATIONS)).shape == gray.shape
