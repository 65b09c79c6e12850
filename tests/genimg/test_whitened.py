"""The whitening classifier: what its first layer makes of patches, its sizes, maps and averages."""

import json

import pytest
import torch
from tiny_recipes import tiny
from torch import nn
from training_steps import CPU, batch_at, started, trained

from genimg import recipes
from genimg.errors import InputError
from genimg.models.classifier import Plain
from genimg.models.perception import Perception
from genimg.models.whitened import Whitened, Whitening
from genimg.recipes.classifier import averaged


def pictures(count: int, channels: int, side: int) -> torch.Tensor:
    """Images whose neighbouring pixels and channels are alike."""
    noise = torch.randn(count, 1, side + 2, side + 2, generator=torch.Generator().manual_seed(3))
    smooth = nn.functional.avg_pool2d(noise, 3, 1)
    other = torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(4))
    return smooth + 0.2 * other + 0.5


@pytest.mark.parametrize(("channels", "patch"), [(1, 3), (3, 2), (3, 1)])
def test_patches_come_out_uncorrelated_with_mean_0_and_variance_1(channels, patch):
    layer = Whitening(channels, patch)
    images = pictures(100, channels, 12)
    layer.fit(images, lambda values: values)
    made = layer(images).detach().movedim(1, -1).flatten(0, 2)
    half = channels * patch**2
    assert made.shape[1] == 2 * half
    torch.testing.assert_close(made[:, half:], -made[:, :half], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made.mean(0), torch.zeros(2 * half), rtol=0, atol=1e-3)
    torch.testing.assert_close(made[:, :half].T.cov(), torch.eye(half), rtol=0, atol=0.02)


def test_shares_of_a_batch_find_the_filters_of_the_whole():
    images = pictures(10, 3, 9)
    whole, part = Whitening(3, 2), Whitening(3, 2)
    whole.fit(images, lambda values: values)
    rest: list[torch.Tensor] = []
    part.fit(images[7:], lambda values: rest.append(values) or values)
    part.fit(images[:7], lambda values: 0.7 * values + 0.3 * rest[0])
    torch.testing.assert_close(part.weight, whole.weight)
    torch.testing.assert_close(part.bias, whole.bias)


@pytest.mark.parametrize("value", [-1.0, 0.25])
def test_images_without_contrast_are_no_trouble(value):
    layer = Whitening(3, 2)
    images = torch.full((2, 3, 8, 8), value)
    layer.fit(images, lambda values: values)
    assert layer(images).isfinite().all()


def test_the_filters_are_those_of_the_first_batch_and_stay():
    recipe = tiny("classifier", "train.precision=float32")
    method = started(recipe)
    trained(recipe, method, 1)
    found = method.networks["classifier"].whitening.weight.clone()
    layer = Whitening(3, recipe.model.patch)
    layer.fit(batch_at(recipe, 0).rows["image"], lambda values: values)
    assert torch.equal(found, layer.weight)
    trained(recipe, method, 2)
    snapshot = method.snapshot()
    assert torch.equal(snapshot.training["classifier.whitening.weight"], found)
    assert torch.equal(snapshot.weights["classifier.whitening.weight"], found)
    other = recipe.method(CPU)
    other.restore(snapshot)
    trained(recipe, other, 1)
    assert torch.equal(other.networks["classifier"].whitening.weight, found)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [4, 8, 28, 32, 50, 64])
def test_logits_are_of_non_negative_features_at_any_size(side, channels):
    network = Whitened(8, 2, channels, 4).eval()
    images = torch.randn(3, channels, side, side)
    features = network.features(images)
    assert features.shape == (3, 32)
    assert features.min() >= 0
    torch.testing.assert_close(network(images), network.to_logits(features))
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(alone, network(images), rtol=1e-4, atol=1e-5)


def test_maps_are_those_before_the_last_activation_of_each_stage():
    network = Whitened(8, 2, 3, 4).eval()
    images = torch.rand(2, 3, 21, 30) * 2 - 1
    seen: list[torch.Tensor] = []
    norms = [stage[5] for stage in network.stages]
    for norm in norms:
        norm.register_forward_hook(lambda _, given, made: seen.append(made.clone()))
    network(images)
    expected = list(seen)
    maps = Perception(network)(images)
    assert [list(each.shape) for each in maps] == [[2, 8, 10, 14], [2, 32, 5, 7], [2, 32, 2, 3]]
    for got, each in zip(maps, expected, strict=True):
        torch.testing.assert_close(got, each)


def test_a_recipe_of_before_is_of_the_plain_network():
    tree = json.loads(recipes.named("classifier").model_dump_json())
    tree["model"] = {"width": 16, "features": 32, "classes": ["a", "b"]}
    for key in ("optimizer", "weight_decay"):
        tree["train"].pop(key)
    recipe = recipes.from_json(json.dumps(tree))
    assert isinstance(recipe.classifier(), Plain)
    assert recipe.train.optimizer == "adam"


def test_what_cannot_be_normalised_is_refused():
    recipe = recipes.named("classifier")
    with pytest.raises(InputError, match=r"train\.batch_size=1: with data\.size=16"):
        recipe.override(["train.batch_size=1", "data.size=16"])
    trained(one := tiny("classifier", "train.batch_size=1", "data.size=20"), started(one), steps=1)


@pytest.mark.parametrize("mirror", [False, True])
def test_averages_are_over_shifts_of_which_the_image_counts_half(mirror):
    torch.manual_seed(0)
    weight, images = torch.randn(5, 3 * 6 * 6), torch.randn(2, 3, 6, 6)

    def classify(views: torch.Tensor) -> torch.Tensor:
        return views.flatten(1).square() @ weight.T

    def moved(by: int) -> torch.Tensor:
        places = torch.arange(6) + by
        places = places.abs() - 2 * (places - 5).clamp_min(0)
        return images[:, :, places][..., places]

    expected = torch.zeros(2, 5)
    for view, part in ((images, 0.5), (moved(-1), 0.25), (moved(1), 0.25)):
        both = [view, view.flip(-1)] if mirror else [view]
        expected += part * sum(classify(each) for each in both) / len(both)
    torch.testing.assert_close(averaged(classify, images, mirror=mirror), expected)
