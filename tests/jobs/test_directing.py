"""`genimg directions`: a version that knows them, and then follows them by name."""

import json
import shutil
from pathlib import Path

import pytest
from photo_folders import files, printed
from tiny_recipes import tiny


def test_directions_are_found_registered_and_followed(command, here: Path):
    ended = command("directions dcgan --judge judge --samples 256")
    if "nothing is registered" in ended.err:  # so small a model may have none
        pytest.fail(ended.err)
    assert ended.lines[-1] == "registered dcgan@2"
    rows = [line.split() for line in ended.lines[:-1]]
    assert any(row[0] in ("brightness", "width", "thickness") for row in rows if row)
    (folder,) = (here / "registry/models/dcgan/versions").glob("00002")
    known = json.loads((folder / "directions.json").read_text())
    assert all(each["r2"] >= 0.1 for each in known.values())
    name = next(iter(known))
    printed(command(f"sample dcgan --seed 3 -n 2 --direction '{name}=2' -o moved"))
    printed(command("sample dcgan --seed 3 -n 2 -o plain"))
    moved, plain = files("moved"), files("plain")
    pictures = [each for each in moved if each.endswith("png")]
    assert all(moved[each] != plain[each] for each in pictures)
    assert len(pictures) == 2
    wrong = command(f"sample dcgan --direction '{name}x=2' -o never")
    assert wrong.code == 2
    assert "did you mean" in wrong.err
    assert not Path("never").exists()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("directions ffdnet", "ffdnet models cannot sample"),
        ("directions dcgan --judge judge-8", "--judge judge-8 takes"),
        ("sample dcgan --direction width=1 -o never", "this dcgan takes no direction"),
        ("directions ./registry", "is a folder: give --register NAME"),
    ],
)
def test_what_has_no_directions_is_told_before_anything_is_drawn(command, here, line, told):
    ended = command(line)
    assert ended.code == 2
    assert told in ended.err
    assert not Path("never").exists()


def test_what_no_direction_can_be_found_of_is_told_before_anything_is_drawn(command, here: Path):
    shutil.copytree(here / "registry/models/dcgan/versions/00001", "own")
    for recipe, more, told in (
        (
            tiny("flow"),
            "--samples 100",
            "--samples 100: too few for 768 latents; give 3072 or more",
        ),
        (tiny("dcgan", "data.stack=true"), "--judge judge", "--judge judge: tells classes of each"),
    ):
        recipe.save(here / "own/recipe.json")
        ended = command(f"directions ./own --register moved {more}")
        assert ended.code == 2
        assert told in ended.err
