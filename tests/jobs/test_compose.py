"""`genimg compose`: folders that trainings take, the same again, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from photo_folders import files, printed, write_photos

import jobs
from genimg import images, masks
from genimg.composition import KINDS, PICTURES
from genimg.data.sources import open_source

PAGE = (Path(jobs.__file__).parents[1] / "docs" / "composition.md").read_text()
BALL = {"kind": "sphere", "image": "photos", "radius": [5, 9], "copies": [1, 3], "label": "ball"}
CAN = {"kind": "cylinder", "image": "#c02020", "radius": 6, "height": 20, "label": "can"}
SCENE = {"background": "photos", "size": [64, 48], "layers": [BALL, CAN | {"probability": 0.7}]}


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(tmp_path / "photos", 5)
    monkeypatch.chdir(tmp_path)
    Path("scene.json").write_text(json.dumps(SCENE))


def test_a_folder_is_data_whose_labels_are_right(command):
    assert printed(command("compose scene.json -n 12 -o made --seed 3")) == "made: 12 images\n"
    told = json.loads(Path("made/annotations.json").read_text())["annotations"]
    assert [each["id"] for each in told] == [*range(1, len(told) + 1)]  # 0 is none to COCO's judge
    source = open_source("made")
    assert set(source.columns) == {"image", "mask", "boxes", "text"}
    assert source.classes["boxes"] == ("ball", "can")
    assert source.classes["mask"] == ("background", "ball", "can")
    assert len(source) == 12
    for number in range(12):
        image, mask = source.read(number), source.read(number, "mask")[..., 0]
        boxes, text = source.read(number, "boxes"), source.read(number, "text")
        assert image.shape == (48, 64, 3)
        words = text.replace(" and ", ", ").split(", ")
        assert words == [f"a {('ball', 'can')[int(kind)]}" for kind in boxes[:, 0]]
        for kind, x0, y0, x1, y1 in boxes.astype(int).tolist():
            inside = mask[y0:y1, x0:x1] == kind + 1
            edges = inside[0], inside[-1], inside[:, 0], inside[:, -1]
            assert all(edge.any() for edge in edges)
        assert set(np.unique(mask)) - {0} == {kind + 1 for kind in boxes[:, 0].astype(int)}
    printed(command("compose scene.json -n 4 -o fewer --seed 3"))
    assert files("fewer/images").items() <= files("made/images").items()
    printed(command("compose scene.json -n 4 -o other --seed 4"))
    assert files("other/images") != files("fewer/images")


def test_one_image_is_written_where_one_is_named(command):
    told = printed(command("compose scene.json -o deeper/one.webp"))
    assert told.startswith("deeper/one.webp: a ball")
    printed(command("compose scene.json -o made"))
    assert np.array_equal(images.load("deeper/one.webp"), images.load("made/images/000000.png"))


def test_without_labels_there_are_only_images(command):
    Path("scene.json").write_text(json.dumps({"background": "photos", "layers": []}))
    printed(command("compose scene.json -n 2 -o made"))
    assert files("made").keys() == {"images/000000.png", "images/000001.png"}


def test_what_cannot_be_composed_is_listed_and_the_rest_done(command):
    for number in range(3):
        Path("photos", f"broken{number}.png").write_bytes(b"no image")
    ended = command("compose scene.json -n 12 -o made")
    assert ended.code == 1
    assert "not an image in PNG" in ended.err
    failed = [
        json.loads(line)["file"] for line in Path("made/failures.jsonl").read_text().splitlines()
    ]
    assert 0 < len(failed) < 12
    source = open_source("made")
    assert len(source) == 12 - len(failed)
    assert not {f"images/{name}" for name in failed} & set(source.names)


def test_what_is_composed_before_an_interrupt_is_whole(command, monkeypatch):
    """Also where it comes between an image and its mask."""
    written = masks.encode

    def interrupted(mask: np.ndarray) -> bytes:
        if len(list(Path("made/images").iterdir())) > 3:
            raise KeyboardInterrupt
        return written(mask)

    monkeypatch.setattr(masks, "encode", interrupted)
    ended = command("compose scene.json -n 12 -o made")
    assert ended.code not in (0, None)
    assert "interrupted: these are whole, the other 9 are missing" in ended.err
    source = open_source("made")
    assert set(source.columns) == {"image", "mask", "boxes", "text"}
    assert len(source) == 3


def test_the_scene_of_the_docs_is_composed(command):
    text = PAGE.partition("`scene.json`:")[2].partition("\n\n    {")[2]
    lines = ["    {" + text.split("\n")[0], *text.split("\n")[1:]]
    end = next(n for n, line in enumerate(lines) if not line.startswith("    "))
    scene = json.loads("\n".join(lines[:end]))
    Path("scene.json").write_text(json.dumps(scene))
    for folder in ("rooms", "posters"):
        write_photos(Path(folder), 3)
    images.save(np.zeros((20, 60, 3), np.uint8), "label.png")
    for name in files("photos"):
        sides = images.load(f"photos/{name}").shape[:2]
        mask = np.full((*sides, 1), 2, np.uint8)
        Path("masks", name).parent.mkdir(parents=True, exist_ok=True)
        Path("masks", name).write_bytes(masks.encode(mask))
    printed(command("compose scene.json -n 3 -o made"))
    assert len(open_source("made")) == 3


def test_every_key_is_told(command):
    told = printed(command("compose --keys"))
    for kind in (*KINDS.values(), *PICTURES.values()):
        assert f"of kind {kind.model_fields['kind'].default}" in told
        assert all(key in told for key in kind.model_fields)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "SCENE is missing: genimg compose scene.json -o out.png"),
        ("scene.json", "-o is missing"),
        (f"scene.json -o made --seed {2**63}", "--seed"),
        ("gone.json -o made", "gone.json: No such file"),
        ("photos/01.png -o made", "photos/01.png: not JSON"),
        ("list.json -o made", "list.json: give an object"),
        ("wrong.json -o made", "wrong.json: layers.0: kind='ball'"),
        ("absent.json -o made", "rooms: no such file or folder"),
        ("scene.json -o out.gif", "cannot write images as '.gif'"),
        ("scene.json -n 2 -o out.png", "-o out.png: is one image; give a folder for 2"),
        ("scene.json -o scene.json/out.png", "scene.json is not a folder"),
        ("scene.json -o photos", "-o photos: there are files already"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(command, arguments, told):
    Path("list.json").write_text("[]")
    Path("wrong.json").write_text('{"size": [9, 9], "layers": [{"kind": "ball"}]}')
    Path("absent.json").write_text('{"background": "rooms"}')
    before = files(".")
    ended = command(f"compose {arguments}")
    assert ended.code == 2
    assert told in ended.err
    assert files(".") == before
