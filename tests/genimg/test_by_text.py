"""Models that draw by text, of every family: what they learn from, and what they are asked."""

import json

import numpy as np
import pytest
import torch
from annotated_folders import picture, sharded, write
from tiny_recipes import tiny
from training_steps import batch_at, lost_by_resuming, started, trained

from genimg import images
from genimg.contracts import Ability
from genimg.data.augment import varied as seen_as
from genimg.data.captioned import KINDS, Captioned, relation
from genimg.data.grammar import read
from genimg.data.opening import told_by
from genimg.data.sources import open_source
from genimg.engine import Engine
from genimg.errors import InputError
from genimg.operations.drawing import Decode, Interpolate, Sample
from genimg.operations.exploring import Vary
from genimg.texts import tokens_of
from genimg.training.autoencoding import UNTOLD
from genimg.training.method import told, untold

SCENES = ("model.text=true", "data.scenes=captioned")
TEXT, OTHER = "a red disc left of a blue star", "A blue star left of a red disc."
every_family = pytest.mark.parametrize(
    "name", ["flow", "dcgan", "sngan", "r3gan", "mlp-gan", "progan", "stylegan", "conv-vae", "hvae"]
)


def painter(name: str, *overrides: str) -> Engine:
    """An engine whose networks do something, also those whose last layers are zero at first."""
    recipe = tiny(name, *SCENES, "train.precision=float32", *overrides)
    torch.manual_seed(0)
    networks = recipe.networks()
    for network in networks.values():
        for parameter in network.parameters():
            if parameter.dim() > 1 and parameter.std() < 0.03:
                torch.nn.init.normal_(parameter, std=0.3)
        network.eval()
    return Engine(recipe, networks)


@pytest.mark.parametrize("name", ["flow", "dcgan", "progan", "hvae"])
def test_its_words_are_learnt_with_the_rest(name):
    recipe = tiny(name, *SCENES, "train.warmup=0", "loss.drop=0.01")
    assert recipe.model.vocabulary == Captioned.classes["text"]
    method = started(recipe)
    before = method.snapshot().training
    trained(recipe, method, 4)
    after = method.snapshot().training
    for network in method.networks:
        names = [key for key in after if key.startswith(f"{network}.reader.")]
        assert names
        assert all(not torch.equal(before[key], after[key]) for key in names)


@pytest.mark.parametrize("name", ["flow", "dcgan", "conv-vae"])
def test_what_makes_the_outputs_learns_by_adam_beside_muon_and_words_do_not(name):
    recipe = tiny(name, *SCENES, "train.optimizer=muon")
    method = recipe.method(torch.device("cpu"))
    for kind, network in method.networks.items():
        by_adam = {id(each) for each in method.optimizers[kind].param_groups[1]["params"]}
        matrices = [(key, p) for key, p in network.named_parameters() if p.dim() >= 2]
        last = [key for key, p in matrices if not key.startswith("reader.")][-1]
        assert [key for key, p in matrices if id(p) in by_adam] == [last]


@pytest.mark.parametrize("name", ["flow", "dcgan", "conv-vae"])
def test_a_training_goes_on_bit_for_bit(name):
    assert lost_by_resuming(tiny(name, *SCENES), 2) == []


@every_family
def test_a_text_decides_what_is_drawn_whatever_is_drawn_beside_it(name):
    engine = painter(name)
    asked = Sample(n=3, seed=5, text=TEXT)
    made = engine(asked).images
    assert (engine(Sample(n=1, seed=6, text=TEXT)).images[0] == made[1]).all()
    assert (engine(Sample(n=3, seed=5, text=OTHER)).images != made).any()
    assert (engine(Sample(n=3, seed=5)).images != made).any()
    plans = [engine.plan(each) for each in (Sample(n=2, seed=5, text=OTHER), asked)]
    *_, last = engine.run("sample", plans)
    assert (last.result().images == made).all()


def test_whatever_draws_can_be_told_a_text():
    engine = painter("conv-vae")
    for operation in (
        Interpolate(seeds="1,2", frames=3, text=TEXT),
        Vary(of=3, seed=1, n=2, text=TEXT),
    ):
        plain = operation.model_copy(update={"text": None})
        assert (engine(operation).images != engine(plain).images).any()
    latents = torch.zeros(2, engine.abilities["decode"].latent).numpy()
    assert len(engine(Decode(text=TEXT), latents=latents).images) == 2


