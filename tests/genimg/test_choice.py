"""Which images stand for a set: each class by its share, however the set is kept and sorted."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_parquet import numbered, opened, write_foreign

from genimg.data.choice import balanced_choice, balanced_order
from genimg.data.group_choice import GROUPS, LABELLED, choose_rows
from genimg.data.memory import HOLDOUT, Images, epoch_order
from genimg.data.scenes import Scenes
from genimg.rng import seed_from


@given(st.lists(st.integers(0, 5), min_size=1, max_size=120), st.integers(0, 2**40), st.data())
def test_any_beginning_has_each_class_by_its_share(labels, seed, data):
    every = np.array(labels)
    order = balanced_order(len(every), every, seed)
    assert sorted(order.tolist()) == list(range(len(every)))
    count = data.draw(st.integers(1, len(every)))
    chosen = np.bincount(every[order[:count]], minlength=6)
    fair = np.bincount(every, minlength=6) * count / len(every)
    assert np.abs(chosen - fair).max() <= 3  # one by rounding; the rest as the others are rounded


def test_classes_of_one_size_take_turns():
    labels = np.repeat(np.arange(10), 50)
    for count in (10, 95, 250):
        found = np.bincount(labels[balanced_choice(count, 500, labels)], minlength=10)
        assert found.max() - found.min() <= 1
    assert balanced_choice(500, 500, labels).tolist() == list(range(500))
    seeds = {tuple(balanced_choice(50, 500, labels, seed)) for seed in range(5)}
    assert len(seeds) == 5


def test_rare_classes_are_neither_always_chosen_nor_never():
    labels = np.r_[np.zeros(1000, int), np.arange(1, 201)]
    chosen = labels[balanced_choice(300, 1200, labels)]
    assert 230 <= (chosen == 0).sum() <= 270
    assert 30 <= (chosen > 0).sum() <= 70


def test_without_classes_the_choice_is_the_one_it_always_was():
    assert np.array_equal(
        balanced_order(100, None, seed_from(HOLDOUT, 0)), epoch_order(100, HOLDOUT, 0)
    )


def by_class(count: int, classes: int = 10) -> Images:
    """Images sorted by class, as folders are."""
    labels = torch.arange(count) * classes // count
    pixels = torch.arange(count, dtype=torch.int32).view(torch.uint8).reshape(count, 4)
    pixels = pixels[:, :3, None, None].expand(-1, -1, 8, 8).contiguous()
    names = {"label": tuple("abcdefghij"[:classes])}
    return Images({"image": pixels, "label": labels}, names)


def test_images_in_memory_sorted_by_class_are_chosen_from_all_classes():
    images = by_class(1000)
    train, held = images.hold_out(100)
    assert np.bincount(held.labels).tolist() == [10] * 10
    assert np.bincount(train.labels).tolist() == [90] * 10
    assert np.bincount(held.labels[held.choose(50)]).tolist() == [5] * 10
    assert np.bincount(images.labels[images.choose(40)]).tolist() == [4] * 10
    assert held.choose(1000).tolist() == list(range(100))


def test_scenes_are_chosen_from_all_classes():
    columns = ("image", "label")
    bounded = Scenes(8, 3, columns, seed=1, length=3000)
    for scenes in (bounded, Scenes(8, 3, columns).hold_out(800)[1]):
        chosen = scenes.choose(80)
        labels = scenes.fetch(chosen, torch.zeros(80).long())["label"]
        every = scenes.fetch(np.arange(320), torch.zeros(320).long())["label"]
        fair = np.bincount(every) * 80 / 320
        assert np.abs(np.bincount(labels) - fair).max() < 2
        assert len(set(chosen.tolist())) == 80
        assert len(scenes.choose(5000)) == len(scenes)


@pytest.fixture
def sorted_shards(tmp_path):
    """1,000 rows sorted by class, in 250 row groups."""
    path = write_foreign(tmp_path / "sorted.parquet", 1000, row_group_size=4)
    table = pq.read_table(path).sort_by("label")
    pq.write_table(table, path, row_group_size=4)
    return path


def test_shards_sorted_by_class_are_chosen_from_all_classes_without_reading_images(sorted_shards):
    shards = opened(sorted_shards)
    train, held = shards.hold_out(40)
    assert (len(train), len(held)) == (960, 40)
    chosen = held.choose(20)
    assert shards._cache.reads == 0
    labels = held.fetch(np.arange(40), torch.zeros(40).long())["label"]
    assert np.bincount(labels).tolist() == [4] * 10
    assert np.bincount(labels[chosen]).tolist() == [2] * 10
    assert (held._order.rows > 0).sum() <= GROUPS

    again = opened(sorted_shards)
    assert np.array_equal(again.hold_out(40)[1].choose(20), chosen)
    labels = again.fetch(again.choose(100), torch.zeros(100).long())["label"]
    assert np.bincount(labels).tolist() == [10] * 10


@pytest.mark.parametrize("classes", [1, 10, 1000])
@pytest.mark.parametrize("is_sorted", [True, False])
def test_ten_million_rows_are_chosen_from_by_the_labels_of_a_few(classes, is_sorted):
    rows = np.full(20_000, 500)
    total, looked_at = int(rows.sum()), []

    def labels_of(groups):
        looked_at.extend(groups)
        firsts = np.array(groups)[:, None] * 500 + np.arange(500)
        return list(firsts * classes // total if is_sorted else firsts % classes)

    middles = np.array([labels.mean() for labels in labels_of(range(20_000))])
    looked_at.clear()
    chosen = choose_rows(2000, rows, 7, classes=classes, middles=middles, labels_of=labels_of)
    assert len(set(chosen.tolist())) == 2000
    assert (np.diff(chosen) > 0).all()
    labels = chosen * classes // total if is_sorted else chosen % classes
    found = np.bincount(labels, minlength=classes)
    assert np.abs(found - 2000 / classes).max() <= max(2, 0.02 * 2000 / classes)
    assert len(looked_at) <= max(LABELLED, 2 * classes)
    groups = len(np.unique(chosen // 500))
    assert groups <= (GROUPS + classes if is_sorted else GROUPS)


def test_as_many_rows_are_chosen_as_are_asked_for_where_most_are_in_one_row_group():
    rows = np.ones(2 * LABELLED, np.int64)
    for large in range(0, len(rows), 100):
        sizes = rows.copy()
        sizes[large] = 20_000
        chosen = choose_rows(
            2000,
            sizes,
            7,
            classes=1,
            middles=np.zeros(len(rows)),
            labels_of=lambda groups, sizes=sizes: [np.zeros(sizes[g], np.int64) for g in groups],
        )
        assert len(set(chosen.tolist())) == 2000


def test_rows_without_labels_come_from_few_groups():
    rows = np.r_[np.full(300, 10), 0, 0]
    chosen = choose_rows(50, rows, 1, classes=0, middles=np.zeros(302), labels_of=lambda groups: [])
    assert len(set(chosen.tolist())) == 50
    assert chosen.max() < 3000
    assert 10 < len(np.unique(chosen // 10)) <= GROUPS


def test_the_fingerprint_tells_by_which_rule_labelled_images_are_held_out(
    monkeypatch, sorted_shards
):
    def fingerprints():
        pixels = by_class(20).fetch(np.arange(20), torch.arange(20))["image"]
        unlabelled = Images({"image": pixels})
        labelled = by_class(20).fingerprint, opened(sorted_shards).fingerprint
        return labelled, unlabelled.fingerprint

    labelled, unlabelled = fingerprints()
    for module in ("memory", "parquet"):
        monkeypatch.setattr(f"genimg.data.{module}.RULE", 99)
    labelled_then, unlabelled_then = fingerprints()
    assert all(a != b for a, b in zip(labelled, labelled_then, strict=True))
    assert unlabelled == unlabelled_then


def test_labels_of_some_row_groups_stand_for_those_of_many(tmp_path):
    labels = np.repeat([0, 1, 2], [400, 2000, 600])
    table = {"image": [numbered(0)] * len(labels), "label": labels}
    pq.write_table(pa.table(table), tmp_path / "set.parquet", row_group_size=2)
    found = opened(tmp_path / "set.parquet").labels
    assert found is not None
    assert len(found) == 2 * LABELLED < len(labels)
    shares = np.bincount(found) / len(found)
    assert np.abs(shares - np.array([4, 20, 6]) / 30).max() < 0.005
    assert opened(tmp_path / "set.parquet", columns=("image",)).labels is None
