"""Translators: how they are judged, both ways, tiles, and what is refused."""

import numpy as np
import pytest
import torch
from tiny_recipes import tiny

from genimg import masks, recipes
from genimg.data.opening import open_dataset
from genimg.engine import Engine
from genimg.errors import InputError
from genimg.inference import Inference
from genimg.metrics.fidelity import EXACT, psnr, ssim
from genimg.models.translating import TranslatingResNet, TranslatingUNet
from genimg.operations.translating import Translate
from genimg.pixels import to_bytes_range, to_tensor
from genimg.training.translation import both


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan"])
def test_translations_are_judged_beside_the_truth(name):
    recipe = tiny(name, "task=gray", "evaluation.images=20")
    data = open_dataset(recipe.data, recipe.wants, "test")
    networks = recipe.networks()
    networks["translator"].eval()
    measured = recipe.evaluate(Inference(networks), data)
    chosen = data.choose(20)
    truth = data.fetch(chosen, torch.from_numpy(chosen))["image"]
    floats = truth.float() / 127.5 - 1
    first, _ = recipe.sides({"image": floats})
    with torch.no_grad():
        made = to_bytes_range(recipe.forth(networks)(first))
    assert measured["psnr"] == pytest.approx(psnr(made, truth).mean().item(), rel=1e-4)
    assert measured["ssim"] == pytest.approx(ssim(made, truth).mean().item(), rel=1e-3)
    assert measured["swd"] > 0
    shown, columns = recipe.preview(Inference(networks), data)
    assert shown.shape == (24, 3, 16, 16)
    assert columns == 6


def test_what_is_translated_to_the_last_bit_is_scored_by_a_number():
    """That JSON has: a gray image has no colours to be given, and a ResNet begins as it is."""
    recipe = tiny("cyclegan", "task=gray", "data.channels=1")
    data = open_dataset(recipe.data, recipe.wants, "test")
    networks = {name: network.eval() for name, network in recipe.networks().items()}
    measured = recipe.evaluate(Inference(networks), data)
    assert (measured["psnr"], measured["ssim"]) == (EXACT, 1)


def test_the_best_is_chosen_by_pairs_by_distributions_or_by_the_judge():
    assert tiny("pix2pix").chosen_by == ("psnr", "max")
    assert tiny("cyclegan").chosen_by == ("psnr", "max")
    folders = recipes.named("cyclegan").override(["task=folders"])
    assert folders.chosen_by == ("swd", "min")
    assert folders.override(["evaluation.judge=its"]).chosen_by == ("judge_fid", "min")


def test_a_judge_looks_at_translations_and_at_the_truth():
    recipe = tiny("pix2pix", "task=pairs", "evaluation.judge=its", "evaluation.images=30")
    judging = tiny("classifier")
    recipe.refuse_helper("judge", judging)
    with pytest.raises(InputError, match=r"evaluation\.judge=its takes 1 x 16 x 16 images"):
        recipe.refuse_helper("judge", tiny("classifier", "data.channels=1"))
    torch.manual_seed(0)
    judge = Engine(judging, {name: n.eval() for name, n in judging.networks().items()})

    data = open_dataset(recipe.data, recipe.wants, "test")
    networks = {name: n.eval() for name, n in recipe.networks().items()}
    inference = Inference(networks, helpers={"judge": judge})
    metrics = recipe.evaluate(inference, data)
    assert metrics["judge_fid"] > 0
    first, second = recipe.sides(recipe.looked_at(inference, data, data.choose(30)))
    table = {each.numpy().tobytes(): other for each, other in zip(first, second, strict=True)}
    networks["translator"].forward = lambda images: torch.stack(
        [table[each.contiguous().numpy().tobytes()] for each in images]
    )
    perfect = recipe.evaluate(inference, data)
    assert perfect["judge_fid"] == pytest.approx(0, abs=1e-3 * metrics["judge_fid"])
    assert perfect["swd"] == pytest.approx(0)
    assert perfect["ssim"] == pytest.approx(1)


