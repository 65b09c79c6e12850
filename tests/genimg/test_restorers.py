"""Recipes of restorers: what they undo, what their networks are told, how they are judged."""

import csv
import io
import math
import re

import numpy as np
import pytest
import torch
from tiny_recipes import tiny

from genimg import recipes, rng
from genimg.contracts import Batch
from genimg.data.opening import open_dataset
from genimg.degradations import degrade
from genimg.engine import Engine
from genimg.errors import InputError
from genimg.inference import Inference, to_floats
from genimg.metrics.fidelity import EXACT, psnr, ssim
from genimg.operations import OPERATIONS
from genimg.pixels import to_bytes_range
from genimg.recipes.looked import Looked
from genimg.recipes.report import report, sheet_of
from genimg.recipes.restorer import Restorer
from genimg.recipes.restoring import enlarged, maps_of, pair_of
from genimg.training.sync import Alone

CPU = torch.device("cpu")
NAMES = ["restorer", "deblocker", "deblurrer", "enhancer", "colouriser", "inpainter", "upscaler"]


def opened(recipe: Restorer):
    return open_dataset(recipe.data, recipe.wants, "test")


@pytest.mark.parametrize("name", NAMES)
def test_an_untrained_restorer_scores_as_the_damage_does(name):
    """All begin as the identity, as an interpolation, or as a smooth guess of what is missing."""
    recipe = tiny(name, "evaluation.images=4")
    inference = Inference(recipe.networks())
    found = report(recipe, inference, opened(recipe))
    model, damaged = (found.scores[who].values for who in ("model", "damaged"))
    if name == "restorer":  # as it stands beside checkpoints
        assert recipe.baseline(inference, opened(recipe)) == recipe.summary(
            found.scores["damaged"].means()
        )
    assert model.shape == (4, 2 * len(recipe.tests()))
    if name == "upscaler":  # bilinear, beside bicubic
        assert (model[:, 0] - damaged[:, 0]).abs().max() < 3
    elif name == "inpainter":
        assert (model[:, ::2] - damaged[:, ::2]).min() > 0
    else:
        torch.testing.assert_close(model, damaged)


@pytest.mark.parametrize("name", NAMES)
def test_training_brings_them_nearer(name):
    recipe = tiny(name, "train.lr=3e-3", "train.warmup=0", "train.images=6400")
    torch.manual_seed(0)
    method = recipe.method(CPU)
    data = opened(recipe)
    keys = torch.arange(8)
    images = to_floats(data.fetch(keys.numpy(), keys)["image"], CPU)
    steps = 100 if name == "inpainter" else 40  # which begins with a good guess
    losses = [
        float(method.update(Batch({"image": images}, keys, 8), Alone())["loss"])
        for _ in range(steps)
    ]
    assert losses[-1] < 0.94 * losses[0]


def test_scores_are_those_of_whole_images_as_they_are_damaged():
    recipe = tiny("deblocker", "evaluation.images=4")
    data = opened(recipe)
    scores = recipe.measure(Inference(recipe.networks()), data)
    assert scores.names[:2] == ("psnr_q10", "ssim_q10")
    for row, index in zip(scores.values, scores.indices, strict=True):
        clean = data.whole(int(index))["image"][None]
        keys = torch.tensor([int(index)])
        made = degrade(recipe.tests()["q10"], to_floats(clean, CPU), rng.fold(0, keys))
        pixels = to_bytes_range(made.images)
        expected = torch.stack([psnr(pixels, clean), ssim(pixels, clean)], dim=1)
        torch.testing.assert_close(row[None, :2], expected)


def test_an_inpainter_is_judged_by_what_it_fills():
    recipe = tiny("inpainter", "evaluation.images=4")
    networks = recipe.networks()
    with torch.no_grad():
        networks["restorer"].network.tail.weight.normal_()  # it changes everything
    data = opened(recipe)
    inference = Inference(networks)
    pair = pair_of([data.whole(0)])
    damaged, clean = recipe.damaged(inference, torch.tensor([0]), pair, "half")
    made = recipe.restored(inference, damaged)
    holes = (damaged.tells["mask"] > 0).expand_as(made)
    assert torch.equal(made[~holes], clean[~holes])
    assert not torch.equal(made[holes], clean[holes])


