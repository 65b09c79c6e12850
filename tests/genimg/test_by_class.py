"""Models that draw by class: accuracies and distances of each class, and what a student learns."""

import pytest
import torch
from tiny_recipes import tiny

from genimg.by_class import accuracies, accuracy, distances, intra_fid, numbered, student_of
from genimg.data.scenes import Scenes
from genimg.engine import Engine
from genimg.inference import real_images
from genimg.judging import Seen, labels_of, seen
from genimg.metrics.distributions import FeatureStatistics, frechet_distance
from genimg.yardsticks import Yardstick

NAMES = ("disc", "ring", "star")


def test_classes_are_numbered_by_their_names():
    assert numbered(("star", "disc", "star"), NAMES).tolist() == [2, 0, 2]
    assert numbered(("star", "moon"), NAMES) is None
    assert numbered((), NAMES) is None


def test_accuracies_are_of_each_class_that_there_is():
    truth = torch.tensor([0, 0, 0, 0, 2, 2])
    guessed = torch.tensor([0, 1, 0, 0, 2, 0])
    assert accuracies(guessed, truth, NAMES) == {"disc": 0.75, "star": 0.5}
    assert accuracy(guessed, truth) == pytest.approx(4 / 6)


def test_distances_are_within_classes_of_more_images_than_there_are_features():
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    made, real = (Seen(torch.randn(90, 5, generator=draw), torch.ones(90, 3)) for _ in range(2))
    found = distances(made, labels, real, labels, NAMES)
    for number, name in enumerate(NAMES):
        sets = [each.features[number::3] for each in (made, real)]
        assert found[name] == frechet_distance(*map(FeatureStatistics.of, sets))
    mean = sum(found.values()) / 3
    assert intra_fid(found, dict.fromkeys(NAMES, 1.0)) == {"judge_intra_fid": pytest.approx(mean)}
    few = torch.where(torch.arange(90) < 5 * 3, labels, 1)  # five discs, five stars
    found = distances(made, few, real, labels, NAMES)
    assert found.keys() == {"ring"}
    assert intra_fid(found, dict.fromkeys(NAMES, 1.0)) == {}


@pytest.fixture(scope="module")
def judge() -> Engine:
    """Of an untrained classifier, which is to be told apart from what its recipe can learn."""
    keys = "train.images=960", "train.batch_size=32", "train.optimizer=adam", "train.warmup=0"
    recipe = tiny("classifier", *keys, "train.lr=0.01", "train.ema_half_life=0", "data.translate=0")
    torch.manual_seed(1)
    networks = recipe.networks()
    for network in networks.values():
        network.eval().requires_grad_(False)
    return Engine(recipe, networks)


def plain(labels: torch.Tensor) -> torch.Tensor:
    """uint8 [N, 3, 16, 16]: noise, the brighter the higher the class."""
    draw = torch.Generator().manual_seed(0)
    noise = torch.randint(30, (len(labels), 3, 16, 16), generator=draw)
    return (noise + 30 * labels[:, None, None, None]).to(torch.uint8)


def test_a_student_learns_from_what_it_is_given_and_twice_the_same(judge):
    labels = torch.arange(80) % len(judge.abilities["classify"].classes)
    images, told = plain(labels), []
    student = student_of(judge, images, labels, lambda done, values: told.append(done))
    assert told[-1] == 960
    right = accuracy(labels_of(seen(student, images)), labels)
    assert right > 0.9
    assert accuracy(labels_of(seen(judge, images)), labels) < 0.5
    again = student_of(judge, images, labels).networks["classifier"].state_dict()
    expected = student.networks["classifier"].state_dict()
    assert all(torch.equal(again[name], each) for name, each in expected.items())


def test_a_verdict_by_class_is_of_what_was_asked_for(folders):
    judge = Engine.load(folders["classifier"], "cpu", "float32")
    columns = ("image", "label")
    data, training = Scenes(16, 3, columns, seed=1), Scenes(16, 3, columns)
    yardstick = Yardstick(judge, data, training, 160, learnt_from=160)
    names = judge.abilities["classify"].classes
    images = real_images(data, yardstick.chosen)
    asked = data.fetch(yardstick.chosen, torch.arange(160))["label"]
    assert torch.equal(yardstick.truth, asked)
    verdict = yardstick.verdict(images, asked, student=judge)  # as if it had learnt from them
    right = labels_of(seen(judge, images)) == asked
    assert verdict.metrics["judge_gan_test"] == pytest.approx(right.double().mean().item())
    assert verdict.metrics["judge_gan_train"] == verdict.metrics["judge_gan_test"]
    assert verdict.classes["gan_test"] == verdict.classes["gan_train"]
    assert list(verdict.classes["gan_test"]) == list(names)
    assert "judge_gan_test" not in yardstick.verdict(images).metrics

    limits, beside = yardstick.limits(), yardstick.classes()
    assert limits["real"]["judge_gan_train"] == verdict.metrics["judge_gan_test"]
    assert limits["noise"]["judge_gan_test"] == limits["repeated"]["judge_gan_train"] == 1 / 8
    assert beside["real_accuracy"] == verdict.classes["gan_test"]
    other = yardstick.verdict(images, (asked + 1) % len(names))
    assert other.metrics["judge_gan_test"] < 1 - verdict.metrics["judge_gan_test"] + 1e-9
