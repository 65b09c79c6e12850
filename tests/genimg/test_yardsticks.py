"""Judging: what is kept of real images, and the scores of sets whose scores can be told."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from tiny_recipes import tiny
from working_together import together

from genimg import judging, references, yardsticks
from genimg.contracts import Sync
from genimg.data.memory import Images
from genimg.data.scenes import Scenes
from genimg.engine import Engine
from genimg.errors import InputError
from genimg.inference import real_images
from genimg.judging import BETTER, Seen, judged, judged_in_training, seen, seen_in
from genimg.training.sync import Alone
from genimg.yardsticks import Yardstick

# the others are of stacked images, and of models that draw by class
MEASURED = BETTER.keys() - {"swd", "judge_modes", "judge_modes_kl"}
MEASURED -= {"judge_gan_test", "judge_gan_train", "judge_intra_fid"}
LIMITS = ["real", "noise", "repeated"]


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GENIMG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "judged"


@pytest.fixture
def judge(folders) -> Engine:
    return Engine.load(folders["classifier"], "cpu", "float32")


@pytest.fixture
def looks(monkeypatch) -> list[int]:
    """How many images each look was at."""
    counts: list[int] = []

    def counted(judge: Engine, images: torch.Tensor) -> Seen:
        counts.append(len(images))
        return seen(judge, images)

    for module in (judging, yardsticks):
        monkeypatch.setattr(module, "seen", counted)
    return counts


def test_a_judge_sees_features_and_the_classes_that_it_tells(judge):
    images = real_images(Scenes(16, 3), range(5))
    floats = images.float() / 127.5 - 1
    found = seen(judge, images)
    expected = judge.networks["classifier"].features(floats)
    torch.testing.assert_close(found.features, expected, rtol=1e-4, atol=1e-4)
    classes = judge.rows("classify", {"image": floats})["scores"]
    torch.testing.assert_close(found.probabilities, classes, rtol=1e-4, atol=1e-5)
    none = seen(judge, images[:0])
    assert [each.shape for each in none] == [(0, *each.shape[1:]) for each in found]


def test_real_images_are_looked_at_once(judge, looks, kept):
    data = Scenes(16, 3)
    first = seen_in(judge, data, np.arange(30))
    again = seen_in(judge, data, np.arange(30))
    assert looks == [30]
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    for other in (Scenes(16, 3, seed=1), Scenes(16, 3, simple=True)):
        seen_in(judge, other, np.arange(30))
    seen_in(judge, data, np.arange(1, 31))
    judge.digest = "another"
    seen_in(judge, data, np.arange(30))
    assert looks == [30] * 5
    assert len(list(kept.iterdir())) == 5


def test_what_is_damaged_or_cannot_be_kept_is_looked_at_anew(judge, looks, kept, monkeypatch):
    data = Scenes(16, 3)
    first = seen_in(judge, data, np.arange(12))
    (file,) = kept.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    seen_in(judge, data, np.arange(12))
    assert file.read_bytes() == whole
    monkeypatch.setenv("GENIMG_CACHE", str(file))  # no folder
    again = seen_in(judge, data, np.arange(12))
    assert torch.equal(first.features, again.features)
    assert looks == [12] * 3
    monkeypatch.setenv("GENIMG_CACHE", str(kept.parent))
    judge.digest = ""  # of a judge of no folder nothing is kept
    seen_in(judge, data, np.arange(12))
    assert len(looks) == 4
    assert list(kept.iterdir()) == [file]


def test_workers_look_together_at_what_one_of_them_has_not_kept(judge, looks, monkeypatch):
    data, none = Scenes(16, 3), iter([None, {}])
    expected = seen_in(judge, data, np.arange(11))
    read = references._read
    monkeypatch.setattr(
        references, "_read", lambda *about: None if next(none, {}) is None else read(*about)
    )
    del looks[:]
    for found in together(2, lambda sync: seen_in(judge, data, np.arange(11), sync)):
        torch.testing.assert_close(found.features, expected.features)
    assert sorted(looks) == [5, 6]


def test_scores_of_sets_that_one_can_imagine(judge, looks):
    data, training = Scenes(16, 3, seed=1), Scenes(16, 3)
    yardstick = Yardstick(judge, data, training, 60)
    limits = yardstick.limits()
    assert list(limits) == LIMITS
    real, noise, repeated = limits.values()
    assert real.keys() == noise.keys() == repeated.keys() >= MEASURED
    assert real["judge_fid"] < min(noise["judge_fid"], repeated["judge_fid"])
    assert real["judge_kid"] < min(noise["judge_kid"], repeated["judge_kid"])
    assert repeated["judge_ms_ssim"] == pytest.approx(1)
    assert repeated["judge_inception_score"] == pytest.approx(1)
    assert repeated["judge_recall"] <= 1 / 60
    assert real["judge_coverage"] > 0.6
    assert 0.2 < real["judge_authenticity"] < 0.9
    assert all(math.isfinite(value) for each in limits.values() for value in each.values())
    del looks[:]
    assert Yardstick(judge, data, training, 60).limits() == limits
    assert looks == []
    json.dumps(yardstick.protocol())
    without = Yardstick(judge, data, None, 60).limits()
    assert list(without) == ["noise", "repeated"]
    assert "judge_authenticity" not in without["noise"]


def test_training_images_score_alike_in_any_order(judge):
    """Also sorted by class, as those of folders are."""
    images = real_images(Scenes(16, 3), range(200))
    head = judge.networks["classifier"].to_logits
    middle = seen(judge, images).features.mean(dim=0)
    with torch.no_grad():  # one that is sure, and tells several classes
        head.weight.mul_(1e5)
        head.bias.copy_(-head.weight @ middle)
    by_class = seen(judge, images).probabilities.argmax(dim=1).argsort()
    scores = [
        Yardstick(judge, Scenes(16, 3, seed=1), Images({"image": images[order]}), 200).limits()[
            "real"
        ]["judge_inception_score"]
        for order in (torch.arange(200), by_class)
    ]
    assert scores[0] > 1.5
    assert scores[1] == pytest.approx(scores[0], rel=0.1)


def test_of_few_training_images_is_told_what_there_is_to_tell(judge):
    data = Scenes(16, 3, seed=1)
    images = real_images(Scenes(16, 3, seed=2), range(20))

    def few(count: int) -> Images:
        return Images({"image": real_images(Scenes(16, 3), range(count))})

    for count, known in {1: False, 2: True, 9: True}.items():
        yardstick = Yardstick(judge, data, few(count), 20)
        metrics = yardstick.verdict(images).metrics
        assert ("judge_authenticity" in metrics) is known
        assert list(yardstick.limits()) == ["noise", "repeated"]
    assert list(Yardstick(judge, data, few(10), 20).limits()) == LIMITS
    with pytest.raises(InputError, match="real images to judge by: 5, too few for 5 neighbours"):
        Yardstick(judge, few(5), None, 20)


def test_what_is_computed_in_pieces_is_as_in_one(judge, monkeypatch):
    judge.digest = ""  # nothing is kept
    limits = [Yardstick(judge, Scenes(16, 3, seed=1), None, 40).limits()]
    monkeypatch.setattr(yardsticks, "PAIRS_AT_ONCE", 3)
    monkeypatch.setattr(yardsticks, "NOISE_AT_ONCE", 5 * 16 * 16 * 3)
    limits.append(Yardstick(judge, Scenes(16, 3, seed=1), None, 40).limits())
    assert limits[0] == limits[1]


def test_copies_of_training_images_are_shown_beside_these(judge):
    training = Scenes(16, 3)
    yardstick = Yardstick(judge, Scenes(16, 3, seed=1), training, 20)
    images = real_images(Scenes(16, 3, seed=2), range(20))
    copied = yardstick.trained_on[[3, 50, 100]]
    images[[4, 7, 11]] = real_images(training, copied)
    verdict = yardstick.verdict(images)
    assert verdict.metrics["judge_authenticity"] < 1
    places, beside = yardstick.nearest(verdict, 3, 5)
    assert sorted(places.tolist()) == [4, 7, 11]
    assert beside.shape == (3, 5, 3, 16, 16)
    for place, several in zip(places.tolist(), beside, strict=True):
        assert torch.equal(several[0], images[place])
    unknown = Yardstick(judge, Scenes(16, 3, seed=1), None, 20)
    assert unknown.nearest(unknown.verdict(images), 3, 5) is None


def test_only_what_chooses_is_measured_where_that_is_asked_for(judge):
    images = [seen(judge, real_images(Scenes(16, 3, seed=s), range(40))) for s in (0, 1)]
    every, quick = judged(*images), judged(*images, best="judge_fid")
    dear = {"judge_kid", *judging.MANIFOLDS}  # of so few images the kernel distance has no spread
    assert every.keys() - quick.keys() == dear
    assert quick == {name: every[name] for name in quick}
    for best, more in {"judge_kid": 1, "judge_recall": 4, "judge_inception_score": 0}.items():
        found = judged(*images, best=best)
        assert best in found
        assert len(found) == len(quick) + more


@pytest.mark.parametrize("best", sorted({*get_args(judging.Best)} - {"swd", "judge_modes_kl"}))
def test_any_number_of_workers_measures_the_same_to_the_bit(judge, best):
    judge.digest = ""  # all look anew
    images, data = real_images(Scenes(16, 3), range(41)), Scenes(16, 3, seed=1)

    def measured(sync: Sync) -> dict[str, float]:
        inference = replace(judge.inference, sync=sync, helpers={"judge": judge})
        mine = images[inference.share(41).start : inference.share(41).stop]
        return judged_in_training(inference, mine, data, data.choose(37), best)

    alone = measured(Alone())
    assert best in alone
    for world in (2, 3, 5):
        assert together(world, measured) == [alone] * world


def test_a_recipe_may_choose_by_any_of_them():
    assert tiny("dcgan").chosen_by == ("swd", "min")
    assert tiny("dcgan", "evaluation.judge=its").chosen_by == ("judge_fid", "min")
    for best in get_args(judging.Best):
        more = ["data.stack=true"] if best == "judge_modes_kl" else []
        recipe = tiny("dcgan", "evaluation.judge=its", f"evaluation.best={best}", *more)
        assert recipe.chosen_by == (best, BETTER[best])
    with pytest.raises(
        InputError, match=r"evaluation\.best=judge_kid: a judge tells it; give eval"
    ):
        tiny("dcgan", "evaluation.best=judge_kid")
    with pytest.raises(InputError, match=r"evaluation\.best='kid'"):
        tiny("dcgan", "evaluation.best=kid")
