"""Augmentation yields symmetries of the image, all of them, equally often, by key."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from genimg import recipes
from genimg.data import augment as augmentation
from genimg.errors import InputError
from genimg.rng import fold


def augment(images: torch.Tensor, keys: torch.Tensor, kind) -> torch.Tensor:
    """What becomes of images alone; of what is beside them see test_columns."""
    return augmentation.augment({"image": images}, keys, kind)["image"]


SQUARE = torch.arange(3 * 4 * 4, dtype=torch.uint8).reshape(1, 3, 4, 4)


def symmetries(image: torch.Tensor) -> torch.Tensor:
    """The eight symmetries of images [N, C, S, S] by rotation and mirroring: [8, N, C, S, S]."""
    turned = [torch.rot90(image, turns, (-2, -1)) for turns in range(4)]
    return torch.stack(turned + [image.flip(-1) for image in turned])


def which(augmented: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """For images [N, ...], the number of the one equal candidate [K, N or 1, ...] of each."""
    equal = (augmented == candidates).flatten(2).all(dim=2)  # [K, N]
    assert equal.sum(dim=0).eq(1).all(), "every image is exactly one of the candidates"
    return equal.int().argmax(dim=0)


def test_all_eight_symmetries_are_reached_equally() -> None:
    keys = fold(0, torch.arange(4000))
    found = which(augment(SQUARE.expand(4000, -1, -1, -1), keys, "dihedral"), symmetries(SQUARE))
    counts = torch.bincount(found, minlength=8)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_half_of_the_images_are_mirrored_left_to_right_only() -> None:
    keys = fold(0, torch.arange(4000))
    image = SQUARE[..., :3]  # flips need no square
    flipped = augment(image.expand(4000, -1, -1, -1), keys, "flip")
    found = which(flipped, torch.stack([image, image.flip(-1)]))
    assert found.float().mean().item() == pytest.approx(0.5, abs=0.03)


@given(st.integers(0, 2**63 - 1), st.integers(2, 9), st.sampled_from([1, 3]), st.booleans())
def test_the_content_is_a_symmetry_of_the_input(
    seed: int, size: int, channels: int, in_bytes: bool
) -> None:
    images = torch.rand(5, channels, size, size, generator=torch.Generator().manual_seed(seed))
    if in_bytes:
        images = (images * 255).byte()
    before = images.clone()
    turned = augment(images, fold(seed, torch.arange(5)), "dihedral")
    assert turned.dtype == images.dtype
    assert (turned == symmetries(images)).flatten(2).all(dim=2).any(dim=0).all()
    assert torch.equal(images, before)


@pytest.mark.parametrize("kind", ["none", "flip", "dihedral"])
def test_an_image_is_turned_alike_in_every_batch(kind) -> None:
    images = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    keys = fold(1, torch.arange(20))
    together = augment(images, keys, kind)
    order = torch.tensor([7, 3, 19, 0])
    assert torch.equal(augment(images[order], keys[order], kind), together[order])


def test_none_leaves_images_as_they_are() -> None:
    assert torch.equal(augment(SQUARE, torch.tensor([5]), "none"), SQUARE)


def test_dihedral_needs_squares() -> None:
    with pytest.raises(InputError, match=r"3x4 are not square; use data\.augment=flip"):
        augment(SQUARE[..., :3], torch.tensor([0]), "dihedral")


def shifted(images: torch.Tensor, keys: torch.Tensor, most: int) -> torch.Tensor:
    return augmentation.augment({"image": images}, keys, "none", most)["image"]


def moves(images: torch.Tensor, most: int) -> torch.Tensor:
    """All shifts of images [N, C, S, S], mirrored at the borders: [(2 most + 1)^2, N, C, S, S]."""
    padded = np.pad(images.numpy(), [(0, 0), (0, 0), (most, most), (most, most)], mode="reflect")
    size, places = images.shape[-1], range(2 * most + 1)
    return torch.from_numpy(
        np.stack([padded[..., y : y + size, x : x + size] for y in places for x in places])
    )


@pytest.mark.parametrize("most", [1, 2, 4])
def test_images_are_shifted_to_all_places_equally_and_mirrored_at_their_borders(most):
    image = torch.randint(0, 256, (1, 3, 6, 6), generator=torch.Generator().manual_seed(0))
    image = image.byte()
    keys = fold(0, torch.arange(4000))
    made = shifted(image.expand(4000, -1, -1, -1), keys, most)
    counts = torch.bincount(which(made, moves(image, most)), minlength=(2 * most + 1) ** 2)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_an_image_is_shifted_alike_in_every_batch():
    images = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    keys = fold(1, torch.arange(20))
    order = torch.tensor([7, 3, 19, 0])
    together = shifted(images, keys, 3)
    assert torch.equal(shifted(images[order], keys[order], 3), together[order])


def test_what_is_beside_an_image_is_shifted_with_it():
    image = torch.randint(0, 255, (30, 1, 9, 9), generator=torch.Generator().manual_seed(0)).byte()
    boxes = torch.tensor([[2.0, 3, 3, 6, 6]]).expand(30, 1, 5)
    stored = {"image": image, "mask": image, "label": torch.arange(30), "boxes": boxes}
    keys = fold(5, torch.arange(30))
    made = augmentation.augment(stored, keys, "none", 2)
    assert torch.equal(made["mask"], made["image"])
    assert torch.equal(made["label"], stored["label"])
    for before, after, (_, x0, y0, x1, y1) in zip(
        image, made["image"], made["boxes"][:, 0].int().tolist(), strict=True
    ):
        assert torch.equal(after[:, y0:y1, x0:x1], before[:, 3:6, 3:6])


def test_shifts_out_of_sight_are_refused():
    with pytest.raises(InputError, match=r"translate=16: shifts images of 16 pixels"):
        recipes.named("classifier").override(["data.size=16", "data.translate=16"])
