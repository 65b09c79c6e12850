"""Models that draw by text, of every family: what they learn from, and what they are asked."""

import json

import pytest
import torch
from annotated_folders import picture, sharded, write
from tiny_recipes import tiny
from training_steps import batch_at, lost_by_resuming, started, trained

from genimg import images
from genimg.data.captioned import Captioned
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


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("flow", ["model.text=true", "model.conditional=true"], "takes the place of classes"),
        ("flow", ["model.text=true", "loss.drop=0"], "of no text is never learnt"),
        ("flow", [*SCENES, "data.augment=flip"], "what is on the left"),
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
