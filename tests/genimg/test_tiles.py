"""Tiles give what the whole gives; images are divided and stacked by their pixels."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from genimg.budget import shares, stacks
from genimg.tiles import spans, tiled


@given(st.integers(1, 400), st.integers(1, 60), st.integers(0, 20))
def test_spans_decide_every_pixel_once_and_see_its_surroundings(length, core, margin):
    side = core + 2 * margin
    decided = []
    for span in spans(length, side, margin):
        assert 0 <= span.start <= span.a < span.b <= span.stop <= length
        assert span.stop - span.start == min(side, length)
        assert span.a - span.start >= margin or span.start == 0
        assert span.stop - span.b >= margin or span.stop == length
        decided += range(span.a, span.b)
    assert decided == list(range(length))


def blurred(images: torch.Tensor) -> torch.Tensor:
    """Each pixel's mean with those up to two away in its pair of pixels' neighbourhood."""
    halves = F.pixel_unshuffle(images, 2)
    kernel = torch.ones(halves.shape[1], 1, 3, 3) / 9
    return F.pixel_shuffle(F.conv2d(halves, kernel, padding=1, groups=halves.shape[1]), 2)


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(50, 31), (16, 16), (7, 90), (33, 17)])
def test_tiles_give_what_the_whole_gives(height, width, at_once):
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    padded = F.pad(images, (0, width % 2, 0, height % 2), mode="reflect")
    whole = blurred(padded)[..., :height, :width]
    shapes = []

    def function(tiles: torch.Tensor) -> torch.Tensor:
        shapes.append(tiles.shape)
        return blurred(tiles)

    made = tiled(function, images, side=16, margin=4, stride=2, at_once=at_once)
    torch.testing.assert_close(made, whole, rtol=1e-6, atol=1e-6)
    assert all(shape[0] <= 2 * at_once and max(shape[2:]) <= 16 for shape in shapes)


def test_the_result_has_the_type_that_the_function_gives():
    images = torch.rand(1, 1, 40, 40)
    made = tiled(lambda tiles: (tiles * 255).byte(), images, side=16, margin=2)
    assert torch.equal(made, (images * 255).byte())


@given(st.lists(st.integers(1, 1000), max_size=40), st.integers(1, 9))
def test_shares_are_everything_once_and_fair(costs, world):
    parts = shares(costs, world)
    assert len(parts) == world
    assert sorted(item for part in parts for item in part) == list(range(len(costs)))
    loads = [sum(costs[item] for item in part) for part in parts]
    largest = max(costs, default=0)
    assert max(loads) <= sum(costs) / world + (1 - 1 / world) * largest + 1e-9  # Graham 1966


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 3))
def test_no_shares_could_be_much_fairer(costs, world):
    loads = [sum(costs[item] for item in part) for part in shares(costs, world)]
    best = min(
        max(
            sum(costs[i] for i, owner in enumerate(owners) if owner == rank)
            for rank in range(world)
        )
        for owners in itertools.product(range(world), repeat=len(costs))
    )
    assert max(loads) <= best * (4 / 3 - 1 / (3 * world)) + 1e-9  # Graham 1969


def test_photos_are_divided_by_pixels_not_by_number():
    assert shares([100, 1, 1, 1, 1, 1], 2) == [[0], [1, 2, 3, 4, 5]]
    assert shares([5], 3) == [[0], [], []]


@given(st.lists(st.sampled_from([(4, 5), (5, 4), (2, 2), (30, 30)]), max_size=30))
def test_stacks_are_of_one_shape_and_within_the_budget(shapes):
    found = list(stacks(range(len(shapes)), shapes, pixels=50))
    assert sorted(item for stack in found for item in stack) == list(range(len(shapes)))
    for stack in found:
        height, width = shapes[stack[0]]
        assert {shapes[item] for item in stack} == {(height, width)}
        assert len(stack) == 1 or len(stack) * height * width <= 50
