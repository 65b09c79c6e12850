"""`genimg degrade`: the damage of recipes on files, the same again, and what is refused."""

from pathlib import Path

import icc
import numpy as np
import pytest
import torch
from photo_folders import files, printed, write_photos

from genimg import images
from genimg.degradations import Holes, Noise, degrade
from genimg.pixels import to_bytes_range, to_tensor
from genimg.rng import fold


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(tmp_path / "photos", 5)
    monkeypatch.chdir(tmp_path)


def test_files_are_damaged_as_a_recipe_damages_them(command):
    line = "degrade photos -o {} --seed {} --masks holes --degradations "
    listed = "'[{kind: noise, low: 25, high: 25}, {kind: holes, low: 0.3, high: 0.3}]'"
    assert printed(command(line.format("made", 3) + listed)) == "made: 5 images\n"
    assert files("made").keys() == files("holes").keys() == files("photos").keys()
    every = (Noise(low=25, high=25), Holes(low=0.3, high=0.3))
    for number, name in enumerate(sorted(files("photos"))):
        clean = to_tensor(images.load(f"photos/{name}"))[None]
        expected = degrade(every, clean, fold(3, torch.tensor([number])))
        pixels = to_bytes_range(expected.images)[0].permute(1, 2, 0).numpy()
        assert np.array_equal(images.load(f"made/{name}"), pixels)
        mask = images.load(f"holes/{name}")[..., 0] == 255
        assert np.array_equal(mask, expected.tells["mask"][0, 0].numpy() == 1)
    printed(command(line.format("again", 3) + listed))
    printed(command(line.format("other", 4) + listed))
    assert files("again") == files("made") != files("other")


def test_colours_stay_those_of_their_profile(command):
    first, second, *_ = sorted(files("photos"))
    images.save(images.load(f"photos/{first}"), f"photos/{first}", profile=icc.rgb())
    printed(command("degrade photos -o made --degradations '[{kind: noise}]'"))
    assert images.profile(files("made")[first]) == icc.rgb()
    assert images.profile(files("made")[second]) is None


def test_what_cannot_be_read_is_listed_and_the_rest_done(command):
    first, *others = sorted(files("photos"))
    Path("photos", first).write_bytes(b"no image")
    ended = command("degrade photos -o made --degradations '[{kind: noise}]'")
    assert ended.code == 1
    assert f"failed: photos/{first}: not an image" in ended.err
    assert files("made").keys() == {*others, "failures.jsonl"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--degradations '[]'", "give a list, as"),
        ("--degradations noise", "give a list, as"),
        ("--degradations '[{kind: fog}]'", "kind='fog'"),
        ("--degradations '[{kind: noise, hight: 3}]'", "did you mean 'high'?"),
        (f"--degradations '[{{kind: noise}}]' --seed {2**63}", "--seed"),
        ("--degradations '[{kind: noise}]' --masks holes", "nothing of the list makes holes"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(command, arguments, told):
    ended = command(f"degrade photos -o made {arguments}")
    assert ended.code == 2
    assert told in ended.err
    assert not Path("made").exists()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("degrade photos -o photos", "-o photos: lies in photos, whose images are read"),
        ("degrade photos/01.png -o photos", "photos/01.png would be replaced"),
        ("degrade photos -o holes --masks holes", "--masks holes: is -o too"),
    ],
)
def test_no_image_that_is_read_is_replaced(command, line, told):
    before = files("photos")
    ended = command(f"{line} --degradations '[{{kind: holes, low: 0.3, high: 0.3}}]'")
    assert ended.code == 2
    assert told in " ".join(ended.err.split())
    assert files("photos") == before