def test_more_measures_are_told_of_each_damage():
    recipe = tiny("deblocker", "data.channels=1", "data.size=24", "evaluation.more=[psnr_b]")
    metrics = recipe.evaluate(Inference(recipe.networks()), opened(recipe))
    assert list(metrics)[:4] == ["psnr", "psnr_q10", "ssim_q10", "psnr_b_q10"]
    assert metrics["psnr_b_q10"] < metrics["psnr_q10"] - 0.5  # its blocks are counted
    assert "psnr_b" in recipe.protocol(opened(recipe))["method"]


def test_an_image_too_small_to_be_judged_is_named_before_any_is_restored():
    recipe = tiny("deblocker", "evaluation.more=[ms_ssim]")
    with pytest.raises(InputError, match="is of 16x16 pixels; psnr, ssim, ms_ssim"):
        recipe.measure(Inference(recipe.networks()), opened(recipe), lambda *_: None)
    looked = Looked(1, border=4)  # 11 + 8 pixels, and multiples of the scale
    looked.refuse_smaller("b.png", 20, 50, 4)
    with pytest.raises(InputError, match=r"^b.png is of 50x19 pixels; .* need 20x20 or more"):
        looked.refuse_smaller("b.png", 19, 50, 4)


def test_an_upscaler_is_judged_by_luma_without_the_border():
    recipe = tiny("upscaler", "evaluation.images=2")
    inference = Inference(recipe.networks())
    data = opened(recipe)
    scores = report(recipe, inference, data).scores["damaged"]
    index = scores.indices[:1]
    pair = pair_of([data.whole(int(index))])
    damaged, truth = recipe.damaged(inference, index, pair, "shrunk")
    made = to_bytes_range(enlarged(damaged.images, 2))
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64).view(3, 1, 1)
    y = [((each.double() / 255 * weights).sum(dim=1) + 16).round() for each in (made, truth)]
    error = (y[0] - y[1])[..., 2:-2, 2:-2].square().mean()
    assert float(scores.values[0, 0]) == pytest.approx(
        10 * np.log10(255**2 / float(error)), abs=1e-6
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_model_does_the_task_of_its_recipe(engines, name):
    engine = engines[name]
    recipe = recipes.named(name)
    assert list(engine.abilities) == [recipe.task]
    operation = OPERATIONS[recipe.task]
    image = np.random.default_rng(0).integers(0, 256, (23, 37, 3), np.uint8)
    inputs = {"image": image}
    if recipe.task == "inpaint":
        mask = np.zeros((23, 37, 1), np.uint8)
        mask[5:9, 5:30] = 255
        inputs["mask"] = mask
    made = engine(operation(), **inputs).images[0]
    scale = engine.abilities[recipe.task].scale
    assert made.shape == (23 * scale, 37 * scale, 3)
    if recipe.task == "inpaint":
        assert np.array_equal(made[mask[..., 0] == 0], image[mask[..., 0] == 0])
    ensemble = engine(operation(ensemble=True), **inputs).images[0]
    assert ensemble.shape == made.shape


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2])
def test_gray_images_come_back_in_colour(channels, kind):
    recipe = tiny("colouriser")
    networks = recipe.networks()
    torch.nn.init.normal_(networks["restorer"].tail.weight)
    engine = Engine(recipe, networks)
    most = np.iinfo(kind).max
    image = np.random.default_rng(0).integers(0, most, (9, 7, channels), kind, endpoint=True)
    made = engine(OPERATIONS["colourise"](), image=image).only()
    assert made.dtype == np.uint8
    assert made.shape == (9, 7, channels + 2)
    assert made[..., :3].std(axis=2).mean() > 1
    given = engine(OPERATIONS["colourise"](strength=0), image=image).only()
    assert np.abs(given[..., 2:] - image / (most / 255)).max() <= 0.5


