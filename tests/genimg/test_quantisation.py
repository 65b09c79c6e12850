"""VQ-VAEs: codes that follow features, and the prior that draws them, one after the other."""

import math

import pytest
import torch
from scipy.stats import chisquare
from tiny_recipes import tiny
from torch.distributions import Normal
from training_steps import batch_at, differing, started, trained

from genimg.contracts import Batch
from genimg.errors import InputError
from genimg.inference import latents
from genimg.models.prior import CausalPrior
from genimg.models.quantised import QuantisedAutoencoder
from genimg.training.quantisation import DECAY, Quantisation
from genimg.training.sync import Alone


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def busy(network: torch.nn.Module) -> torch.nn.Module:
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


@pytest.mark.parametrize("training", [True, False])
def test_a_feature_is_of_its_nearest_code_and_a_codes_own_feature_of_that(training):
    network = QuantisedAutoencoder(16, 5, 8, 2, 3).train(training)
    features = torch.randn(30, 5, 3, 3)
    codes = network.nearest(features)
    distances = torch.cdist(features.permute(0, 2, 3, 1).reshape(-1, 5), network.codebook)
    assert torch.equal(codes.flatten(), distances.argmin(dim=1))
    assert torch.equal(network.nearest(network.features(codes)), codes)


@pytest.mark.parametrize(("size", "halvings"), [(8, 1), (12, 2), (32, 2), (32, 3)])
def test_images_have_codes_and_these_images(size, halvings):
    network = QuantisedAutoencoder(16, 5, 8, halvings, 3)
    features = network.encode(torch.randn(2, 3, size, size))
    assert features.shape == (2, 5, size // 2**halvings, size // 2**halvings)
    assert network.decode(features).shape == (2, 3, size, size)


def test_the_prior_sees_the_codes_before_a_place_the_class_and_nothing_else():
    prior = busy(CausalPrior(8, 6, 32, 2, classes=3))
    codes, classes = torch.randint(0, 8, (4, 6)), torch.eye(3)[[0, 1, 2, 0]]
    logits = prior(codes, classes)
    for place in range(6):
        other = codes.clone()
        other[:, place] = (other[:, place] + 1) % 8
        moved = (prior(other, classes) != logits).any(dim=2).any(dim=0)
        assert not moved[: place + 1].any()
        assert moved[place + 1 :].all()
    assert (prior(codes, classes.roll(1, dims=1)) != logits).any(dim=2).all()


def test_a_code_is_drawn_where_the_cumulative_probability_passes_its_normal():
    prior = busy(CausalPrior(8, 6, 32, 2, classes=3))
    normals, classes = torch.randn(50, 6), torch.eye(3)[torch.arange(50) % 3]
    codes = prior.draw(normals, classes)
    upper = prior(codes, classes).double().softmax(dim=2).cumsum(dim=2)  # all places at once
    levels = Normal(0.0, 1.0).cdf(normals.double())
    high = upper.gather(2, codes[..., None])[..., 0]
    lower = torch.cat([torch.zeros(50, 6, 1).double(), upper], dim=2)
    low = lower.gather(2, codes[..., None])[..., 0]
    assert (low - 1e-5 <= levels).all()
    assert (levels <= high + 1e-5).all()
    assert torch.equal(prior.draw(normals[7:8], classes[7:8])[0], codes[7])
    ends = prior.draw(torch.tensor([[-40.0] * 6, [40.0] * 6]), classes[:2])
    assert ends.tolist() == [[0] * 6, [7] * 6]


def test_codes_are_drawn_as_often_as_the_prior_says():
    prior = busy(CausalPrior(8, 1, 32, 1))
    drawn = prior.draw(latents(torch.arange(4000), 1))[:, 0]
    shares = prior(torch.zeros(1, 1, dtype=torch.int64)).detach().double().softmax(dim=2)[0, 0]
    counts = torch.bincount(drawn, minlength=8)
    assert chisquare(counts.numpy(), 4000 * shares.numpy()).pvalue > 0.01


def following(count: int) -> tuple[Quantisation, Batch, torch.Tensor]:
    method = started(tiny("vq-vae", f"model.codes={count}", "model.dimensions=2"))
    assert isinstance(method, Quantisation)
    return method, Batch({}, torch.arange(8), 8), torch.randn(8, 2, 4, 4)


def test_codes_follow_the_mean_of_their_features():
    method, batch, features = following(4)
    method.seen = 8  # behind the first step
    network = method.quantised
    network.codebook.copy_(torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]))
    network.sums.copy_(network.codebook / 4)
    rows = features.permute(0, 2, 3, 1).reshape(-1, 2)
    codes = network.nearest(features)
    expected = []
    for code in range(4):
        own = rows[codes.flatten() == code]
        number = DECAY / 4 + (1 - DECAY) * len(own) / len(rows)
        total = DECAY * network.codebook[code] / 4 + (1 - DECAY) * own.sum(dim=0) / len(rows)
        expected.append(total / number)
    perplexity = method.follow(features, codes, batch, Alone())
    torch.testing.assert_close(network.codebook, torch.stack(expected))
    shares = torch.bincount(codes.flatten(), minlength=4) / len(rows)
    entropy = -(shares * shares.log()).sum()
    assert perplexity.item() == pytest.approx(math.exp(entropy), rel=1e-5)


