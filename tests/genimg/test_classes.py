"""Models that draw by class: the label changes the image and nothing else; what none means."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from engine_calls import sample
from tiny_recipes import tiny
from training_steps import batch_at, started

from genimg import recipes
from genimg.data.opening import frequencies, open_dataset, told_by
from genimg.engine import Engine
from genimg.errors import InputError
from genimg.images import encode, save
from genimg.inference import Inference, classes_of, latents
from genimg.models.dcgan import Discriminator
from genimg.operations.drawing import Decode, Interpolate, Sample
from genimg.pixels import to_bytes_range
from genimg.training.sync import Alone
from genimg.ways import spherical

FAMILIES = ("dcgan", "sngan", "r3gan", "progan", "stylegan", "flow", "conv-vae", "hvae", "vq-vae")
QUICK = ("dcgan", "stylegan", "flow", "conv-vae", "vq-vae")  # the others are slow
QUICK_FIRST = [
    pytest.param(family, marks=() if family in QUICK else pytest.mark.slow) for family in FAMILIES
]
every_family = pytest.mark.parametrize("family", QUICK_FIRST)
NUMBERS = torch.arange(4000)


@pytest.fixture(params=QUICK_FIRST)
def engine(engines, request) -> Engine:
    return engines[f"{request.param}-by-class"]


def test_the_label_changes_the_image_and_the_same_label_gives_the_same(engine):
    cross, disc = (sample(engine, 6, label=label) for label in ("cross", "disc"))
    assert all(not np.array_equal(one, other) for one, other in zip(cross, disc, strict=True))
    assert np.array_equal(cross, sample(engine, 6, label="cross"))
    for label in ("cross=1", "cross=0.2", "cross=1,cross=2"):
        assert np.array_equal(cross, sample(engine, 6, label=label))
    mixed = sample(engine, 6, label="cross=0.5,disc=0.5")
    assert np.array_equal(mixed, sample(engine, 6, label="disc=2,cross=2"))
    assert not np.array_equal(mixed, cross)


def test_without_a_label_each_image_is_of_the_class_that_its_seed_draws(engine):
    classes = engine.abilities["sample"].classes
    made = engine(Sample(n=12, seed=5))
    for number in range(12):
        alone = engine(Sample(seed=5 + number))
        told = engine(Sample(seed=5 + number, label=made.labels[number]))
        assert alone.labels == told.labels == (made.labels[number],)
        assert np.array_equal(alone.images[0], made.images[number])
        assert np.array_equal(told.images[0], made.images[number])
    assert set(made.labels) <= set(classes)
    assert engine(Sample(n=2, label="disc")).labels == ("disc", "disc")


def test_seeds_draw_all_classes_alike_and_say_nothing_of_their_latents():
    drawn = classes_of(NUMBERS, 8)
    counts = torch.bincount(drawn, minlength=8)
    assert len(counts) == 8
    assert (counts - 500).abs().max() < 5 * 500**0.5
    means = torch.stack([latents(NUMBERS[drawn == kind], 4).mean(dim=0) for kind in range(8)])
    assert means.abs().max() < 5 / 400**0.5
    assert torch.equal(classes_of(NUMBERS[7:9], 8), drawn[7:9])


def test_a_class_of_few_among_millions_has_its_share_and_one_of_none_has_none():
    assert frequencies(np.array([7, 7, 7])) == ()
    assert frequencies(np.array([2, 1])) == (0.666667, 0.333333)
    many, few, none = frequencies(np.array([10_000_000, 4, 0]))
    assert few == pytest.approx(4e-7, rel=1e-5)
    assert many == pytest.approx(1, abs=1e-6)
    assert none == 0


def test_seeds_draw_classes_by_their_shares():
    shares = (0.5, 0.0, 0.3, 0.2)
    drawn = classes_of(NUMBERS, 4, shares)
    counts = torch.bincount(drawn, minlength=4)
    assert counts[1] == 0
    assert (counts - 4000 * torch.tensor(shares)).abs().max() < 5 * 1000**0.5
    assert torch.equal(classes_of(NUMBERS[7:9], 4, shares), drawn[7:9])
    assert torch.equal(classes_of(NUMBERS, 4, [10 * share for share in shares]), drawn)


@pytest.mark.parametrize("form", ["folder", "shards"])
def test_classes_are_drawn_as_often_as_the_data_has_them(form, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8)
    labels = [int(number % 6 > 0) for number in range(60)]
    source = tmp_path / "set"
    for number, (each, label) in enumerate(zip(pixels, labels, strict=True)):
        path = source / ("rare", "usual")[label] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save(each, path)
    if form == "shards":
        source = tmp_path / "set.parquet"
        table = {"image": [encode(each) for each in pixels], "label": labels}
        pq.write_table(pa.table(table), source, row_group_size=7)
    recipe = recipes.named("conv-vae").override(
        ["model.conditional=true", f"data.source={source}", "data.size=8", "data.holdout=16"]
    )
    recipe = recipe.resolve(*told_by(recipe.data, recipe.wants))
    assert recipe.model.shares == pytest.approx((1 / 6, 5 / 6), abs=1e-6)
    networks = {name: each.eval() for name, each in recipe.networks().items()}
    engine = Engine(recipe, networks, "float32")
    made = engine(Sample(n=300, seed=0))
    assert 20 < made.labels.count(recipe.model.classes[0]) < 80  # 50 are expected
    judged = recipe.generated(engine.inference, range(300)).permute(0, 2, 3, 1)
    assert np.array_equal(judged.numpy(), made.images)


def test_shares_are_of_classes_that_are_named():
    with pytest.raises(InputError, match=r"model.shares=\[1.0\]: give one for each of model.class"):
        recipes.named("flow").override(["model.conditional=true", "model.shares=[1]"])


def test_classes_that_the_data_does_not_show_are_drawn_only_if_asked_for():
    """Data whose classes are numbered may show fewer than are named."""
    named = recipes.named("flow").override(["model.conditional=true", "model.classes=[a, b, c]"])
    theirs = {"label": ("0", "1")}
    assert named.resolve(theirs).model.shares == ()
    for shares, expected in (((0.25, 0.75), (0.25, 0.75, 0)), ((), (1, 1, 0))):
        resolved = named.resolve(theirs, shares)
        assert resolved.model.shares == expected
        assert recipes.from_json(resolved.model_dump_json()) == resolved  # as on a worker
        assert resolved.resolve(theirs) == resolved  # where it is judged
        drawn = classes_of(NUMBERS, 3, resolved.model.shares)
        assert set(drawn.tolist()) == {0, 1}


def test_plans_of_several_labels_share_a_pass(engine):
    asked = [Sample(n=n, seed=9 * n, label=label) for n, label in enumerate(
        (None, "disc", "cross=1,disc=3", None), 1)]  # fmt: skip
    plans = [engine.plan(operation) for operation in asked]
    assert len({plan.lap(0)[0] for plan in plans}) == 1
    engine.compute("sample", [(plan, 0, plan.count) for plan in plans])
    for operation, plan in zip(asked, plans, strict=True):
        assert np.array_equal(plan.result().images, engine(operation).images)


def test_steps_and_guidance_are_of_a_pass_of_their_own(engines):
    engine = engines["flow-by-class"]
    options = [{}, {"steps": 3}, {"steps": 4}, {"guidance": 3.0}, {"steps": 3, "guidance": 3.0}]
    plans = [engine.plan(Sample(n=3, seed=2, **each)) for each in options]
    assert len({plan.lap(0)[0] for plan in plans}) == len(options)
    made = [plan.result().images for plan in engine.run("sample", plans)]
    for each, images in zip(options, made, strict=True):
        assert np.array_equal(images, sample(engine, 3, seed=2, **each))
        alone = [sample(engine, 1, seed=2 + number, **each)[0] for number in range(3)]
        assert np.array_equal(images, np.stack(alone))
    assert len({images.tobytes() for images in made}) == len(options)
    sampler = engine.recipe.sampler
    usual = sample(engine, 3, seed=2, steps=sampler.steps, guidance=sampler.guidance)
    assert np.array_equal(usual, made[0])
    with pytest.raises(InputError, match=r"guidance=2.0: this flow takes no guidance"):
        engines["flow"](Sample(guidance=2.0))


def test_a_way_goes_from_class_to_class_or_stays_in_one(engine):
    ends = sample(engine, 2, seed=3)
    made = engine(Interpolate(seed=3, frames=5)).images
    assert np.abs(made[[0, -1]].astype(int) - ends).max() <= 1
    one, other = latents(torch.tensor([3, 4]), engine.recipe.latent)
    middle = spherical(one[None], other[None], torch.tensor([[0.5]])).numpy()
    stays = engine(Interpolate(seed=3, frames=3, label="disc")).images
    assert np.abs(stays[1].astype(int) - decode(engine, middle, label="disc")[0]).max() <= 1


def decode(engine: Engine, rows: np.ndarray, **options) -> np.ndarray:
    return engine(Decode(**options), latents=rows).images


def test_latents_are_decoded_as_a_class_or_as_none_in_particular(engine):
    rows = latents(torch.arange(3), engine.recipe.latent).numpy()
    assert np.array_equal(decode(engine, rows, label="disc"), sample(engine, 3, label="disc"))
    assert engine(Decode(label="disc"), latents=rows).labels == ("disc",) * 3
    plain = engine(Decode(), latents=rows)
    assert plain.labels == ()
    network = next(iter(engine.networks.values()))
    assert not network.training
    nothing = {"latent": torch.from_numpy(rows), "classes": torch.zeros(3, 8)}
    made = to_bytes_range(engine.rows("decode", nothing)["image"]).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(plain.images, made)


@pytest.mark.parametrize("operation", [Sample, Interpolate])
def test_unknown_classes_are_refused_with_the_nearest(engine, operation):
    with pytest.raises(
        InputError, match=r"label='dsic': unknown class 'dsic'; did you mean 'disc'"
    ):
        engine(operation(label="dsic"))


@every_family
def test_classes_come_from_the_data_which_must_have_labels(family, tmp_path):
    recipe = recipes.named(family).override(["model.conditional=true"])
    assert recipe.wants == ("image", "label")
    assert recipe.resolve({"label": ("cat", "dog")}).model.classes == ("cat", "dog")
    plain = recipes.named(family)
    assert plain.wants == ("image",)
    assert plain.resolve({"label": ("cat", "dog")}) == plain
    with pytest.raises(InputError, match=r"model.classes=\['cat'\]: only with model.conditional"):
        plain.override(["model.classes=[cat]"])
    with pytest.raises(InputError, match=r"model\.classes=\['cat', 'dog'\] but the data has"):
        recipe.override(["model.classes=[cat, dog]"]).resolve({"label": ("owl", "dog")})


@every_family
def test_a_preview_has_a_row_a_class_of_the_same_latents(family):
    recipe = tiny(family, "model.conditional=true")
    data = open_dataset(recipe.data, recipe.wants, "test")
    torch.manual_seed(0)
    networks = {name: network.eval() for name, network in recipe.networks().items()}
    inference = Inference(networks)
    images, columns = recipe.preview(inference, data)
    assert images.shape == (8 * columns, 3, 16, 16)
    for number in range(8):
        row = recipe.generated(inference, range(columns), number).float() / 127.5 - 1
        torch.testing.assert_close(images[number * columns : (number + 1) * columns], row)


@every_family
def test_the_label_of_an_image_is_what_its_network_is_told_in_training(family):
    """Another label, and the step is another; but not for a network that is told nothing."""
    for conditional in (True, False):
        recipe = tiny(family, f"model.conditional={conditional}", "train.precision=float32")
        batch, moved = batch_at(tiny(family, "model.conditional=true"), 0), []
        for turn in range(2):
            method = started(recipe)
            first = next(iter(method.networks.values()))
            network = method.networks.get("prior", first)  # what is told, of a vq-vae
            for parameter in network.parameters():
                parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
            batch.rows["label"] = (batch.rows["label"] + turn) % 8
            method.learn(batch, Alone())
            learnt = [p.grad for p in network.parameters() if p.grad is not None]
            moved.append([gradient.clone() for gradient in learnt])
        same = all(torch.equal(one, other) for one, other in zip(*moved, strict=True))
        assert same is not conditional


def test_a_discriminator_projects_features_on_the_direction_of_the_class():
    torch.manual_seed(0)
    network, plain = Discriminator(4, 16, 3, 0, 5), Discriminator(4, 16, 3, 0)
    plain.load_state_dict(
        {key: each for key, each in network.state_dict().items() if "directions" not in key}
    )
    images, classes = torch.randn(5, 3, 16, 16), torch.eye(5)
    features = network.body(images)
    expected = [
        plain(images[i : i + 1])[0]
        + (network.directions.weight[:, i, None, None] * features[i]).sum()
        for i in range(5)
    ]
    torch.testing.assert_close(network(images, classes), torch.stack(expected))
