"""Scenes that cannot be composed are refused before anything is, each with a remedy."""

import json

import numpy as np
import pytest

from genimg import images
from genimg.composition import Composer, Scene, read_scene
from genimg.errors import InputError

ONE, QUAD = {"kind": "paste", "image": "#ff0000"}, {"kind": "quad", "image": "x"}


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        ({}, "size is missing: a colour has no sides"),
        ({"size": [0, 5]}, "size.0=0"),
        ({"size": [9000, 9000]}, "9000x9000 is more than 64,000,000 pixels"),
        ({"layer": []}, "unknown key 'layer'; did you mean 'layers'?"),
        ({"background": "#ggg"}, "colour='#ggg': give a colour as #c8c8c8"),
        ({"layers": [{"image": "x"}]}, "layers.0: kind is missing; known: cylinder, mesh, paste"),
        ({"layers": [{"kind": "quod"}]}, "layers.0: kind='quod': did you mean 'quad'?"),
        ({"layers": [ONE, ONE | {"sclae": 2}]}, "layers.1: unknown key 'sclae'; did you mean"),
        ({"layers": [ONE | {"scale": [2, 1]}]}, "a range has its smallest value first: [1, 2]"),
        ({"layers": [ONE | {"x": "left"}]}, "x='left'"),
        ({"layers": [ONE | {"image": {"kind": "fle"}}]}, "kind='fle': did you mean 'file'?"),
        ({"layers": [ONE | {"image": {"kind": "file"}}]}, "path is missing; give it"),
        (
            {"layers": [QUAD | {"corners": [[0, 0], [9, 9], [9, 0], [0, 9]]}]},
            "no convex quadrilateral; give its corners in the order",
        ),
        (
            {"layers": [QUAD | {"corners": [[0, 0], [9, 0], [2, 2], [0, 9]]}]},
            "no convex quadrilateral",
        ),
        ({"layers": [QUAD | {"corners": [[0, 0]]}]}, "corners"),
        ({"layers": [ONE | {"label": "a\nb"}]}, r"label='a\nb': give words in one line"),
        ({"layers": [ONE | {"label": "a\u2028b"}]}, "give words in one line"),  # to classes.txt
        ({"layers": [ONE | {"label": " "}]}, "label=' ': give words in one line, without space"),
        ({"layers": [ONE | {"label": "background"}]}, "masks call class 0 so"),
        (
            {"layers": [{"kind": "mesh", "image": "x", "points": [[[0, 0], [9, 0]], [[0, 9]]]}]},
            "points: rows of 1 and 2",
        ),
        (
            {"layers": [{"kind": "mesh", "image": "x",
                         "points": [[[0, 0], [9, 0], [5, 0]], [[0, 9], [9, 9], [14, 9]]]}]},
            "the mesh folds over, or has no area, between row 0 and 1, column 1 and 2",
        ),
        ({"layers": [{"kind": "sphere", "image": "x", "radius": 0}]}, "radius"),
        ({"layers": [{"kind": "cylinder", "image": "x", "radius": 1}]}, "height is missing"),
        (
            {"background": {"kind": "collage", "paths": ["x"], "width": 9, "height": 9, "gap": 3}},
            "width=9: too little for 3 cells",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_scene_is_named(tmp_path, tree, told):
    sized = tree if not tree or "size" in tree else {"size": [20, 20], **tree}
    (tmp_path / "scene.json").write_text(json.dumps(sized))
    with pytest.raises(InputError) as refused:
        read_scene(tmp_path / "scene.json")
    assert told in str(refused.value)
    assert "scene.json: " in str(refused.value)


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("phto.png", "phto.png: no such file or folder; did you mean 'photo.png'?"),
        ("no/where.png", "no/where.png: no such file or folder"),
        ("empty", "empty: no images in it"),
        ("notes.png", "notes.png: not an image in PNG"),
        ({"kind": "file", "path": "photo.png", "mask": "small.png"}, "small.png: is 5x5, but its"),
        ({"kind": "file", "path": "photo.png", "mask": "several"}, "several: no mask for 1 of"),
        ({"kind": "file", "path": "photo.png", "of": 1}, "of=1: a class of which mask?"),
        ({"kind": "mosaic", "path": "several", "tiles": "several"}, "several: is a folder"),
        ({"kind": "mosaic", "path": "photo.png", "tiles": "several", "columns": 1000, "tile": 512},
         "512000x256000 is more than 64,000,000 pixels"),
        ({"kind": "collage", "paths": ["several", "gone"], "width": 9, "height": 9}, "gone: no"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used_are_refused_before_anything_is_composed(tmp_path, image, told):
    images.save(np.zeros((10, 20, 3), np.uint8), tmp_path / "photo.png")
    images.save(np.zeros((5, 5, 3), np.uint8), tmp_path / "small.png")
    (tmp_path / "notes.png").write_text("no image")
    for folder in ("several", "empty"):
        (tmp_path / folder).mkdir()
    for name in ("a.png", "b.png"):
        images.save(np.zeros((10, 20, 3), np.uint8), tmp_path / "several" / name)
    scene = Scene.validated({"size": [20, 20], "layers": [{"kind": "paste", "image": image}]})
    with pytest.raises(InputError) as refused:
        Composer(scene, tmp_path)
    assert told in str(refused.value)
