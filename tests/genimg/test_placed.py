"""Gray images that stand where texts say, as in alignDRAW's MNIST; and whether they are read so."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_recipes import tiny

from genimg.data.memory import Images
from genimg.data.placed import CASES, PLACES, Placed, bounds, held_out, read, words_of
from genimg.errors import InputError
from genimg.legible import centred, refuse_reader, scores, stray, window

NAMES = tuple("0123456789")
MANY = np.arange(400)


def levels(each: int = 3, names: tuple[str, ...] = NAMES) -> Images:
    """Images of 28 x 28, in no order, as bright as their class tells."""
    labels = torch.arange(each * len(names)) * 7 % len(names)
    images = ((labels + 1) * 20).to(torch.uint8)[:, None, None, None].expand(-1, 1, 28, 28)
    return Images({"image": images.contiguous(), "label": labels}, {"label": names})


def placed(combinations: str = "all", columns: tuple[str, ...] = ("image", "text")) -> Placed:
    return Placed(levels(), 60, combinations, columns=columns)


def texts_of(data: Placed, indices: np.ndarray) -> list[str]:
    column = data.fetch(indices, torch.from_numpy(indices))["text"]
    return [bytes((row[row > 0] - 1).tolist()).decode() for row in column]


def test_digits_stand_where_the_text_says_within_their_bounds_and_nothing_else_does():
    data = placed()
    images = data.fetch(MANY, torch.from_numpy(MANY))["image"]
    for image, text in zip(images, texts_of(data, MANY), strict=True):
        expected = torch.zeros(60, 60, dtype=torch.uint8)
        said = read(text)
        if len({stands.name for stands in said}) < len(said):
            continue  # two as bright
        for name, place in said:
            level = 20 * (NAMES.index(name) + 1)
            seen = (image[0] == level).nonzero()  # of which another may cover an end
            top, left = seen[:, 0].min().item(), seen[:, 1].min().item()
            if place == "right":
                left = seen[:, 1].max().item() - 27
            (highest, lowest), (leftmost, rightmost) = bounds(place, 32)
            assert highest <= top <= lowest
            assert leftmost <= left <= rightmost
            part = expected[top : top + 28, left : left + 28]
            part.copy_(part.clamp(min=level))
        assert torch.equal(image[0], expected), text


def test_each_case_and_each_class_come_alike_whatever_is_asked_for_beside():
    every = texts_of(placed(), np.arange(4000))
    cases = Counter(" ".join(word for word in text.split() if word not in NAMES) for text in every)
    assert len(cases) == len(CASES)
    assert min(cases.values()) > 400
    digits = Counter(stands.name for text in every for stands in read(text))
    assert min(digits.values()) > 500
    assert texts_of(placed(columns=("text",)), MANY) == every[:400]


def test_every_class_is_held_out_of_one_place_and_every_place_lacks_some():
    unseen = held_out(len(NAMES))
    assert unseen.sum(dim=0).tolist() == [1] * 10
    assert unseen.any(dim=1).all()
    apart = {(NAMES[k], list(PLACES)[place]) for place, k in unseen.nonzero().tolist()}
    found = {
        combinations: [set(map(tuple, read(text))) for text in texts_of(placed(combinations), MANY)]
        for combinations in ("seen", "held-out")
    }
    assert all(not pairs & apart for pairs in found["seen"])
    assert all(pairs & apart for pairs in found["held-out"])
    assert set().union(*found["held-out"]) >= apart


def test_held_out_canvases_are_made_of_gray_images_that_others_are_not_made_of():
    rest, kept = Placed(levels(30), 60, columns=("image", "text")).hold_out(50)
    assert len(kept) == 50
    mine, others = (set(data.parts(MANY[:50]).flatten().tolist()) for data in (kept, rest))
    assert mine
    assert others
    assert kept.fingerprint != rest.fingerprint


def test_what_few_classes_cannot_do_is_refused():
    with pytest.raises(InputError, match="of 8 classes or more; the data has 3"):
        Placed(levels(names=("a", "b", "c")), 60, "seen")
    with pytest.raises(InputError, match="place=true makes gray images"):
        tiny("flow", "data.place=true")
    with pytest.raises(InputError, match="mirrors images of which texts say"):
        tiny(
            "flow", "data.place=true", "data.channels=1", "model.text=true", "data.augment=flip",
        )  # fmt: skip


def by_level(size: int = 32, fit: str = "pad", side: int | None = None) -> SimpleNamespace:
    """A classifier that tells classes of `levels` of that side by the brightest pixel."""

    def rows(compute: object, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        assert given["image"].shape[2:] == (size, size)
        widths = (given["image"][:, 0] > -0.9).any(dim=1).sum(dim=1)
        assert side is None or (widths == side).all(), widths
        levels = ((given["image"].amax(dim=(1, 2, 3)) + 1) * 127.5 / 20).round().long() - 1
        return {"scores": torch.eye(len(NAMES))[levels.clamp(0, 9)]}

    return SimpleNamespace(
        abilities={"classify": SimpleNamespace(compute=None, classes=NAMES)},
        recipe=SimpleNamespace(data=SimpleNamespace(size=size, fit=fit, channels=1)),
        inference=SimpleNamespace(rows=rows),
        device=torch.device("cpu"),
    )


def test_what_stands_as_said_is_read_so_and_what_does_not_is_not():
    data = placed()
    images = data.fetch(MANY, torch.from_numpy(MANY))["image"]
    said = [read(text) for text in texts_of(data, MANY)]
    apart = [i for i, each in enumerate(said) if {s.place for s in each} != {"left", "right"}]
    images, said = images[apart], [said[i] for i in apart]  # others overlap: the brighter is seen
    assert set(scores(by_level(), said, images).values()) == {1.0}
    assert scores(by_level(), said, images.roll(1, 0))["all_right"] < 0.1
    more = images.clone()
    more[..., 26:34, 26:34] = 255
    corners = [i for i, each in enumerate(said) if len(each) == 1]
    assert (stray([said[i] for i in corners], more[corners]) > 0.05).all()
    assert (stray(said, torch.zeros_like(images)) == 0).all()


@pytest.mark.parametrize(
    ("size", "fit", "side"), [(28, "pad", 28), (20, "pad", 20), (64, "pad", 28), (40, "resize", 40)]
)
def test_digits_are_read_as_large_as_the_classifier_has_learnt_mnists(size, fit, side):
    data = placed()
    images = data.fetch(MANY[:40], torch.from_numpy(MANY[:40]))["image"]
    said = [read(text) for text in texts_of(data, MANY[:40])]
    alone = [i for i, each in enumerate(said) if len(each) == 1]
    reader = by_level(size, fit, side)
    assert scores(reader, [said[i] for i in alone], images[alone])["digit"] == 1


@pytest.mark.parametrize("place", PLACES)
def test_a_digit_is_seen_in_the_middle_in_its_own_size_wherever_it_stood_in_its_window(place):
    digit = torch.zeros(28, 28, dtype=torch.uint8)
    digit[8:20, 12:16] = 200
    (top, lowest), (left, rightmost) = bounds(place, 32)
    canvases = torch.zeros(2, 1, 60, 60, dtype=torch.uint8)
    for canvas, y, x in zip(canvases, (top, lowest), (left, rightmost), strict=True):
        canvas[0, y : y + 28, x : x + 28] = digit
    for seen in centred(window(canvases, place), 28):
        assert torch.equal(seen[0], digit.float())


def test_who_cannot_read_the_digits_is_refused():
    refuse_reader(by_level(), NAMES, "--judge j")
    with pytest.raises(InputError, match="--judge j: does not know the class 'ten'"):
        refuse_reader(by_level(), (*NAMES, "ten"), "--judge j")


def test_words_are_those_of_the_texts_and_the_names():
    assert words_of(("3", "ankle boot")) == (
        "3", "ankle", "at", "boot", "bottom", "digit", "image", "is", "left", "of", "on", "right",
        "the", "top",
    )  # fmt: skip