def test_holes_are_filled_by_gated_convolutions_too():
    recipe = tiny("inpainter", "model.network=gated", "evaluation.images=2")
    method = recipe.method(CPU)
    keys = torch.arange(8)
    data = opened(recipe)
    images = to_floats(data.fetch(keys.numpy(), keys)["image"], CPU)
    for _ in range(2):
        assert method.update(Batch({"image": images}, keys, 8), Alone())["loss"] > 0
    assert "psnr_half" in recipe.evaluate(Inference(method.averages), data)


def test_what_a_network_is_told_are_maps():
    rows = {
        "image": torch.zeros(2, 3, 4, 5),
        "sigma": torch.tensor([0.0, 51.0]),
        "quality": torch.tensor([100.0, 10.0]),
        "mask": torch.ones(2, 4, 5, dtype=torch.int64),
    }
    maps = maps_of(rows, ("sigma", "quality", "mask"))
    assert maps.shape == (2, 3, 4, 5)
    assert maps[:, :, 3, 4].tolist() == [[0, 0, 1], [pytest.approx(0.2), pytest.approx(0.9), 1]]
    assert maps_of(rows, ()).shape == (2, 0, 4, 5)


def test_a_restorer_that_must_be_told_the_quality_refuses_to_guess():
    recipe = tiny("deblocker", "tells=[quality]")
    engine = Engine(recipe, recipe.networks())
    image = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(InputError, match="quality is missing; this model must be told"):
        engine(OPERATIONS["deblock"](), image=image)
    assert engine(OPERATIONS["deblock"](quality=10), image=image).images.shape == (1, 16, 16, 3)
    blind = tiny("deblocker")
    with pytest.raises(InputError, match="quality=10: this deblocker takes no quality"):
        Engine(blind, blind.networks())(OPERATIONS["deblock"](quality=10), image=image)