def test_guidance_leads_away_from_what_is_drawn_of_no_text():
    """And 1 is no guidance, as of one step of Euler's method by hand."""
    engine = painter("flow", "sampler.solver=euler")
    latent = torch.randn(2, 3 * 16 * 16)
    network = engine.networks["velocity"]
    noise = latent.unflatten(1, (3, 16, 16))
    with torch.no_grad():
        told = network.reader(tokens_of([TEXT] * 2))
        at = torch.zeros(2)
        towards, anywhere = (network(noise, at, each) for each in (told, torch.zeros_like(told)))
    for guidance in (1.0, 3.0):
        asked = Decode(text=TEXT, steps=1, guidance=guidance)
        made = engine(asked, latents=latent.numpy()).images
        expected = noise + anywhere + guidance * (towards - anywhere)
        expected = expected.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1)
        assert (made.astype(int) - expected.numpy()).__abs__().max() <= 1


def test_a_text_is_left_untold_as_often_as_asked_for_and_is_else_read():
    recipe = tiny("conv-vae", *SCENES, "loss.drop=0.25", "train.batch_size=400")
    method, batch = started(recipe), batch_at(recipe, 0)
    made = method.told(batch)
    none = (made == 0).all(dim=1)
    assert none.float().mean().item() == pytest.approx(0.25, abs=0.07)
    read = told(method.networks["autoencoder"], batch, 0)
    assert torch.equal(made[~none], read[~none])
    every = untold(torch.ones(400, 2, 3), batch.keys + UNTOLD, 0.5)
    assert set(every.flatten(1).sum(dim=1).tolist()) == {0.0, 6.0}


def test_a_vocabulary_is_that_of_captions_beside_images_and_in_shards(tmp_path):
    for number in range(6):
        write(tmp_path / "set" / f"{number}.png", images.encode(picture(number, 16, 16)))
    lines = [{"file_name": f"{n}.png", "text": f"A cat, no {n} dog"} for n in range(6)]
    told = "\n".join(map(json.dumps, lines))
    write(tmp_path / "set" / "captions.jsonl", told.encode())
    shard = sharded(open_source(str(tmp_path / "set")), tmp_path / "all.parquet")
    words = ("a", "cat", "dog", "no", "0", "1", "2", "3", "4", "5")
    for path in (tmp_path / "set", shard):
        data = tiny("flow").data.model_copy(update={"source": str(path), "holdout": 2})
        assert told_by(data, ("image", "text")).classes["text"] == words


def varied(kind: str) -> str:
    return f"data.augmentations=[{kind}]"


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("flow", ["model.text=true", "model.conditional=true"], "takes the place of classes"),
        ("flow", ["model.text=true", "loss.drop=0"], "of no text is never learnt"),
        ("flow", [*SCENES, "data.augment=flip"], "what is on the left"),
        (
            "flow",
            [*SCENES, varied("{kind: affine, rotate: 19}")],
            "rotate=19 and shear=0 turn what",
        ),
        ("flow", [*SCENES, varied("{kind: affine, shear: 28}")], "left of something, or above it"),
        ("flow", [*SCENES, varied("{kind: affine, zoom: [0.5, 1]}")], "shows objects twice"),
        ("flow", [*SCENES, varied("{kind: affine, translate: 0.3}")], "out of sight"),
        ("flow", [*SCENES, varied("{kind: perspective, corners: 0.2}")], "corners=0.2 turn"),
        ("flow", [*SCENES, varied("{kind: elastic, strength: 4}")], "strength=4 moves"),
        ("flow", [*SCENES, varied("{kind: cutout}")], "0: kind=cutout: it hides objects, and what"),
        ("flow", [*SCENES, varied("{kind: light, saturation: [0, 1]}")], "gray"),
        (
            "flow",
            [*SCENES, "data.translate=8"],
            "data.translate=8: objects .*; give 3 pixels or",
        ),
        (
            "flow",
            [*SCENES, "data.augmentations=[{kind: affine}, {kind: perspective}]"],
            "one after the other they turn what is left of .* by up to 21 degrees",
        ),
        (
            "flow",
            [*SCENES, "data.translate=2", varied("{kind: affine, rotate: 1, translate: 0.1}")],
            "data.translate=2 with data.augmentations: objects are shifted out of sight",
        ),
        ("flow", [*SCENES, "model.vocabulary=[a, Red]"], "model.vocabulary: 'Red' is never read"),
        ("flow", [*SCENES, "model.vocabulary=[light blue]"], "'light blue' is never read"),
        ("flow", ["model.vocabulary=[a]"], "only with model.text=true"),
        ("dcgan", [*SCENES, "loss.pack=2"], "or model.text"),
        ("vq-vae", ["model.text=true"], "unknown key 'model.text'"),
    ],
)
def test_what_cannot_be_is_refused(name, overrides, said):
    with pytest.raises(InputError, match=said):
        tiny(name, *overrides)