def test_a_segmenter_tells_whether_scenes_are_what_their_masks_say(monkeypatch):
    recipe = tiny("pix2pix", "evaluation.segmenter=its", "evaluation.images=20")
    segmenting = tiny("segmenter")
    recipe.refuse_helper("segmenter", segmenting)
    with pytest.raises(
        InputError, match=r"evaluation\.segmenter=its takes 1 channel, the model ma"
    ):
        recipe.refuse_helper("segmenter", tiny("segmenter", "data.channels=1"))
    segmenter = Engine(segmenting, {name: n.eval() for name, n in segmenting.networks().items()})
    data = open_dataset(recipe.data, recipe.wants, "test")
    networks = {name: n.eval() for name, n in recipe.networks().items()}
    inference = Inference(networks, helpers={"segmenter": segmenter})
    rows = recipe.looked_at(inference, data, data.choose(20))
    pairs = zip(rows["image"], rows["mask"], strict=True)
    truth = {each.numpy().tobytes(): mask for each, mask in pairs}

    def see(name: str, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """All of real scenes, and of others background."""
        nothing = torch.zeros_like(rows["mask"][0])
        found = [truth.get(each.numpy().tobytes(), nothing) for each in given["image"]]
        return {"mask": torch.stack(found).float()}

    monkeypatch.setattr(segmenter, "rows", see)
    metrics = recipe.evaluate(inference, data)
    assert metrics["mean_iou_real"] == 1
    background = (rows["mask"] == 0).float().mean().item()
    assert metrics["mean_iou"] == pytest.approx(background / len(rows["mask"].unique()))
    short = segmenting.override(["model.classes=[a, b]"])
    few = Engine(short, {name: n.eval() for name, n in short.networks().items()})
    with pytest.raises(InputError, match=r"a mask shows class \d, but evaluation.segm"):
        recipe.evaluate(Inference(networks, helpers={"segmenter": few}), data)


def two_ways() -> Engine:
    """Neither way is the identity, nor like the other."""
    recipe = tiny("cyclegan", "model.depth=1")
    torch.manual_seed(0)
    networks = recipe.networks()
    for parameter in networks["translator"].eval().requires_grad_(False).parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return Engine(recipe, networks)


def test_models_that_go_both_ways_are_asked_for_either():
    engine = two_ways()
    image = np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8)
    ways = [engine(Translate(back=way), image=image).images[0] for way in (False, True)]
    floats = to_tensor(image)[None]
    for made, network in zip(ways, both(engine.networks["translator"]), strict=True):
        expected = to_bytes_range(network(floats))[0].permute(1, 2, 0).numpy()
        assert np.abs(made.astype(int) - expected).max() <= 1
    assert not np.array_equal(*ways)
    plans = [engine.plan(Translate(back=way), image=image) for way in (True, False, True)]
    engine.compute("translate", [(plan, 0, plan.count) for plan in plans])
    for plan, way in zip(plans, (True, False, True), strict=True):
        assert np.array_equal(plan.result().images[0], ways[way])


@pytest.mark.parametrize("network", ["unet", "resnet"])
def test_a_translation_in_tiles_is_that_of_the_whole(network):
    sizes = "model.width=8", "model.depth=1"
    recipe = tiny("pix2pix", "task=night", f"model.network={network}", *sizes)
    torch.manual_seed(0)
    networks = {name: n.eval() for name, n in recipe.networks().items()}
    engine = Engine(recipe, networks)
    image = np.random.default_rng(0).integers(0, 256, (90, 141, 3), np.uint8)
    whole = engine(Translate(tile=0), image=image).images.astype(int)
    tile = 4 * engine.abilities["translate"].margin
    assert np.abs(engine(Translate(tile=tile), image=image).images - whole).max() <= 1