def test_codes_begin_as_features_and_again_where_none_is_near():
    method, batch, features = following(16)
    network = method.quantised
    rows = {tuple(row) for row in features.permute(0, 2, 3, 1).reshape(-1, 2).tolist()}

    def of_features() -> list[bool]:
        return [tuple(code) in rows for code in network.codebook.tolist()]

    method.follow(features, network.nearest(features), batch, Alone())
    assert all(of_features())
    method.seen = 8
    network.codebook[3] = network.sums[3] = 1e6  # nothing is near
    steps = 0
    while network.codebook[3].abs().max() > 1e3:
        method.follow(features, network.nearest(features), batch, Alone())
        steps += 1
        assert steps < 1000
    assert of_features()[3]
    assert network.usage[3].item() == pytest.approx(1 / 16)
    assert steps == pytest.approx(math.log(0.03) / math.log(DECAY), abs=2)


def test_with_a_start_the_autoencoder_stays_and_the_prior_learns():
    first = tiny("vq-vae", "train.ema_half_life=0")
    method = started(first)
    trained(first, method, 2)
    second = tiny("vq-vae", "start=x", "model.layers=2")
    second.refuse_helper("start", first)
    assert second.helped_by() == {"start": "x"}
    assert second.helped_by(training=False) == {}
    other = started(second)
    second.helped(other, {"start": method.averages})
    before = other.snapshot()
    losses = [other.update(batch_at(second, 0), Alone()) for _ in range(25)]
    assert losses[0].keys() == {"prior"}
    assert losses[-1]["prior"] < losses[0]["prior"]
    after, start = other.snapshot(), method.snapshot().weights
    for name, tensor in after.weights.items():
        if name.startswith("autoencoder."):
            assert torch.equal(tensor, start[name])
            assert torch.equal(tensor, before.weights[name])
    fresh = started(second)
    second.helped(fresh, {"start": method.averages})
    fresh.restore(after)
    assert differing(fresh, other) == []


@pytest.mark.parametrize(
    ("helper", "message"),
    [
        (("dcgan",), "start=x: dcgan models have no codes; give a vq-vae"),
        (("vq-vae", "model.codes=32"), r"start=x: a vq-vae with model.codes=32 \(here 16\)"),
    ],
)
def test_another_kind_of_start_is_refused(helper, message):
    with pytest.raises(InputError, match=message):
        tiny("vq-vae", "start=x").refuse_helper("start", tiny(*helper))


def test_sizes_that_cannot_be_halved_so_often_are_refused():
    with pytest.raises(InputError, match=r"data.size=20: with model.halvings=3 vq-vae takes mult"):
        tiny("vq-vae", "data.size=20", "model.halvings=3")
    with pytest.raises(InputError, match=r"model.halvings=4: of data.size=16 a single pixel is"):
        tiny("vq-vae", "data.size=16", "model.halvings=4", "model.width=8")
    tiny("vq-vae", "data.size=16", "model.halvings=4", "model.width=16")