def test_a_word_that_it_does_not_know_and_a_model_that_takes_no_text_are_refused():
    engine = painter("mlp-gan")
    with pytest.raises(InputError, match=r"word 'purpel' .*: purple, "):
        engine(Sample(text="a purpel disc"))
    recipe = tiny("mlp-gan")
    with pytest.raises(InputError, match=r"^text='a red disc': this mlp-gan takes no text"):
        recipe.allow(Sample(text="a red disc"))


@pytest.mark.parametrize(
    "kind", ["{kind: affine, rotate: 18}", "{kind: perspective, corners: 0.16}"]
)
def test_variations_that_are_allowed_leave_true_what_texts_say(kind):
    """By where boxes are, of the very objects that a text tells of."""
    recipe = tiny("flow", *SCENES, varied(kind))
    wants = ("image", "text", "boxes")
    data = Captioned(32, 3, wants)
    stored = data.fetch(np.arange(400), torch.arange(400))
    (augmentation,) = recipe.data.augmentations
    moved = seen_as(stored, torch.arange(400), augmentation)
    related = 0
    for text, boxes in zip(stored["text"], moved["boxes"], strict=True):
        told = read(bytes(text[text > 0] - 1).decode())
        if told.relation is None or (boxes[:, 0] >= 0).sum() < 2:
            continue
        kinds = [KINDS.index(f"{thing.colour} {thing.shape}") for thing in told.things]
        first, second = (boxes[boxes[:, 0] == kind][0] for kind in kinds)
        middles = [(each[[1, 2]] + each[[3, 4]]) / 2 for each in (first, second)]
        assert relation(*(tuple(each.tolist()) for each in middles)) == told.relation
        related += 1
    assert related > 100


def grammar_of(*overrides: str) -> Ability:
    """To sample by texts, of a recipe whose data is not looked at."""
    recipe = tiny("mlp-gan", "model.text=true", "data.scenes=captioned")
    return recipe.override(["data.scenes=full", *overrides]).able()["sample"]


def test_a_text_of_known_words_that_is_of_no_grammar_is_drawn_with_a_caution():
    scenes = grammar_of("data.scenes=captioned")
    for text, words in (
        ("red left two", "anything may be drawn; they are\ncaption   = thing | "),
        ("two red disc", "all its words are known, but no such texts were learnt"),
        ("A red disc, left of a blue star.", None),
        ("three green crosses", None),
        ("", None),
    ):
        cautions = list(Sample(text=text).cautions(scenes))
        assert [words in each for each in cautions] == ([] if words is None else [True])
    placed = grammar_of("data.place=true", "data.channels=1", "data.size=60")
    assert not list(Sample(text="The digit 7 is at the top left of the image").cautions(placed))
    assert list(Sample(text="the digit 7").cautions(placed))
    own = grammar_of("data.source=photos")  # of whose texts nothing is known
    assert not list(Sample(text="red left two").cautions(own))


def test_who_mirrors_images_of_which_texts_say_what_is_on_the_left_is_told():
    recipe = tiny("flow", *SCENES)
    own = ("data.source=photos", "data.scenes=full", "data.augment=flip")
    cautions = [*recipe.override(own).cautions()]
    assert any("mirrors images of which texts say left and right" in each for each in cautions)
    cautions = [*recipe.override([*own, "model.vocabulary=[a, cat]"]).cautions()]
    assert not any("mirrors" in each for each in cautions)