@pytest.mark.parametrize(
    ("name", "overrides", "told"),
    [
        ("deblocker", ["degradations=[]"], "nothing to undo; list some, or set pairs=true"),
        ("deblocker", ["task=upscale"], "task=upscale: enlarges by 1"),
        ("upscaler", ["degradations=[{kind: shrink, scale: 3}]"], "shrinks by 2, others by 3"),
        ("upscaler", ["model.network=drunet"], "model.network=drunet: enlarges by 1, and"),
        ("deblocker", ["tells=[sigma]"], "degradations: nothing in it tells sigma"),
        ("deblocker", ["model.network=nafnt"], "model.network='nafnt': did you mean 'nafnet'"),
        ("deblocker", ["model.blocks=x"], "model.blocks='x': input should be a valid integer"),
        ("deblurrer", ["model.blocks=3"], "unknown key 'model.blocks'"),
        ("deblurrer", ["model.encoder=[1]"], r"encoder=\[1\]: has 1 levels, and decoder 3"),
        ("deblocker", ["degradations=[{kind: jpg}]"], "kind"),
        ("deblocker", ["degradations=[{kind: jpeg, lo: 3}]"], "lo"),
        ("deblocker", ["evaluation.tests={}"], "evaluation.tests"),
        ("colouriser", ["data.channels=1"], "task=colourise: gray images have no colours; set"),
        ("deblocker", ["evaluation.more=[psnr_b]"], "is of gray images"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(name, overrides, told):
    with pytest.raises(InputError, match=told):
        recipes.named(name).override(overrides)


def test_another_network_comes_with_its_own_defaults():
    recipe = recipes.named("deblocker").override(["model.width=24", "model.network=nafnet"])
    assert recipe.model.model_dump() == {
        "network": "nafnet",
        "width": 24,
        "encoder": (1, 1, 1),
        "middle": 1,
        "decoder": (1, 1, 1),
    }
    assert recipes.from_json(recipe.model_dump_json()) == recipe
    same = recipes.named("deblocker").override(["model.network=plain"])
    assert same == recipes.named("deblocker")
    assert "model.encoder" in dict(recipe.keys())


def test_a_report_has_a_line_an_image_and_the_worst_and_the_best():
    recipe = tiny("inpainter", "evaluation.images=8")
    inference = Inference(recipe.networks())
    data = opened(recipe)
    made = report(recipe, inference, data, classical=True)
    assert list(made.scores) == ["model", "damaged", "biharmonic", "linear"]
    lines = list(csv.DictReader(io.StringIO(made.csv())))
    assert len(lines) == 8
    assert [line["image"] for line in lines] == made.names
    means = made.means()
    for who, suffix in (("model", ""), ("linear", "_linear")):
        values = [float(line[f"psnr_half{suffix}"]) for line in lines]
        assert np.mean(values) == pytest.approx(means[who]["psnr_half"], rel=1e-4)
    assert means["linear"]["psnr_half"] > means["damaged"]["psnr_half"] + 3
    picture = sheet_of(recipe, inference, data, made.scores["model"])
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3


def test_classical_methods_are_asked_only_for_what_they_undo():
    recipe = tiny("restorer", "evaluation.images=2")
    made = report(recipe, Inference(recipe.networks()), opened(recipe), classical=False)
    assert set(made.means()) == {"model", "damaged"}
    assert "psnr_jpeg" in made.means()["damaged"]


NOISY = ["degradations=[{kind: noise}]", "evaluation.tests={a: [{kind: noise}]}"]


@pytest.mark.parametrize(
    ("name", "overrides", "told"),
    [
        ("restorer", ["tells=[sigma]", *NOISY], "sigma: task=restore can be told nothing"),
        ("deblurrer", ["tells=[sigma]", *NOISY], "sigma: task=deblur can be told nothing"),
        (
            "restorer",
            ["task=denoise", "tells=[sigma,sigma]", *NOISY],
            "denoise may be told sigma, once",
        ),
        ("inpainter", ["pairs=true", "evaluation.tests={a: []}"], "a: nothing in it tells mask"),
        ("upscaler", ["pairs=true", "evaluation.tests={a: []}"], "a: shrinks by 1, others by 2"),
    ],
)
def test_what_could_not_be_done_with_a_model_is_refused_before_it_is_trained(name, overrides, told):
    with pytest.raises(InputError, match=re.escape(told)):
        tiny(name, *overrides)


def test_a_kind_of_damage_may_stand_alone():
    short = tiny("restorer", "degradations=[noise, {kind: jpeg, low: 5}]")
    assert short == tiny("restorer", "degradations=[{kind: noise}, {kind: jpeg, low: 5}]")
    with pytest.raises(InputError, match="kind='nois': did you mean 'noise'"):
        tiny("restorer", "degradations=[nois]")


def test_pairs_alone_are_judged_as_they_come():
    recipe = tiny("restorer", "degradations=[]", "pairs=true")
    assert recipe.tests() == {"pairs": ()}
    assert "evaluation.tests" in recipe.idle()
    assert tiny("restorer", "pairs=true").tests() == tiny("restorer").tests()


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_as_many_pixels_are_cut_off_as_an_image_is_enlarged_by(scale):
    shrinks = f"[{{kind: shrink, scale: {scale}}}]"
    every = ["data.size=96", f"degradations={shrinks}", f"evaluation.tests={{x: {shrinks}}}"]
    upscaler = recipes.named("upscaler").override(every)
    assert upscaler.looked.border == scale
    assert upscaler.override(["evaluation.border=0"]).looked.border == 0
    assert recipes.named("deblocker").looked.border == 0


def test_an_image_that_is_restored_exactly_leaves_means_finite():
    looked = Looked(images=4, more=("psnr_b",))
    clean = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    made = clean.clone()
    made[1, 0, 5, 5] ^= 1
    exact, nearly = looked.compared(made, clean).unbind()
    assert exact[:2].tolist() == [EXACT, 1.0]
    assert nearly[0] == pytest.approx(10 * math.log10(255**2 * 32 * 32))
