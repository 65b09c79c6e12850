"""Style: its moments, a step of AdaIN against its equations, what is refused, judging."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from stylists import FEATURES, classifier, helped, maps, picture
from tiny_recipes import tiny
from torch import Tensor, nn
from training_steps import batch_at, started, trained

from genimg import rng
from genimg.data.opening import open_dataset
from genimg.errors import InputError
from genimg.inference import Inference, to_floats
from genimg.models.styling import Encoder, Stylist
from genimg.models.whitened import Whitened
from genimg.moments import (
    content_distance,
    exchange,
    exchanged,
    moments,
    pooled,
    style_distance,
)
from genimg.recipes.stylist import AdaIN
from genimg.training.sync import Alone

EPS = 1e-5


# moments


def test_moments_are_means_and_variances_over_places_that_count():
    values, weight = maps(2, 3, 5, 4), maps(2, 5, 4, seed=1).abs()
    found = moments(values, weight).double().numpy()
    for row in range(2):
        for channel in range(3):
            plane, part = values[row, channel].numpy(), weight[row].numpy()
            mean = np.average(plane, weights=part)
            spread = np.average((plane - mean) ** 2, weights=part)
            np.testing.assert_allclose(found[row, :, channel], [mean, spread], rtol=1e-4)
    torch.testing.assert_close(moments(values), moments(values, torch.ones(2, 5, 4)))
    torch.testing.assert_close(moments(values), moments(values, torch.zeros(2, 5, 4)))


@given(cuts=st.lists(st.integers(1, 11), max_size=3), seed=st.integers(0, 9))
def test_the_moments_of_parts_are_those_of_the_whole(cuts, seed):
    values, weight = maps(1, 2, 4, 12, seed=seed), maps(1, 4, 12, seed=seed + 1).abs()
    weight[..., :2] = 0
    ends = [0, *sorted(set(cuts)), 12]
    pieces = [slice(a, b) for a, b in itertools.pairwise(ends)]
    parts = torch.cat([moments(values[..., each], weight[..., each]) for each in pieces])
    weights = torch.stack([weight[..., each].sum() for each in pieces])
    whole = moments(values, weight)[0].double()
    torch.testing.assert_close(pooled(parts, weights), whole, rtol=1e-4, atol=1e-5)


def test_an_exchange_gives_features_the_moments_of_others_or_part_of_the_way():
    content, style = maps(2, 3, 6, 5), 3 * maps(2, 3, 4, 7, seed=1) - 2
    change = exchange(moments(content), moments(style))
    made = exchanged(content, change)
    torch.testing.assert_close(moments(made), moments(style), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(exchanged(content, exchange(*[moments(content)] * 2)), content)
    assert torch.equal(exchanged(content, exchange(moments(content), moments(style), 0.0)), content)
    half = exchanged(content, exchange(moments(content), moments(style), 0.5))
    torch.testing.assert_close(half, (content + made) / 2)  # eq. 14


def test_distances_by_their_equations():
    one, other = [maps(2, 3, 6, 5), maps(2, 4, 3, 2)], [maps(2, 3, 6, 5, seed=1), maps(2, 4, 3, 2)]
    for row, found in enumerate(style_distance(one, other)):
        expected = 0.0
        for a, b in zip(one, other, strict=True):
            a, b = (each[row].flatten(1).double().numpy() for each in (a, b))
            deviations = [np.sqrt(each.var(axis=1) + EPS) for each in (a, b)]
            expected += np.mean((a.mean(axis=1) - b.mean(axis=1)) ** 2)
            expected += np.mean((deviations[0] - deviations[1]) ** 2)
        assert found.item() == pytest.approx(expected, rel=1e-4)
    assert (style_distance(one, one) == 0).all()
    assert (content_distance(one, one) == 0).all()
    # content is what is left where the moments of a channel change
    moved = [each * 3 - 1 for each in one]
    torch.testing.assert_close(content_distance(moved, one), torch.zeros(2), atol=1e-6, rtol=0)
    noise = [maps(2, 4, 90, 90, seed=seed) for seed in range(2)]
    np.testing.assert_allclose(content_distance(noise[:1], noise[1:]), 2, rtol=0.02)


# networks


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_an_encoder_sees_what_a_classifier_sees(patch):
    network = Whitened(8, patch, 3, classes=4).eval()
    for values in network.state_dict().values():
        if values.is_floating_point():
            nn.init.uniform_(values, 0.5, 1)
    encoder = Encoder(8, patch, 3)
    encoder.take(network)
    images = maps(2, 3, 16, 24)
    padded = F.pad(images, (0, patch - 1, 0, patch - 1), mode="replicate")
    expected = network.maps(padded)
    for found, each in zip(encoder(images), expected, strict=True):
        torch.testing.assert_close(found, each)
    assert [each.shape[1:] for each in encoder(images)] == [(8, 8, 12), (32, 4, 6), (32, 2, 3)]
    assert len(encoder(images, 1)) == 1


def test_an_encoder_has_nothing_to_learn_and_never_changes():
    recipe = tiny("adain", *FEATURES, "train.warmup=0")
    method = helped(recipe)
    trained(recipe, method, 2)
    weights = classifier().state_dict()
    for networks in (method.networks, method.averages):
        encoder = networks["stylist"].get_submodule("encoder")
        assert list(encoder.parameters()) == []
        assert not any(layer.training for layer in encoder.modules())
        for name, value in encoder.state_dict().items():
            assert torch.equal(value, weights[name]), name
    assert method.networks["stylist"].training
    # what a run goes on from knows it, so that another classifier changes nothing
    assert "stylist.encoder.whitening.weight" in method.snapshot().weights


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("skips", [False, True])
def test_no_pixel_depends_on_anything_beyond_the_margin(depth, skips):
    torch.manual_seed(0)
    stylist = Stylist(8, 3, depth, 8, skips, 3).eval()
    nn.init.normal_(stylist.decoder.tail.weight)
    length = 2 * stylist.margin + 5 * stylist.stride
    images = maps(1, 3, stylist.stride, length).requires_grad_()
    middle = stylist.margin + 2 * stylist.stride
    for place in (middle, middle + stylist.stride - 1):
        made = stylist.decoder(stylist.levels(images, stylist.encoder(images)))
        made = made[..., place].abs().sum()  # not clamped, which would hide what is seen
        (gradient,) = torch.autograd.grad(made, images)
        seen = gradient.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
        assert place - seen.min() <= stylist.margin
        assert seen.max() - place <= stylist.margin


# learning


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("skips", [False, True])
def test_a_step_is_that_of_the_papers_equations(depth, skips):
    exact = ("train.precision=float32", "train.warmup=0", "train.ema_half_life=0")
    recipe = tiny("adain", *FEATURES, *exact, "train.clip_norm=null")
    recipe = recipe.override([f"model.depth={depth}", f"model.skips={skips}"])
    assert isinstance(recipe, AdaIN)
    method, seer = helped(recipe), classifier()
    stylist = method.networks["stylist"]
    batch = batch_at(recipe, 0)
    images = batch.rows["image"]
    style = images[[1, 0, 3, 2, 5, 4, 7, 6]]

    def see(images: Tensor) -> list[Tensor]:
        return seer.maps(F.pad(images, (0, 1, 0, 1), mode="replicate"))

    def means(maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3))

    def deviations(maps: Tensor) -> Tensor:
        return (maps.var(dim=(2, 3), correction=0) + EPS).sqrt()

    def adapted(known: Tensor, theirs: Tensor) -> Tensor:  # eq. 8
        normal = (known - means(known)[..., None, None]) / deviations(known)[..., None, None]
        return normal * deviations(theirs)[..., None, None] + means(theirs)[..., None, None]

    known, wanted = see(images), see(style)
    both = list(zip([images, *known], [style, *wanted], strict=True))
    given = [adapted(*each) for each in (both[: depth + 1] if skips else both[depth : depth + 1])]
    seen = see(stylist.get_submodule("decoder")(given))
    content = F.mse_loss(seen[depth - 1], given[-1])  # eq. 12
    styles = sum(
        F.mse_loss(means(a), means(b)) + F.mse_loss(deviations(a), deviations(b))
        for a, b in zip(seen, wanted, strict=True)
    )  # eq. 13
    loss = content + 3 * styles
    expected = torch.autograd.grad(loss, list(stylist.parameters()))
    (losses,) = trained(recipe, method, 1)
    torch.testing.assert_close(losses["loss"], loss.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses["loss_content"], content.detach(), rtol=1e-4, atol=1e-5)
    for (name, parameter), each in zip(stylist.named_parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, each, rtol=1e-3, atol=1e-5, msg=name)


def test_an_image_shown_again_and_again_takes_on_the_style():
    recipe = tiny("adain", *FEATURES, "train.warmup=0", "train.lr=0.003", "train.images=8000")
    method, batch = helped(recipe), batch_at(recipe, 0)
    losses = [method.update(batch, Alone())["loss_style"] for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]


def test_contents_and_styles_are_neighbours_or_of_two_folders():
    same, folders = tiny("adain"), tiny("adain").model_copy(update={"styles": "folders"})
    images = maps(4, 3, 8, 8)
    content, style = same.sides({"image": images})
    assert content is images
    assert torch.equal(style, images[[1, 0, 3, 2]])
    assert (same.wants, same.together) == (("image",), 2)
    assert (folders.wants, folders.together) == (("image", "other"), 1)
    assert torch.equal(folders.sides({"image": images, "other": -images})[1], -images)


def test_two_folders_are_learnt_from_and_judged_by(tmp_path):
    for kind, level in (("content", 40), ("style", 200)):
        (tmp_path / kind).mkdir()
        for number in range(5):
            image = picture(24, 20, seed=number) // 8 + np.uint8(level)
            Image.fromarray(image).save(tmp_path / kind / f"{number}.png")
    data = (f"data.source={tmp_path}", "data.holdout=4", "train.batch_size=3")
    recipe = tiny("adain", "styles=folders", *data)
    assert isinstance(recipe, AdaIN)
    content, style = recipe.sides(batch_at(recipe, 0).rows)
    assert content.max() < style.min()
    method = started(recipe)
    trained(recipe, method, 1)
    held_out = open_dataset(recipe.data, recipe.wants).hold_out(4)[1]
    inference = Inference.of_copies(method.averages, "float32", Alone())
    assert recipe.evaluate(inference, held_out)["style_of_content"] > 0
    shown, _ = recipe.preview(inference, held_out)
    assert shown[0::3].max() < shown[1::3].min()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["train.batch_size=7"], "train.batch_size=7: of each two images one has the style"),
        (["data.holdout=1"], "data.holdout=1: images are judged with one another's style"),
        (["data.size=20"], "data.size=20: adain takes multiples of 8"),
        (["model.depth=4"], "model.depth=4"),
        (["loss.style=0"], "loss.style=0"),
        (["evaluation.images=1"], "evaluation.images=1"),
    ],
)
def test_what_cannot_be_learnt_is_refused(overrides, told):
    with pytest.raises(InputError, match=told):
        tiny("adain", *overrides)


@pytest.mark.parametrize(
    ("helper", "told"),
    [
        (("deblocker",), "deblocker models cannot classify"),
        (("classifier", "model.network=plain"), "x: its layers normalise by the whole of an image"),
        (
            ("classifier", "model.width=16"),
            r"a classifier with model.width=16 \(here 8\); override",
        ),
        (("classifier", "data.channels=1"), r"a classifier with data.channels=1 \(here 3\)"),
    ],
)
def test_features_are_a_classifiers_of_the_encoders_shape(helper, told):
    recipe = tiny("adain", *FEATURES, "train.warmup=0")
    recipe.refuse_helper("features", tiny("classifier", "data.size=64"))
    with pytest.raises(InputError, match=told):
        recipe.refuse_helper("features", tiny(*helper))
    assert recipe.helped_by() == {"features": "x"}
    assert recipe.helped_by(training=False) == {}
    assert list(recipe.cautions()) == []
    assert any("random filters" in each for each in tiny("adain").cautions())


# judging


def test_scores_are_parts_of_the_way_between_the_two_inputs():
    recipe = tiny("adain", *FEATURES)
    assert isinstance(recipe, AdaIN)
    method = helped(recipe)
    data = open_dataset(recipe.data, recipe.wants).hold_out(16)[1]
    inference = Inference.of_copies(method.averages, "float32", Alone())
    found = recipe.evaluate(inference, data)
    chosen = data.choose(16)
    every = data.fetch(chosen, rng.fold(0, torch.from_numpy(chosen)))["image"]
    content = to_floats(every, torch.device("cpu"))
    style = content.roll(8, dims=0)
    see = inference.networks["stylist"].get_submodule("encoder")
    first, second = see(content), see(style)
    floors = content_distance(second, first).mean(), style_distance(first, second).mean()
    assert found["content_of_style"] == pytest.approx(floors[0].item(), rel=1e-3)
    assert found["style_of_content"] == pytest.approx(floors[1].item(), rel=1e-3)
    parts = found["content"] / floors[0] + found["style"] / floors[1]
    assert found["distance"] == pytest.approx(parts.item(), rel=1e-3)
    mean, spread = (each(dim=(2, 3), keepdim=True) for each in (content.mean, content.std))
    theirs, wide = (each(dim=(2, 3), keepdim=True) for each in (style.mean, style.std))
    colours = see(((content - mean) / spread * wide + theirs).clamp(-1, 1))
    parts = content_distance(colours, first).mean() / floors[0]
    parts += style_distance(colours, second).mean() / floors[1]
    assert found["distance_of_colours"] == pytest.approx(parts.item(), rel=2e-2)
    assert recipe.chosen_by == ("distance", "min")
    assert recipe.protocol(data)["detector"] == "maps of x, 3 stages"
    shown, columns = recipe.preview(inference, data)
    assert (shown.shape, columns) == ((24, 3, 16, 16), 6)
    assert torch.equal(shown[1::3], shown[0::3].roll(4, dims=0))
