"""Segmenters: losses, networks and scores against the same computed by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from tiny_recipes import tiny

from genimg import recipes
from genimg.contracts import UNKNOWN
from genimg.data.opening import open_dataset
from genimg.data.scenes import Scenes
from genimg.drawing import OPACITY, overlay
from genimg.errors import InputError
from genimg.inference import Inference
from genimg.losses import pixel_cross_entropy, soft_dice
from genimg.masks import palette
from genimg.metrics.segmentation import confusion, intersection_over_union, mean_iou
from genimg.models.unet import UNet


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_cross_entropy_is_that_of_known_pixels_of_each_image():
    logits, mask = drawn(3, 4, 5, 6), torch.randint(0, 4, (3, 5, 6))
    torch.testing.assert_close(pixel_cross_entropy(logits, mask), F.cross_entropy(logits, mask))
    mask[0, :, :3] = UNKNOWN
    mask[1] = UNKNOWN
    each = [F.cross_entropy(logits[0, :, :, 3:][None], mask[0, :, 3:][None]),
            torch.zeros([]), F.cross_entropy(logits[2:], mask[2:])]  # fmt: skip
    torch.testing.assert_close(pixel_cross_entropy(logits, mask), torch.stack(each).mean())


@pytest.mark.parametrize("loss", [pixel_cross_entropy, soft_dice])
def test_losses_of_parts_of_a_batch_add_up_by_their_shares(loss):
    logits, mask = drawn(5, 3, 4, 4), torch.randint(0, 3, (5, 4, 4))
    mask[0, :2] = mask[3] = UNKNOWN
    parts = 2 / 5 * loss(logits[:2], mask[:2]) + 3 / 5 * loss(logits[2:], mask[2:])
    torch.testing.assert_close(parts, loss(logits, mask))


def test_dice_by_hand():
    mask = torch.tensor([[[0, 0], [1, UNKNOWN]]])
    chances = torch.tensor([[[[0.8, 0.5], [0.3, 0.9]], [[0.2, 0.5], [0.7, 0.1]]]])
    zero = 2 * (0.8 + 0.5) / (0.8 + 0.5 + 0.3 + 2)
    one = 2 * 0.7 / (0.2 + 0.5 + 0.7 + 1)
    found = soft_dice(chances.log(), mask)
    assert found.item() == pytest.approx(1 - (zero + one) / 2)
    sure = 50.0 * F.one_hot(torch.tensor([[[0, 0], [1, 0]]]), 3).permute(0, 3, 1, 2)
    assert soft_dice(sure, mask).item() == pytest.approx(0, abs=1e-6)  # no image shows the third


@given(st.integers(2, 5), st.integers(0, 2**31))
def test_confusion_is_what_counting_gives(classes, seed):
    generator = np.random.default_rng(seed)
    guess, truth = generator.integers(0, classes, (2, 3, 4, 5))
    truth[generator.random(truth.shape) < 0.2] = UNKNOWN
    expected = np.zeros((classes, classes), int)
    for a, b in zip(truth.flat, guess.flat, strict=True):
        if a != UNKNOWN:
            expected[a, b] += 1
    found = confusion(torch.from_numpy(guess), torch.from_numpy(truth), classes)
    assert found.tolist() == expected.tolist()


def test_intersections_over_unions_by_hand():
    matrix = torch.tensor([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    iou = intersection_over_union(matrix).tolist()
    assert iou[:2] == [6 / 9, 3 / 6]
    assert math.isnan(iou[2])
    assert mean_iou(matrix) == pytest.approx((6 / 9 + 3 / 6) / 2)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_pixel_depends_on_no_more_than_the_margin_around_it(depth):
    torch.manual_seed(0)  # of some weights no unit at that pixel is alive
    network = UNet(4, depth, 1, 2).eval()
    side = 3 * network.margin
    for at in (side // 2, side // 2 + 3):
        image = drawn(1, 1, side, side).requires_grad_()
        network(image)[0, 0, at, at].backward()
        rows = image.grad[0, 0].abs().sum(1).nonzero()
        assert at - rows.min() <= network.margin
        assert rows.max() - at <= network.margin
        assert rows.max() - rows.min() > network.margin  # it does look around
    assert network.margin % network.stride == 0


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 30), (5, 9)])
def test_images_of_any_size_are_segmented(height, width):
    network = UNet(4, 3, 3, 7).eval()
    image = drawn(2, 3, height, width)
    logits = network(image)
    assert logits.shape == (2, 7, height, width)
    padded = F.pad(image, (0, -width % 8, 0, -height % 8), mode="reflect")
    torch.testing.assert_close(logits, network(padded)[..., :height, :width])


class Oracle(UNet):
    """Tells the masks of the images that it was shown, but with the first row of pixels wrong."""

    def __init__(self, images: torch.Tensor, masks: torch.Tensor, classes: int) -> None:
        super().__init__(4, 1, 3, classes)
        self.images = images.flatten(1).float()
        self.told = masks.clone().long()
        self.told[:, 0] = (self.told[:, 0] + 1) % classes
        self.classes = classes

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        shown = images.flatten(1).add(1).mul(127.5)
        nearest = torch.cdist(shown, self.images).argmin(dim=1)
        return F.one_hot(self.told[nearest], self.classes).permute(0, 3, 1, 2).float()


def test_a_segmenter_is_judged_by_the_pixels_of_all_images_together():
    recipe = tiny("segmenter", "evaluation.images=16")
    data = open_dataset(recipe.data, recipe.wants, "test")
    chosen = data.choose(16)
    stored = data.fetch(chosen, torch.arange(16))
    classes = len(recipe.model.classes)
    oracle = Oracle(stored["image"], stored["mask"][:, 0], classes)
    measured = recipe.evaluate(Inference({"segmenter": oracle}), data)
    every = np.zeros((classes, classes))
    np.add.at(every, (stored["mask"][:, 0].numpy().ravel(), oracle.told.numpy().ravel()), 1)
    both = np.diag(every)
    iou = both / (every.sum(0) + every.sum(1) - both)
    assert measured["mean_iou"] == pytest.approx(np.nanmean(iou))
    assert measured["pixel_accuracy"] == pytest.approx(15 / 16)  # images are 16 pixels high
    pictures, columns = recipe.preview(Inference({"segmenter": oracle}), data)
    assert pictures.shape == (24, 3, 16, 16)
    assert columns == 6


def test_a_segmenter_takes_its_classes_from_the_data():
    recipe = recipes.named("segmenter")
    names = Scenes.classes["mask"]
    resolved = recipe.resolve(Scenes.classes)
    assert resolved.model.classes == names
    assert resolved.resolve({}).model.classes == names  # whose masks have no names
    assert resolved.resolve({"mask": ("0", "1", "2")}).model.classes == names
    for theirs in (("cat", "dog"), tuple(map(str, range(20)))):
        with pytest.raises(InputError, match=r"model\.classes=\['background', .* but the data has"):
            resolved.resolve({"mask": theirs})
    for theirs, reason in ((("0",), "show 1 class"), ((), "show no class")):
        with pytest.raises(InputError, match=reason):
            recipe.resolve({"mask": theirs})


def test_masks_with_classes_that_the_model_does_not_know_are_refused():
    recipe = tiny("segmenter")
    data = open_dataset(recipe.data, recipe.wants, "test")
    fewer = recipe.model_copy(
        update={"model": recipe.model.model_copy(update={"classes": ("a", "b")})}
    )
    with pytest.raises(InputError, match="a mask shows class 8, but the model knows 2"):
        fewer.evaluate(Inference(fewer.networks()), data)


def test_sides_that_cannot_be_halved_are_refused():
    with pytest.raises(InputError, match=r"data\.size=36: with model\.depth=3 .* multiples of 8"):
        recipes.named("segmenter").override(["data.size=36"])


def test_an_overlay_shows_classes_in_their_colours_and_the_image_elsewhere():
    image = np.full((2, 2, 1), 100, np.uint8)
    shown = overlay(image, np.array([[0, 1], [2, UNKNOWN]]))
    assert shown[0, 0].tolist() == shown[1, 1].tolist() == [100, 100, 100]
    mixed = (100 + OPACITY * (palette()[1].astype(float) - 100)).round()
    assert shown[0, 1].tolist() == mixed.tolist()
