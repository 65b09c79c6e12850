"""What a sweep varies: which ranges are taken, and what is said of those that are not."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tiny_recipes import tiny

from genimg import recipes
from genimg.data.opening import open_dataset
from genimg.errors import InputError
from genimg.inference import Inference
from jobs.sweeps.records import Trial
from jobs.sweeps.report import divide, position
from jobs.sweeps.space import parse_space

DCGAN = recipes.named("dcgan")


def test_ranges_and_plain_overrides_are_told_apart():
    plain, space = parse_space(
        DCGAN,
        ["train.lr=loguniform(1e-4, 1e-2)", "train.images=1000", "loss.r1=choice(0, 0.1,1e-3)"],
    )
    assert plain == ["train.images=1000"]
    assert space["train.lr"].ends() == (1e-4, 1e-2)
    assert space["loss.r1"].ends() == (0, 0.1, 0.001)
    assert space["train.lr"].logarithmic
    assert not space["loss.r1"].logarithmic


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("model.latent=choice(8, 16, 8)", 2),
        ("model.latent=randint(8, 16)", 8),
        ("model.latent=lograndint(8, 16)", 8),
        ("train.lr=uniform(0.1, 0.2)", float("inf")),
        ("data.augment=choice(none, flip)", 2),
    ],
)
def test_the_number_of_values_is_known(text: str, size: float):
    _, space = parse_space(DCGAN, [text])
    (only,) = space.values()
    assert only.size == size


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        ([], "nothing varies; give at least one range"),
        (["train.lr=1e-3"], "nothing varies"),
        (["train.learning=loguniform(1e-4,1e-2)"], "unknown key 'train.learning'"),
        (["train.lr=loguniform(1e-2,1e-4)"], "the range is empty; give loguniform"),
        (["train.lr=uniform(0.1,0.1)"], "the range is empty"),
        (["model.latent=randint(8,8)"], "the range is empty"),
        (["train.lr=choice()"], "the range is empty; give choice"),
        (["train.lr=loguniform(0,1)"], "both above 0"),
        (["train.lr=loguniform(1e-4)"], r"give loguniform\(low, high\)"),
        (["train.lr=uniform(a,b)"], r"give uniform\(low, high\)"),
        (["model.latent=randint(1.5,8)"], "integers from low to high - 1"),
        (["train.lr=quniform(0.1,0.2,1)"], r"there is no quniform\(\); did you mean 'uniform'"),
        (["train.lr=uniform(0.1,0.2)", "train.lr=0.1"], "train.lr varies already"),
        (["data.source=choice(a,b)"], "give it with --data"),
        (["model.latent=choice([1,2],[3])"], "give numbers, words, true, false or null"),
        (["data.augment=choice(2020-01-01,flip)"], "give numbers, words, true, false or null"),
        (["train.seed=randint(0,100000000000000000000)"], "give integers of 64 bits"),
        (["train.lr=loguniforn(1e-4,1e-2)"], "did you mean 'loguniform'"),
        (["train.lr=uniform(-1,1)"], r"train.lr=uniform\(-1,1\): train.lr=-1.*greater than 0"),
        (["model.normalise=choice(true,7)"], r"choice\(true,7\): model.normalise=7: .* boolean"),
        (["model.latent=uniform(8,16.5)"], r"model.latent=uniform.*valid integer"),
        (["data.augment=choice(none,flop)"], "'none', 'flip' or 'dihedral'"),
        (["train.lr=choice([)"], "not a YAML value"),
        (
            ["model.conditional=choice(true,false)"],
            "may not vary: classes and words are read",
        ),
        (
            ["model.width=64", "model.network=choice(dcgan,modern)"],
            r"width=64: model.network varies, .* this vary too, as model.width=choice\(64\)",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(assignments: list[str], message: str):
    with pytest.raises(InputError, match=message):
        parse_space(DCGAN, assignments)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_what_trials_are_measured_by_is_the_same_for_all(name: str):
    recipe = recipes.named(name)
    yardstick = [key for key in list(recipe.keys()) if key.startswith(("data.", "evaluation."))]
    for key in ("data.augment", "data.translate", "data.augmentations"):
        yardstick.remove(key)
    assert len(yardstick) > 6
    for key in yardstick:
        with pytest.raises(InputError, match=rf"{key} may not vary: it decides .*; give it"):
            parse_space(recipe, [f"{key}=choice(1,2)"])


def test_likelihoods_of_other_things_are_not_compared():
    vae = recipes.named("conv-vae")
    for keys in (
        ["loss.likelihood=choice(gaussian,logistic-mixture)"],
        ["loss.likelihood=bernoulli", "loss.binarise=choice(none,dynamic)"],
    ):
        with pytest.raises(InputError, match=r"may not vary: it decides how elbo is measured"):
            parse_space(vae, keys)
        parse_space(vae, ["evaluation.judge=its", *keys])


def test_another_network_is_told_the_classes_too():
    """Which those of all networks know; all else of it is its own."""
    base = DCGAN.override(["model.conditional=true", "model.latent=8"])
    base = base.resolve({"label": ("cat", "dog")}, (0.25, 0.75))
    model = Trial.of({"model.network": "mlp"}).recipe(base).model
    assert (model.network, model.latent, model.conditional) == ("mlp", 100, True)
    assert (model.classes, model.shares) == (("cat", "dog"), (0.25, 0.75))
    assert recipes.named("biggan-small").override(["model.network=modern"]).model.conditional


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_nothing_else_decides_a_metric(name: str):
    """The same networks measure the same whatever they were trained with."""
    recipe = tiny(name)
    torch.manual_seed(0)
    networks = {key: network.eval() for key, network in recipe.networks().items()}
    inference = Inference(networks)
    _, held_out = open_dataset(recipe.data, recipe.wants).hold_out(recipe.data.holdout)
    expected = recipe.evaluate(inference, held_out)
    others = {
        "data.augment": "flip", "train.images": 96, "train.lr": 0.5, "train.seed": 9,
        "train.batch_size": 4, "train.precision": "bfloat16", "loss.r1": 7, "loss.beta": 7,
        "loss.label_smoothing": 0.5, "noise.low": 10, "noise.high": 12, "train.ema_half_life": 1,
    }  # fmt: skip
    if name == "draw":  # of texts that would not be true any more
        del others["data.augment"]
    mine = [f"{key}={value}" for key, value in others.items() if key in set(recipe.keys())]
    assert recipe.override(mine).evaluate(inference, held_out) == expected


@given(low=st.floats(1e-6, 1e-3), factor=st.floats(1.01, 1e3), seed=st.integers(0, 2**31))
def test_drawn_values_lie_in_their_range_and_make_valid_recipes(low, factor, seed):
    import numpy as np

    _, space = parse_space(DCGAN, [f"train.lr=loguniform({low!r},{low * factor!r})"])
    value = space["train.lr"].domain().sample(random_state=np.random.RandomState(seed))
    assert low * (1 - 1e-9) <= value <= low * factor * (1 + 1e-9)
    assert DCGAN.override([f"train.lr={value!r}"]).train.lr == value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("train.lr=loguniform(1e-5,0.1)", ["1e-05", "0.0001", "0.001", "0.01", "0.1"]),
        ("train.lr=loguniform(5e-4,5e-3)", ["0.0005", "0.001", "0.002", "0.005"]),
        ("train.lr=loguniform(0.0012,0.0019)", ["0.0012", "0.0019"]),
        ("train.lr=loguniform(1e-9,1)", ["1e-09", "1e-07", "1e-05", "0.001", "0.1"]),
        ("model.width=randint(16,20)", ["16", "17", "18", "19"]),
        ("train.batch_size=choice(16,32,64,256)", ["16", "32", "64", "256"]),
        ("loss.kind=choice(logistic,hinge,least-squares)", ["logistic", "hinge", "least-squares"]),
        ("loss.beta1=uniform(0.0001,0.0009)", None),
        ("train.ema_half_life=randint(10000,100000)", None),
    ],
)
def test_ticks_of_a_sweeps_picture_are_apart(text, shown):
    """In a panel of the size that they have there."""
    _, space = parse_space(DCGAN, [text])
    (values,) = space.values()
    figure = Figure(figsize=(2.9, 3.2), dpi=110)
    axis = figure.subplots()
    axis.tick_params(labelsize="small")
    divide(axis, values)
    FigureCanvasAgg(figure).draw()
    low, high = axis.get_xlim()
    labels = [each for each in axis.get_xticklabels() if low <= each.get_position()[0] <= high]
    if shown:
        assert [each.get_text() for each in labels] == shown
    boxes = [each.get_window_extent() for each in labels]
    assert len(boxes) > 1
    if not axis.xaxis.get_tick_params().get("labelrotation"):
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_a_choice_lies_where_it_is_declared():
    _, space = parse_space(DCGAN, ["model.width=choice(32,16,64)"])
    assert [position(space["model.width"], value) for value in (16, 64)] == [1, 2]
