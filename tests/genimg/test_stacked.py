"""Stacked-MNIST: three gray images as the channels of one, and what a judge of gray ones reads."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from tiny_recipes import tiny

from genimg import recipes
from genimg.data.memory import Images
from genimg.data.opening import open_dataset
from genimg.data.stacked import Stacked
from genimg.engine import Engine
from genimg.errors import InputError
from genimg.judging import Seen, classes_of, joint, judged, modes, refuse_judge, seen
from genimg.metrics.distributions import class_shares
from genimg.yardsticks import Yardstick, labels_of


def numbered(count: int, size: int = 8) -> Images:
    """Gray images, each of one level: its number."""
    levels = torch.arange(count, dtype=torch.uint8)
    return Images({"image": levels[:, None, None, None].expand(count, 1, size, size).clone()})


def test_a_channel_is_a_gray_image_and_each_image_is_another():
    data = Stacked(numbered(200))
    images = data.fetch(np.arange(3000), torch.arange(3000))["image"]
    assert images.shape == (3000, 3, 8, 8)
    assert torch.equal(images[:, :, 0, 0].long(), torch.from_numpy(data.parts(np.arange(3000))))
    assert (images == images[..., :1, :1]).all()
    counts = images[:, :, 0, 0].flatten().long().bincount(minlength=200)
    assert 20 < counts.min() <= counts.max() < 80  # 45 of each are expected
    assert torch.corrcoef(images[:, :, 0, 0].T.double()).fill_diagonal_(0).abs().max() < 0.08
    assert torch.equal(data.whole(7)["image"], images[7])
    assert data.name(7) == "+".join(f"{layer:06d}" for layer in data.parts(np.array([7]))[0])
    assert len(data) == 128_000
    assert data.locate(np.array([5, 128_005]), 1, 8).tolist() == [5, 5]
    assert data.choose(4).tolist() == [0, 1, 2, 3]


def test_no_gray_image_is_on_both_sides():
    rest, kept = Stacked(numbered(120)).hold_out(500)
    assert (len(rest), len(kept)) == (128_000, 500)
    sides = [
        set(each.fetch(np.arange(400), torch.arange(400))["image"].flatten().tolist())
        for each in (rest, kept)
    ]
    assert not sides[0] & sides[1]
    assert len(sides[1]) == 20
    assert rest.fingerprint != kept.fingerprint


def test_a_recipe_asks_for_it(tmp_path):
    draw = np.random.default_rng(0).integers(0, 256, (90, 16, 16), np.uint8)
    np.savez(tmp_path / "gray.npz", x_train=draw[:60], x_test=draw[60:])
    source = f"data.source={str(tmp_path / 'gray.npz')!r}"
    recipe = tiny("dcgan", "data.stack=true", source)
    data = open_dataset(recipe.data, recipe.wants, "test")
    images = data.fetch(np.arange(50), torch.arange(50))["image"].numpy()
    assert {each.tobytes() for each in images.reshape(-1, 256)} <= {e.tobytes() for e in draw[60:]}
    with pytest.raises(InputError, match="stack=true makes images of 3 channels, not 1"):
        tiny("dcgan", "data.stack=true", "data.channels=1")
    with pytest.raises(InputError, match="light mixes the three images that stack=true makes"):
        tiny("dcgan", "data.stack=true", "data.augmentations=[{kind: cutout}, {kind: light}]")
    with pytest.raises(InputError, match=r"wanted are image and label; leave data.stack out, or"):
        open_dataset(recipe.data, ("image", "label"))
    gray = recipes.named("classifier").override(["data.size=16", "data.channels=1"])
    refuse_judge(recipe.data, gray, "--judge it")
    with pytest.raises(InputError, match="3 x 16 x 16, of gray ones; train a classifier"):
        refuse_judge(recipe.data, gray.override(["data.channels=3"]), "--judge it")
    many = gray.override([f"model.classes={[str(i) for i in range(13)]}"])
    with pytest.raises(InputError, match="tells 13 classes; of stacked images it may tell 12"):
        refuse_judge(recipe.data, many, "--judge it")


def test_a_judge_reads_each_channel():
    recipe = tiny("classifier", "data.channels=1")
    torch.manual_seed(0)
    networks = recipe.networks()
    networks["classifier"].eval().requires_grad_(False)
    judge = Engine(recipe, networks)
    draw = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), np.uint8)
    images = torch.from_numpy(draw)
    found = seen(judge, images)
    for channel in range(3):
        alone = seen(judge, images[:, channel, None])
        features = found.features.unflatten(1, (3, -1))[:, channel]
        torch.testing.assert_close(features, alone.features, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.probabilities[:, channel], alone.probabilities)
    names = classes_of(judge, stacked=True)
    assert joint(found.probabilities).shape == (5, len(names))
    for label, row in zip(labels_of(found).tolist(), found.probabilities, strict=True):
        one = [judge.abilities["classify"].classes[int(each.argmax())] for each in row]
        assert names[label] == " ".join(one)
    assert torch.equal(joint(found.probabilities).argmax(dim=1), labels_of(found))

    gray = [Images({"image": torch.from_numpy(each)}) for each in draw.reshape(3, 5, 1, 16, 16)]
    limits = Yardstick(judge, Stacked(gray[0]), Stacked(gray[1]), 30).limits()
    assert all(each["judge_modes"] >= 1 for each in limits.values())
    assert limits["repeated"]["judge_modes"] == 1
    assert [len(each) for each in seen(judge, images[:0])] == [0, 0]


def test_modes_and_their_divergence():
    classes, draw = 4, torch.Generator().manual_seed(0)
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1])

    def sampled(count: int) -> torch.Tensor:
        """As read by a perfect judge: float [count, 3, 4]."""
        drawn = weights.multinomial(3 * count, replacement=True, generator=draw).view(count, 3)
        return torch.nn.functional.one_hot(drawn, classes).float()

    real = sampled(20_000)
    perfect = modes(class_shares(joint(sampled(20_000))), real)
    assert perfect["judge_modes"] == classes**3
    # twice the count times the divergence is chi-squared, of as many degrees as classes but one
    assert perfect["judge_modes_kl"] == pytest.approx(63 / 40_000, rel=0.5)
    one = torch.zeros(classes**3).double()
    one[0] = 1  # class 0 thrice
    collapsed = modes(one, real)
    assert collapsed["judge_modes"] == 1
    assert collapsed["judge_modes_kl"] == pytest.approx(-3 * math.log(0.4), rel=0.02)
    expected = [math.prod(each) for each in product(weights.tolist(), repeat=3)]
    even = modes(torch.full((64,), 1 / 64).double(), real)
    divergence = sum(math.log(1 / 64 / each) / 64 for each in expected)
    assert even["judge_modes_kl"] == pytest.approx(divergence, rel=0.03)
    several = Seen(torch.randn(200, 6, generator=draw), sampled(200))
    found = judged(several, several)
    assert found["judge_modes"] <= 64
    assert found["judge_inception_score"] > 10