def test_an_image_is_brought_to_the_channels_of_the_model_and_keeps_its_alpha():
    gray = np.random.default_rng(0).integers(0, 256, (20, 20, 1), np.uint8)
    engine = two_ways()
    expected = engine(Translate(), image=gray.repeat(3, axis=2)).images
    assert expected.shape == (1, 20, 20, 3)
    with_alpha = np.concatenate([gray, gray // 2], axis=2)
    assert np.array_equal(engine(Translate(), image=gray).images, expected)
    deep = gray // 2 * np.uint16(257) + np.uint16(129)  # that is rounded up
    brighter = engine(Translate(), image=gray // 2 + 1).images
    assert np.array_equal(engine(Translate(), image=deep).images, brighter)
    made = engine(Translate(), image=with_alpha).images
    assert np.array_equal(made, np.concatenate([expected, gray[None] // 2], axis=3))
    for image, channels in ((gray, 3), (deep, 3), (with_alpha, 4)):
        pixel = Translate().pixel(engine.abilities["translate"], {"image": image})
        assert (pixel.dtype, pixel.shape) == (np.uint8, (1, 1, channels))


def test_a_mask_is_taken_as_it_was_learnt_and_one_of_other_colours_is_refused():
    """Gray ones have numbers of classes, in training too."""
    recipe = recipes.named("pix2pix").resolve({"mask": ("sky", "sea", "land")})
    assert recipe.classes == ("sky", "sea", "land")
    recipe = tiny("pix2pix").override(["classes=[sky, sea, land]"])
    engine = Engine(recipe, {name: n.eval() for name, n in recipe.networks().items()})
    numbers = np.random.default_rng(0).choice([0, 1, 2, 255], (16, 16)).astype(np.uint8)
    made = engine(Translate(), image=masks.palette()[numbers]).images
    (shown,) = recipe.sides({"mask": torch.from_numpy(numbers).long()[None], "image": None})[:1]
    with torch.no_grad():
        expected = to_bytes_range(recipe.forth(engine.networks)(shown))[0].permute(1, 2, 0)
    assert np.abs(made[0].astype(int) - expected.numpy()).max() <= 1
    assert np.array_equal(engine(Translate(), image=numbers[..., None]).images, made)
    alpha = np.full((16, 16, 1), 9, np.uint8)
    with_alpha = np.concatenate([masks.palette()[numbers], alpha], axis=2)
    assert np.array_equal(engine(Translate(), image=with_alpha).images, made)
    pixel = Translate().pixel(engine.abilities["translate"], {"image": with_alpha})
    assert pixel.shape == (1, 1, 3)
    other = masks.palette()[numbers]
    other[:8] = (200, 0, 0)
    for image, told in (
        (
            other,
            r"image: 50\.00% .* of none of the 3 classes .*, but #c80000; give a mask",
        ),
        (np.full((8, 8, 1), 3, np.uint8), "image: 100.* but 3; give"),
        (np.array([[[0], [255]]], np.uint8), r"image: 50\.00% .* but 255; give"),  # black and white
        (np.zeros((8, 8, 1), np.uint16), "image: masks have 8 bits"),
    ):
        with pytest.raises(InputError, match=told):
            engine(Translate(), image=image)


def test_what_translates_into_masks_takes_images_on_the_way_back():
    recipe = tiny("cyclegan", "task=masks").override(["classes=[sky, sea]"])
    engine = Engine(recipe, {name: n.eval() for name, n in recipe.networks().items()})
    photo = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    assert engine(Translate(back=True), image=photo).images.shape == (1, 16, 16, 3)
    with pytest.raises(InputError, match=r"are of none of the 2 classes .*, \.\.\.; give"):
        engine(Translate(), image=photo)


@pytest.mark.parametrize(
    ("name", "assignments", "told"),
    [
        ("pix2pix", ["data.size=8"], "data.size=8: pix2pix takes 12 or more"),
        ("pix2pix", ["data.channels=1"], "data.channels=1: with task=masks classes are told apart"),
        ("pix2pix", ["task=gray", "classes=[a, b]"], "only with task=masks"),
        ("pix2pix", ["task=folders"], "task='folders': "),
        ("pix2pix", ["model.network=edsr"], "model.network=edsr: enlarges, and a translation"),
        (
            "cyclegan",
            ["model.network=unet", "model.depth=5", "data.size=32", "train.batch_size=2"],
            "model.depth=5: of one image of 32 pixels a channel is left with one value",
        ),
        ("cyclegan", ["train.batch_size=7"], "train.batch_size=7: of each two images one is"),
        ("cyclegan", ["loss.kind=wasserstein"], "loss.kind='wasserstein'"),
        (
            "pix2pix",
            ["task=gray", "evaluation.segmenter=its"],
            "evaluation.segmenter=its: with task=gray there are no masks",
        ),
    ],
)
def test_what_cannot_be_learnt_is_refused_by_name(name, assignments, told):
    with pytest.raises(InputError, match=told):
        recipes.named(name).override(assignments)


def test_the_way_back_is_refused_of_models_that_know_none():
    with pytest.raises(InputError, match="back=true: this model has learnt one way only"):
        recipes.named("pix2pix").allow(Translate(back=True))
    recipes.named("cyclegan").allow(Translate(back=True))


def test_a_translators_resnet_starts_as_the_identity_and_a_unet_ends_between_black_and_white():
    images = 2 * torch.rand(4, 3, 19, 19) - 1
    torch.testing.assert_close(TranslatingResNet(8, 2, 1, 3, 0)(images), images)
    network = TranslatingUNet(8, 2, 3, 0)
    with torch.no_grad():
        network.tail.weight.mul_(100)
    assert network(images).abs().max() <= 1
