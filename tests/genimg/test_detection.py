"""Detectors: what maps should be, boxes found in them, losses and scores, by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_recipes import tiny
from torch import nn

from genimg import recipes
from genimg.data.beside import BOXES
from genimg.data.opening import open_dataset
from genimg.drawing import outline
from genimg.errors import InputError
from genimg.inference import Inference
from genimg.losses import heatmap_focal
from genimg.masks import palette
from genimg.metrics.detection import average_precision
from genimg.models.centers import STRIDE, CenterNet, Maps, found
from genimg.training.detection import OVERLAP, distance_at, radius, targets

NONE = [-1.0, 0, 0, 0, 0]


def boxes_of(*rows: list[float]) -> torch.Tensor:
    """float32 [1, BOXES, 5]"""
    return torch.tensor([[*rows, *[NONE] * (BOXES - len(rows))]], dtype=torch.float32)


def iou(one: list[float], other: list[float]) -> float:
    """Of x0, y0, x1, y1."""
    low = np.maximum(one[:2], other[:2])
    both = np.prod(np.clip(np.minimum(one[2:], other[2:]) - low, 0, None))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / (sum(areas) - both)


@given(st.floats(1, 300), st.floats(1, 300))
def test_a_corner_off_by_the_radius_leaves_the_overlap(width, height):
    r = radius(torch.tensor(width, dtype=torch.float64), torch.tensor(height)).item()
    assert r > 0
    box = [0, 0, width, height]
    cases = ([r, r, width + r, height + r], [r, r, width - r, height - r],
             [-r, -r, width + r, height + r])  # fmt: skip
    overlaps = [iou(box, case) for case in cases]
    assert min(overlaps) == pytest.approx(OVERLAP, abs=1e-4)


def test_targets_of_a_known_box():
    wanted = targets(boxes_of([2, 8, 4, 20, 18]), classes=3, shape=(6, 8), stride=4)
    assert wanted.there.sum() == 1
    assert wanted.sides[0, 0].tolist() == [3, 3.5]
    assert wanted.places[0, 0] == 2 * 8 + 3  # the centre is at 3.5, 2.75
    assert wanted.offset[0, 0].tolist() == [0.5, 0.75]
    assert not wanted.heat[0, :2].any()
    assert wanted.heat[0, 2, 2, 3] == 1
    spread = (2 * radius(torch.tensor(3.0), torch.tensor(3.5)).item() + 1) / 6
    for y in range(6):
        for x in range(8):
            fall = math.exp(-((x - 3) ** 2 + (y - 2) ** 2) / (2 * spread**2))
            assert wanted.heat[0, 2, y, x].item() == pytest.approx(fall, abs=1e-6)


def test_where_hills_of_a_class_meet_the_higher_one_counts():
    near = boxes_of([0, 0, 0, 16, 16], [0, 8, 8, 24, 24], [1, 0, 0, 16, 16])
    alone = [targets(boxes_of(row), 2, (8, 8), 4).heat[0] for row in near[0, :3].tolist()]
    together = targets(near, 2, (8, 8), 4).heat[0]
    assert torch.equal(together[0], torch.maximum(alone[0][0], alone[1][0]))
    assert torch.equal(together[1], alone[2][1])
    assert not targets(boxes_of(), 2, (8, 8), 4).heat.any()


@given(st.data())
def test_boxes_are_found_where_the_targets_put_them(data):
    """Maps that are just what they should be give the boxes back."""
    count = data.draw(st.integers(0, 5))
    cells = [(x, y) for x in range(0, 8, 2) for y in range(0, 8, 2)]
    rows = []
    for x, y in data.draw(st.permutations(cells))[:count]:
        x, y = 4 * x + data.draw(st.floats(0, 3.5)), 4 * y + data.draw(st.floats(0, 3.5))
        wide, high = (min(data.draw(st.floats(0.5, 12)), 2 * min(at, 32 - at)) for at in (x, y))
        box = [x - wide / 2, y - high / 2, x + wide / 2, y + high / 2]
        rows.append([data.draw(st.integers(0, 2)), *box])
    wanted = targets(boxes_of(*rows), 3, (8, 8), STRIDE)
    maps = Maps(torch.full((1, 3, 8, 8), -30.0), torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8))
    for number, row in enumerate(rows):
        y, x = divmod(wanted.places[0, number].item(), 8)
        maps.heat[0, int(row[0]), y, x] = 5 - number  # in their order
        maps.sides[0, :, y, x] = wanted.sides[0, number]
        maps.offset[0, :, y, x] = wanted.offset[0, number]
    boxes, scores = found(maps, 6)
    assert boxes.shape == (1, 6, 5)
    np.testing.assert_allclose(boxes[0, :count], np.array(rows).reshape(-1, 5), atol=1e-3)
    assert scores[0, :count].tolist() == pytest.approx(
        [1 / (1 + math.exp(number - 5)) for number in range(count)]
    )
    assert (scores[0, count:] < 1e-9).all()


def test_fewer_places_than_boxes_are_asked_for():
    maps = Maps(torch.zeros(2, 1, 2, 2), torch.ones(2, 2, 2, 2), torch.zeros(2, 2, 2, 2))
    boxes, scores = found(maps, 9)
    assert boxes.shape == (2, 9, 5)
    assert boxes[:, 4:].tolist() == [[NONE] * 5] * 2
    assert scores[:, 4:].tolist() == [[0] * 5] * 2
    assert sorted(boxes[0, :4].tolist())[0] == [0, 0, 0, 2, 2]  # within the image


def test_the_focal_loss_of_heat_by_hand():
    logits = torch.tensor([[[[2.0, -1.0, 0.5]]], [[[0.0, 0.0, -3.0]]]])
    heat = torch.tensor([[[[1.0, 0.6, 0.0]]], [[[0.0, 0.0, 0.0]]]])
    p = logits.sigmoid().flatten().tolist()
    first = (
        (1 - p[0]) ** 2 * math.log(p[0])
        + 0.4**4 * p[1] ** 2 * math.log(1 - p[1])
        + p[2] ** 2 * math.log(1 - p[2])
    )
    second = sum(q**2 * math.log(1 - q) for q in p[3:])
    assert heatmap_focal(logits, heat).item() == pytest.approx(-(first + second) / 2)


def test_distances_are_taken_at_centres_and_by_image():
    wanted = targets(
        torch.cat([boxes_of([0, 0, 0, 8, 8], [0, 16, 16, 24, 24]), boxes_of()]), 1, (8, 8), 4
    )
    maps = torch.zeros(2, 2, 8, 8)
    maps[0, 0, 1, 1] = 5  # the first box is 2 wide and high there
    assert distance_at(maps, wanted.sides, wanted).item() == ((3 + 2) + (2 + 2)) / 2 / 2


def judged(guess: list, scores: list, truth: list, classes: int = 2) -> dict[str, float]:
    def padded(rows: list, width: int) -> np.ndarray:
        out = np.zeros((len(rows), 4, width), np.float32)
        out[..., 0] = -1
        for number, row in enumerate(rows):
            out[number, : len(row)] = np.array(row, np.float32).reshape(len(row), width)
        return out

    ranked = padded([[[each] for each in row] for row in scores], 1)[..., 0]
    return average_precision(padded(guess, 5), ranked, padded(truth, 5), classes)


BOX = [0, 10, 10, 30, 30]


def test_average_precision_by_hand():
    everything = judged([[BOX]], [[0.9]], [[BOX]])
    assert everything == pytest.approx({"map": 1, "map50": 1, "map75": 1})
    nothing = judged([[]], [[]], [[BOX]])
    assert nothing == {"map": 0, "map50": 0, "map75": 0}
    assert judged([[]], [[]], [[]])["map"] == -1
    assert judged([[BOX]], [[0.9]], [[[1, *BOX[1:]]]])["map50"] == 0  # another class
    # right at 0.5, 0.55, 0.6 and 0.65 of ten thresholds
    shifted = judged([[[0, 10, 10, 30, 26]], []], [[0.9], []], [[[0, 10, 13, 30, 29]], []])
    assert iou([10, 10, 30, 26], [10, 13, 30, 29]) == pytest.approx(13 / 19)
    assert shifted == pytest.approx({"map": 0.4, "map50": 1, "map75": 0})
    # a surer guess that is wrong halves the precision at every recall
    half = judged([[BOX, [0, 40, 40, 60, 60]]], [[0.5, 0.9]], [[BOX]])
    assert half["map50"] == pytest.approx(0.5)
    # one of two is found: recall 0.5, which is 51 of 101 points
    one = judged([[BOX], []], [[0.5], []], [[BOX], [BOX]])
    assert one["map50"] == pytest.approx(51 / 101)
    # classes count alike, whatever their numbers of boxes
    two = judged([[BOX], []], [[0.5], []], [[BOX], [[1, *BOX[1:]]]])
    assert two["map50"] == pytest.approx(0.5)


def test_it_prints_nothing(capsys):
    judged([[BOX]], [[0.9]], [[BOX]])
    assert capsys.readouterr().out == ""


class Oracle(nn.Module):
    """Maps that are just what they should be, of the images that it was shown."""

    def __init__(self, images: torch.Tensor, boxes: torch.Tensor, classes: int) -> None:
        super().__init__()
        self.anything = nn.Parameter(torch.zeros(1))
        self.images = images.flatten(1).float()
        side = images.shape[-1] // STRIDE
        wanted = targets(boxes, classes, (side, side), STRIDE)
        at = wanted.places[:, None].expand(-1, 2, -1)

        def maps(values: torch.Tensor) -> torch.Tensor:
            shown = torch.where(wanted.there[:, None], values.transpose(1, 2), 0)
            return torch.zeros(len(boxes), 2, side**2).scatter_add_(2, at, shown)

        self.maps = (
            torch.where(wanted.heat == 1, 9.0, -9.0),
            maps(wanted.sides).view(-1, 2, side, side),
            maps(wanted.offset).view(-1, 2, side, side),
        )

    def forward(self, images: torch.Tensor) -> Maps:
        shown = images.flatten(1).add(1).mul(127.5)
        nearest = torch.cdist(shown, self.images).argmin(dim=1)
        return Maps(*(maps[nearest] for maps in self.maps))


def test_a_detector_whose_maps_are_right_is_right():
    recipe = tiny("detector", "data.size=64", "evaluation.images=16")
    data = open_dataset(recipe.data, recipe.wants, "test")
    stored = data.fetch(data.choose(16), torch.arange(16))
    oracle = Oracle(stored["image"], stored["boxes"], len(recipe.model.classes))
    inference = Inference({"detector": oracle})
    measured = recipe.evaluate(inference, data)
    assert measured == pytest.approx({"map": 1, "map50": 1, "map75": 1})
    pictures, columns = recipe.preview(inference, data)
    assert (pictures.shape, columns) == ((32, 3, 64, 64), 4)
    # truth and guess side by side; where boxes cross, the one drawn last is seen
    assert (pictures[0::2] != pictures[1::2]).float().mean() < 0.01


def test_an_untrained_network_is_sure_of_nothing():
    torch.manual_seed(0)
    network = CenterNet(8, 2, 3, 5).eval()
    maps = network(torch.randn(2, 3, 32, 48))
    assert [each.shape[1:] for each in maps] == [(5, 8, 12), (2, 8, 12), (2, 8, 12)]
    assert maps.heat.sigmoid().mean().item() == pytest.approx(0.1, abs=0.08)


def test_a_detector_takes_its_classes_from_the_data():
    recipe = recipes.named("detector")
    assert recipe.resolve({"boxes": ("cat",)}).model.classes == ("cat",)
    with pytest.raises(InputError, match="there is nothing to detect"):
        recipe.resolve({"boxes": ()})
    with pytest.raises(InputError, match=r"data\.size=24: .* multiples of 16"):
        recipe.override(["data.size=24"])


def test_boxes_are_drawn_in_the_colours_of_their_classes():
    image = np.zeros((20, 20, 1), np.uint8)
    shown = outline(image, np.array([[1, 3, 4, 10, 12], NONE]))
    red = (shown == palette()[2]).all(axis=2)
    y, x = red.nonzero()
    assert (x.min(), y.min(), x.max(), y.max()) == (3, 4, 9, 11)
    assert red.sum() == 2 * 7 + 2 * 6
    assert not shown[~red].any()
