"""Holes have the share that was drawn, the shape they are named for, and are told of."""

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from genimg.degradations.holes import Holes, box_distances, stroke_distances
from genimg.rng import fold

KEYS = fold(7, torch.arange(120))
IMAGES = torch.rand(120, 3, 48, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("kind", ["pixels", "boxes", "strokes"])
def test_pixels_are_missing_where_it_is_told(kind) -> None:
    damaged = Holes(of=(kind,), fill=-0.5).damage(IMAGES, KEYS)
    mask = damaged.tells["mask"]
    assert mask.shape == (120, 1, 48, 64)
    assert set(mask.unique().tolist()) == {0, 1}
    missing = mask.bool().expand_as(IMAGES)
    assert damaged.images[missing].eq(-0.5).all()
    assert torch.equal(damaged.images[~missing], IMAGES[~missing])


@pytest.mark.parametrize("kind", ["pixels", "boxes", "strokes"])
def test_the_share_is_uniform_in_its_range(kind) -> None:
    share = Holes(of=(kind,), low=0.2, high=0.6).missing(KEYS, 64, 64).float().mean(dim=(1, 2, 3))
    slack = 0.03 if kind == "pixels" else 0.01  # they are drawn one by one
    assert share.min() > 0.2 - 0.03
    assert share.max() < 0.6 + slack
    assert stats.kstest(share.numpy(), stats.uniform(0.19, 0.41).cdf).pvalue > 1e-3


@pytest.mark.parametrize("kind", ["pixels", "boxes", "strokes"])
def test_none_and_all(kind) -> None:
    none = Holes(of=(kind,), low=0, high=0).missing(KEYS, 20, 30)
    assert not none.any()
    everything = Holes(of=(kind,), low=1, high=1).missing(KEYS, 20, 30)
    assert everything.all()


@pytest.mark.parametrize("kind", ["pixels", "boxes", "strokes"])
@pytest.mark.parametrize("sides", [(1, 1), (1, 40), (3, 2), (201, 7)])
def test_any_size(kind, sides) -> None:
    damaged = Holes(of=(kind,)).damage(torch.zeros(30, 1, *sides), KEYS[:30])
    assert damaged.tells["mask"].shape == (30, 1, *sides)


def test_single_pixels_are_independent_of_one_another() -> None:
    missing = Holes(of=("pixels",), low=0.5, high=0.5).missing(KEYS, 64, 64).float()[:, 0]
    for a, b in [
        (missing[:, 1:], missing[:, :-1]), (missing[..., 1:], missing[..., :-1]),
        (missing[1:], missing[:-1]),
    ]:  # fmt: skip
        assert abs(stats.pearsonr(a.flatten().numpy(), b.flatten().numpy()).statistic) < 0.01


def test_boxes_are_boxes() -> None:
    """Every hole is a union of a few rectangles: all corners of it are right angles of some."""
    missing = Holes(of=("boxes",), low=0.02, high=0.1).missing(KEYS, 64, 64)[:, 0].numpy()
    rectangles = 0
    for mask in missing:
        labels, count = ndimage.label(mask)
        assert count <= 6
        found = ndimage.find_objects(labels)
        rectangles += sum(mask[place].all() for place in found) == count
    assert rectangles > 60  # of 120: the others overlap


def test_strokes_are_thick_and_long() -> None:
    missing = Holes(of=("strokes",), low=0.2, high=0.4).missing(KEYS, 96, 96)[:, 0].numpy()
    for mask in missing:
        assert ndimage.label(mask, np.ones((3, 3)))[1] <= 3
    inside = [
        ndimage.binary_erosion(mask, np.ones((3, 3))).mean() / mask.mean() for mask in missing
    ]
    assert 0.1 < np.mean(inside) < 0.95


def test_distances_from_a_stroke_are_those_of_its_segments() -> None:
    """Twice as far from a line in twice as large a picture, and nothing is nearer than 0."""
    small, large = (stroke_distances(KEYS, side, side) for side in (30, 90))
    torch.testing.assert_close(large[:, 1::3, 1::3], 3 * small, rtol=1e-4, atol=1e-3)
    assert small.min() >= 0
    boxes = [box_distances(KEYS, side, side) for side in (30, 90)]
    torch.testing.assert_close(boxes[1][:, 1::3, 1::3], 3 * boxes[0], rtol=1e-4, atol=1e-3)


def test_all_kinds_occur() -> None:
    mixed = Holes().missing(KEYS, 32, 32)
    single = [Holes(of=(kind,)).missing(KEYS, 32, 32) for kind in ("pixels", "boxes", "strokes")]
    alike = torch.stack([(mixed == one).flatten(1).all(dim=1) for one in single])
    assert alike.sum(dim=0).eq(1).all()
    assert alike.sum(dim=1).min() > 20
