"""Captioned scenes: what captions say is what is seen; each as often; combinations held out."""

from collections import Counter

import numpy as np
import pytest
import torch

from genimg import rng
from genimg.data.captioned import HELD_OUT, KINDS, SEEN, Captioned, compose_captioned, said_of
from genimg.data.grammar import (
    GRAMMAR,
    NUMBERS,
    RELATIONS,
    TOLD_COLOURS,
    TOLD_SHAPES,
    TOLD_TEXTURES,
    WORDS,
    Said,
    Thing,
    caption,
    read,
)
from genimg.data.layout import COLOURS
from genimg.data.opening import open_dataset, told_by
from genimg.data.painting import coverage, paint
from genimg.data.scenes import Scenes, slot_masks
from genimg.data.shapes import SHAPES
from genimg.recipe import Data
from genimg.texts import words_in


def keys(count: int, seed: int = 0) -> torch.Tensor:
    return rng.fold(seed, torch.arange(count))


def pairs_in(said: Said) -> set[str]:
    return {f"{thing.colour} {thing.shape}" for thing in said.things}


def texts(scenes: Captioned, count: int) -> list[str]:
    rows = scenes.fetch(np.arange(count), torch.arange(count))["text"]
    return [bytes((row[row > 0] - 1).tolist()).decode() for row in rows]


def test_a_caption_is_read_as_what_it_was_made_of():
    looks = [Thing(*each) for each in (("red", "disc"), ("orange", "cross", "dotted"))]
    every = [Said(thing, number) for thing in looks for number in (1, 2, 3)]
    every += [Said(looks[0], 1, relation, looks[1]) for relation in RELATIONS]
    for said in every:
        assert read(caption(said)) == said
        assert set(words_in(caption(said))) <= set(WORDS)
    assert caption(every[-1]) == "a red disc below an orange dotted cross"
    others = ["", "a disc", "a red hexagon", "two red disc", "a red disc near a red star"]
    assert [read(text) for text in others] == [None] * 5
    assert all(f" {word}" in GRAMMAR for word in (*TOLD_COLOURS, *NUMBERS, *RELATIONS))


def test_numbers_and_relations_are_those_of_the_pixels():
    """By masks: as many as are said, none touching another, each where it is said to be."""
    layout = compose_captioned(keys(600))
    masks = slot_masks(layout, 64)
    assert (coverage(layout, 64) > 0).sum(dim=1).max() == 1
    down, right = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    for mask, said in zip(masks, said_of(layout), strict=True):
        assert mask.unique().tolist() == [*range(len(said.things) + 1)]
        if said.other is None:
            continue
        x, y = (float(axis[mask == 1].mean() - axis[mask == 2].mean()) for axis in (right, down))
        along, across, sign = {
            "left of": (x, y, -1), "right of": (x, y, 1), "above": (y, x, -1), "below": (y, x, 1),
        }[said.relation]  # fmt: skip
        assert sign * along > 1.5 * abs(across)


def test_colours_and_shapes_are_those_of_the_pixels():
    """Recoloured, an object changes where its caption's shape alone would be drawn."""
    layout = compose_captioned(keys(200))
    images, masks = paint(layout, 64, 3), slot_masks(layout, 64)
    palette = torch.tensor([COLOURS[name] for name in TOLD_COLOURS])
    checked = 0
    for image, mask, said in zip(images, masks, said_of(layout), strict=True):
        for slot, thing in enumerate(said.things, start=1):
            if thing.texture == "plain":
                colour = image[:, mask == slot].median(dim=1).values
                nearest = (palette - colour).square().sum(dim=1).argmin()
                assert TOLD_COLOURS[nearest] == thing.colour
                checked += 1
    assert checked > 60
    shapes = [thing.shape for said in said_of(layout) for thing in said.things]
    kinds = layout.shapes[layout.shapes >= 0].tolist()
    assert shapes == [list(SHAPES)[kind] for kind in kinds]


