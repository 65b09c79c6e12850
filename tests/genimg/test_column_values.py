"""Values of columns: how they are stored, told apart by fingerprints, and refused."""

import numpy as np
import pytest
import torch

from genimg.contracts import UNKNOWN
from genimg.data.beside import BOXES, BYTES
from genimg.data.columns import COLUMNS, agreed, fit_values, refuse_missing
from genimg.data.memory import Images
from genimg.data.storage import Ragged
from genimg.errors import InputError, listed
from genimg.images import BrokenImage


def test_texts_are_bytes_plus_one_cut_behind_a_whole_character():
    words = COLUMNS["text"]
    row = words.row("añ")
    assert row[:4].tolist() == [98, 196, 178, 0]
    assert not row[4:].any()
    assert (row.dtype, row.shape) == (np.uint8, (BYTES,))
    long = words.row("a" * (BYTES - 1) + "ñ")
    assert long[-2:].tolist() == [98, 0]
    highest = words.row("\U0010ffff")  # of the largest bytes that UTF-8 has
    assert bytes((highest[highest > 0] - 1).tolist()).decode() == "\U0010ffff"


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        ([[0, 1, 2, 3]], "class, x0, y0, x1, y1"),
        ([[0, 1, 2, 3, 4], [0, 1]], "lists of five numbers"),
        ([[0, 1, 2, 3, float("nan")]], "class, x0, y0, x1, y1"),
        ([[0.5, 1, 2, 3, 4]], "a class that is not"),
        ([[-1, 1, 2, 3, 4]], "a class that is not"),
        ([[0, 1, 2, 3, 4]] * (BOXES + 1), f"{BOXES + 1} boxes; at most {BOXES}"),
    ],
)
def test_boxes_that_cannot_be_are_refused(stored, reason):
    with pytest.raises(BrokenImage, match=reason):
        COLUMNS["boxes"].decoded(stored)


def test_a_column_of_other_sides_or_unnamed_classes_is_broken():
    values = {"image": np.zeros((4, 6, 3), np.uint8), "mask": np.zeros((6, 4, 1), np.uint8)}
    with pytest.raises(BrokenImage, match="its mask is 4x6, but the image 6x4"):
        agreed(values, {})
    values["mask"] = np.full((4, 6, 1), 3, np.uint8)
    values["mask"][0, 0] = UNKNOWN
    assert agreed(values, {"mask": ("a", "b", "c", "d")}) == (4, 6)
    with pytest.raises(BrokenImage, match="its mask has class 3, but only 2 are named"):
        fit_values(values, 4, "resize", str, {"mask": ("a", "b")})


def test_what_is_missing_is_said_and_how_to_supply_it():
    refuse_missing("pets", ("image", "label"), ("image",))
    with pytest.raises(InputError) as caught:
        refuse_missing("pets", ("label", "image"), ("image", "mask"))
    assert str(caught.value).startswith(
        "pets: has image and label, but wanted are image and mask; for mask, put the images"
        " into a folder images/"
    )
    assert listed(["image"]) == "image"


@pytest.mark.parametrize(
    ("stored", "fingerprint"),
    [
        ({}, "bb88ee261ee3ec39c86b837f98756350a100e94809ccfa805c4039917e53e282"),
        (
            {"label": torch.tensor([0, 1, 0, 1])},
            "f0f0bcc28e91e4584577bc5eea618783940c7ad217a1d2a891873a4da9c80d7d",
        ),
    ],
)
def test_data_of_images_and_labels_has_the_fingerprint_that_it_always_had(stored, fingerprint):
    pixels = torch.arange(4 * 3 * 8 * 8).to(torch.uint8).view(4, 3, 8, 8)
    names = dict.fromkeys(stored, ("a", "b"))
    assert Images({"image": pixels} | stored, names).fingerprint == fingerprint


def test_cropped_data_has_the_fingerprint_that_it_always_had():
    whole = [np.full((3, 9, 12), 1, np.uint8), np.full((3, 8, 8), 2, np.uint8)]
    stored = {"image": Ragged.joined(whole, 8), "label": torch.tensor([1, 0])}
    found = Images(stored, {"label": ("a", "b")}).fingerprint
    assert found == "05033b5cc568e2f11b367b90fbfd387803e5131808a52fe78c64bc807164dc6d"


def test_the_fingerprint_changes_with_any_column_and_its_classes():
    pixels = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    mask, other = torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.ones(2, 1, 8, 8).byte()
    sets = [
        Images({"image": pixels}),
        Images({"image": pixels, "mask": mask}),
        Images({"image": pixels, "mask": other}),
        Images({"image": pixels, "mask": mask}, {"mask": ("a", "b")}),
        Images({"image": pixels, "target": pixels}),
    ]
    assert len({each.fingerprint for each in sets}) == len(sets)
