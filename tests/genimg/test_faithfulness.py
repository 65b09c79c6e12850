"""Captions against what is found: by hand, and by a detector that makes no mistake."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_recipes import tiny

from genimg.data.beside import BOXES
from genimg.data.captioned import KINDS, Captioned
from genimg.data.grammar import read
from genimg.data.opening import open_dataset
from genimg.engine import Engine
from genimg.errors import InputError
from genimg.faithfulness import (
    Found,
    by_detector,
    compared,
    detected,
    faithful,
    objects,
    refuse_detector,
    scores,
)

CAPTION = "a red disc left of a blue striped star"
DISC, STAR = Found("red disc", (8, 16)), Found("blue star", (24, 17))


def right(text: str, *found: Found) -> list[bool]:
    made = compared(read(text), found)
    return [made.colour, made.shape, made.count, made.relation, made.all_right]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ((DISC, STAR), [True, True, True, True, True]),
        ((STAR, DISC), [True, True, True, True, True]),
        ((Found("red disc", (24, 17)), Found("blue star", (8, 16))), [True] * 3 + [False] * 2),
        ((Found("red star", (8, 16)), Found("blue disc", (24, 17))), [True] * 4 + [False]),
        ((Found("red star", (8, 16)), STAR), [True, False, True, True, False]),
        ((DISC, STAR, Found("red disc", (8, 30))), [True, True, False, True, False]),
        ((DISC,), [False, False, False, False, False]),
        ((), [False] * 5),
    ],
)
def test_a_relation_and_two_things(found, expected):
    assert right(CAPTION, *found) == expected


def test_several_things_alike():
    three = [Found("red disc", (place, place)) for place in (4, 16, 28)]
    assert right("three red discs", *three) == [True] * 5
    assert right("two red discs", *three) == [True, True, False, True, False]
    assert right("a red disc", three[0]) == [True] * 5
    assert right("a red disc") == [False, False, False, True, False]


def test_scores_are_parts_of_images_and_of_relations_where_these_are_said():
    said = [read(CAPTION), read("a red disc"), read("a red disc"), read(CAPTION)]
    made = scores(said, [[DISC, STAR], [DISC], [STAR], [STAR]])
    assert made["relation"] == 0.5
    assert (made["colour"], made["shape"], made["count"]) == (0.5, 0.5, 0.75)
    assert made["all_right"] == 0.5
    assert made["product"] == pytest.approx(0.5 * 0.5 * 0.75 * 0.75)
    assert "relation" not in scores([read("two red discs")], [[DISC]])


def test_where_two_kinds_are_likely_it_is_one_object_of_the_likelier():
    kinds = ["red disc", "red star", "blue star"]
    sure = [
        (0.4, 1, [2, 2, 12, 12]), (0.9, 0, [1, 1, 11, 11]), (0.8, 0, [14, 1, 24, 11]),
        (0.5, 2, [14, 14, 24, 24]),
    ]  # fmt: skip
    expected = [("red disc", (6, 6)), ("red disc", (19, 6)), ("blue star", (19, 19))]
    assert objects(sure, kinds) == expected
    assert objects([], kinds) == []


def oracle(data: Captioned, indices: np.ndarray) -> SimpleNamespace:
    """A detector that knows the boxes of these scenes, and whose scores of what is empty are 0."""
    stored = data.fetch(indices, torch.from_numpy(indices))
    rows = {"boxes": stored["boxes"], "scores": (stored["boxes"][..., 0] >= 0).float()}
    return SimpleNamespace(
        abilities={"detect": SimpleNamespace(compute=None, classes=KINDS)},
        inference=SimpleNamespace(rows=lambda compute, images: rows),
        device=torch.device("cpu"),
    )


def test_what_is_shown_is_right_and_what_is_shown_instead_is_not():
    data = Captioned(32, 3, ("image", "text", "boxes"))
    indices = np.arange(60)
    truth = oracle(data, indices)
    texts = data.fetch(indices, torch.from_numpy(indices))["text"]
    said = [read(bytes((row[row > 0] - 1).tolist()).decode()) for row in texts]
    found = detected(truth, torch.zeros(60, 3, 32, 32, dtype=torch.uint8))
    assert len(found[0]) <= BOXES
    assert set(scores(said, found).values()) == {1.0}
    assert scores(said, found[1:] + found[:1])["all_right"] < 0.1


def test_a_model_is_judged_beside_real_images_and_what_is_no_use_is_refused():
    text = ["model.text=true", "data.scenes=captioned"]
    flow, detector = tiny("flow", *text), tiny("detector", "data.scenes=captioned")
    torch.manual_seed(0)
    painter, judge = (
        Engine(each, {name: network.eval() for name, network in each.networks().items()})
        for each in (flow, detector)
    )
    refuse_detector(painter, judge, "j")
    scenes = open_dataset(flow.data, flow.wants, "test")
    made, real = faithful(painter, scenes, 20, read, by_detector(judge))
    assert made.keys() == real.keys()
    assert all(0 <= value <= 1 for value in (*made.values(), *real.values()))
    for model, by, said in (
        (tiny("flow"), detector, "this model takes no text"),
        (tiny("flow", *text, "data.size=32"), detector, "3 x 16 x 16 images, the model makes"),
        (flow, tiny("detector"), "does not tell"),
    ):
        with pytest.raises(InputError, match=said):
            refuse_detector(
                SimpleNamespace(recipe=model), SimpleNamespace(recipe=by, abilities=by.able()), "j"
            )