@pytest.mark.parametrize("combinations", ["all", "seen"])
def test_training_pairs_are_balanced(combinations):
    count = 6_000
    said = said_of(compose_captioned(keys(count), combinations))
    forms = Counter(each.relation or each.number for each in said)
    shares = {1: 1 / 4, 2: 1 / 8, 3: 1 / 8} | dict.fromkeys(RELATIONS, 1 / 8)
    assert forms.keys() == shares.keys()
    for form, share in shares.items():
        assert forms[form] / count == pytest.approx(share, abs=0.015)
    things = [thing for each in said for thing in {each.thing, each.other or each.thing}]
    for names, found in (
        (TOLD_COLOURS, Counter(thing.colour for thing in things)),
        (TOLD_SHAPES, Counter(thing.shape for thing in things)),
        (TOLD_TEXTURES, Counter(thing.texture for thing in things)),
    ):
        for name in names:
            assert found[name] / len(things) == pytest.approx(1 / len(names), abs=0.015)
    pairs = Counter(f"{thing.colour} {thing.shape}" for thing in things)
    assert len(pairs) == len(KINDS if combinations == "all" else SEEN)
    mean = len(things) / len(pairs)
    assert all(abs(found - mean) < 5 * mean**0.5 for found in pairs.values())


def test_whole_combinations_are_held_out():
    held = {KINDS[number] for number in HELD_OUT}
    assert len(held) == len(TOLD_COLOURS) == len(TOLD_SHAPES)
    assert {pair.split()[0] for pair in held} == set(TOLD_COLOURS)
    assert {pair.split()[1] for pair in held} == set(TOLD_SHAPES)
    seen, out = (said_of(compose_captioned(keys(2000), each)) for each in ("seen", "held-out"))
    assert not any(pairs_in(said) & held for said in seen)
    assert all(pairs_in(said) & held for said in out)
    first = [f"{said.thing.colour} {said.thing.shape}" in held for said in out if said.other]
    assert np.mean(first) == pytest.approx(0.5 + 0.5 * 7 / 49, abs=0.05)


def test_a_caption_depends_on_its_key_alone():
    several, one = compose_captioned(keys(50)), compose_captioned(keys(50)[7:8])
    assert torch.equal(paint(several, 32, 3)[7], paint(one, 32, 3)[0])
    assert said_of(several)[7] == said_of(one)[0]


def test_as_a_data_set_boxes_count_pairs_and_texts_are_captions():
    scenes = Captioned(64, 3, ("image", "boxes", "text"))
    indices = np.arange(100)
    stored = scenes.fetch(indices, torch.from_numpy(indices))
    said = said_of(compose_captioned(scenes.scene_keys(indices)))
    assert texts(scenes, 100) == [caption(each) for each in said]
    names = [*scenes.classes["boxes"], ""]
    for each, boxes in zip(said, stored["boxes"], strict=True):
        told = [names[int(kind)] for kind in boxes[:, 0] if kind >= 0]
        assert told == [f"{thing.colour} {thing.shape}" for thing in each.things]
    assert set(words_in(" ".join(texts(scenes, 400)))) == set(WORDS) == set(scenes.classes["text"])


def test_the_data_section_chooses_them():
    data = Data(scenes="captioned", combinations="seen")
    opened = open_dataset(data, ("image", "text"))
    assert told_by(data, ("image", "text")).classes["text"] == WORDS
    held = {KINDS[number] for number in HELD_OUT}
    train, kept = opened.hold_out(20)
    for part in (train, kept):
        assert not any(pairs_in(read(text)) & held for text in texts(part, 200))
    prints = {part.fingerprint for part in (opened, train, kept, Scenes(32, 3), Captioned(32, 3))}
    assert len(prints) == 5
    with pytest.raises(ValueError, match=r"combinations=seen: .*give scenes=captioned"):
        Data(combinations="seen")


def test_scenes_of_other_kinds_know_their_words_too():
    scenes = Scenes(16, 3, ("image", "text"))
    assert set(words_in(" ".join(texts(scenes, 500)))) == set(scenes.classes["text"])
