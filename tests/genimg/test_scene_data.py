"""Scenes as a data set: endless, held out for good, with all columns that there are."""

import numpy as np
import pytest
import torch

from genimg.contracts import Dataset
from genimg.data.layout import SLOTS
from genimg.data.opening import open_dataset
from genimg.data.scenes import Scenes, annotate, render
from genimg.errors import InputError
from genimg.recipe import Data


def test_fetch_gives_what_render_and_annotate_say():
    scenes = Scenes(24, 3, ("image", "label"), seed=5, start=100)
    indices = np.array([7, 0, 123_456])
    images, labels = scenes.fetch(indices, torch.arange(3)).values()
    assert torch.equal(images, render(scenes.scene_keys(indices), 24, 3))
    assert torch.equal(labels, annotate(scenes.scene_keys(indices), 24).labels)
    assert torch.equal(scenes.whole(7)["image"], images[0])
    moved = Scenes(24, 3, seed=5, start=107).fetch(np.array([0]), torch.zeros(1).long())
    assert torch.equal(moved["image"][0], images[0])


def test_every_column_of_scenes_is_what_annotate_says():
    columns = ("image", "label", "mask", "boxes", "text")
    for simple in (False, True):
        scenes = Scenes(24, 3, columns, simple=simple)
        stored = scenes.fetch(np.arange(50), torch.arange(50))
        truth = annotate(scenes.scene_keys(np.arange(50)), 24, simple)
        assert tuple(stored) == scenes.columns == columns
        assert torch.equal(stored["label"], truth.labels)
        assert torch.equal(stored["mask"][:, 0].long(), truth.class_masks())
        assert torch.equal(stored["boxes"][:, :SLOTS, 1:], truth.boxes)
        assert torch.equal(stored["boxes"][:, :SLOTS, 0].long(), truth.object_classes)
        assert (stored["boxes"][:, SLOTS:] == torch.tensor([-1.0, 0, 0, 0, 0])).all()
        said = [bytes((row[row > 0] - 1).tolist()).decode() for row in stored["text"]]
        assert said == truth.captions
        whole = scenes.whole(7)
        assert all(torch.equal(whole[name], stored[name][7]) for name in columns)
        highest = stored["boxes"][..., 0].amax(), stored["mask"].amax(), stored["label"].amax()
        names = [len(scenes.classes[name]) - 1 for name in ("boxes", "mask", "label")]
        assert list(map(int, highest)) == names


def test_the_columns_that_scenes_do_not_have_are_refused():
    with pytest.raises(InputError, match=r"scenes: has image, .*wanted are image and other"):
        Scenes(24, 3, ("image", "other"))


def test_positions_are_endless_and_the_training_seed_does_not_matter():
    scenes: Dataset = Scenes(16, 1, length=10)
    positions = np.arange(1000, dtype=np.int64)
    assert len(scenes) == 10
    assert np.array_equal(scenes.locate(positions, 1, 8), scenes.locate(positions, 2, 8))
    indices = scenes.locate(positions, 1, 8)
    images = scenes.fetch(indices, torch.from_numpy(positions))["image"]
    assert len(images.flatten(1).unique(dim=0)) == 1000


def test_held_out_scenes_never_come_up_in_training():
    train, held = Scenes(16, 3, seed=3, start=40).hold_out(25)
    positions = np.arange(5_000, dtype=np.int64)
    seen = {
        name: set(part.scene_keys(part.locate(positions, 0, 8)).tolist())
        for name, part in (("train", train), ("held", held))
    }
    assert len(seen["held"]) == len(held) == 25
    assert len(seen["train"]) == 5_000
    assert not seen["train"] & seen["held"]


def test_a_bounded_set_can_be_divided_again():
    _, held = Scenes(16, 3).hold_out(25)
    rest, part = held.hold_out(5)
    both = [one.scene_keys(one.locate(np.arange(len(one)), 0, 8)) for one in (part, rest)]
    assert torch.equal(torch.cat(both), held.scene_keys(np.arange(25)))
    with pytest.raises(InputError, match=r"data\.holdout=25"):
        held.hold_out(25)


def test_the_key_data_scenes_chooses_simple_scenes_for_training_and_held_out():
    """Full ones are what they always were: their fingerprint is known."""
    full, simple = (open_dataset(Data(scenes=kind), ("image",)) for kind in ("full", "simple"))
    assert full.fingerprint == "4fe21bce51d4e8e56aea9a1ab950102cf10bf827467e80d1e3765881e314ad47"
    for part, keep in zip(simple.hold_out(5), full.hold_out(5), strict=True):
        at = np.arange(3)
        images = part.fetch(at, torch.arange(3))["image"]
        assert torch.equal(images, render(keep.scene_keys(at), 32, 3, simple=True))
        assert torch.equal(images[2], part.whole(2)["image"])


def test_fingerprints_tell_contents_apart():
    sets = [Scenes(16, 3), Scenes(32, 3), Scenes(16, 1), Scenes(16, 3, seed=1)]
    sets += [*Scenes(16, 3).hold_out(9), Scenes(16, 3).hold_out(8)[1]]
    sets += [Scenes(16, 3, simple=True), *Scenes(16, 3, simple=True).hold_out(9)]
    assert len({one.fingerprint for one in sets}) == len(sets)
    assert Scenes(16, 3, length=5).fingerprint == Scenes(16, 3).fingerprint


@pytest.mark.parametrize(("size", "channels"), [(7, 3), (32, 4)])
def test_impossible_pictures_are_refused(size, channels):
    with pytest.raises(InputError, match=r"data\.(size=7|channels=4)"):
        Scenes(size, channels)
