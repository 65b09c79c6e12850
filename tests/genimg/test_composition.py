"""Scenes: what is seen of layers, and that masks, boxes and captions tell just that."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genimg import images, masks
from genimg.composition import KINDS, Composed, Composer, Scene
from genimg.composition.composing import feathered
from genimg.composition.poisson import cloned, eroded
from genimg.errors import InputError
from genimg.rng import fold

COLOURS = ["#ff0000", "#00ff00", "#0000ff", "#ffff00", "#00ffff"]


def composed(tree: dict, base: Path = Path(), number: int = 0) -> Composed:
    return Composer(Scene.validated(tree), base)(fold(0, torch.tensor([number])))


def disc(colour: tuple[int, int, int], side: int = 21) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - side // 2
    alpha = np.where(x * x + y * y <= (side // 2) ** 2, 255, 0)
    return np.dstack([np.broadcast_to(colour, (side, side, 3)), alpha]).astype(np.uint8)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_labels_are_those_of_the_pixels(seed):
    """Sharp rectangles of one colour each: the image itself tells which layer is seen where."""
    draw = np.random.default_rng(seed)
    layers, colours = [], draw.permutation(len(COLOURS)).tolist()
    for number in colours:
        x, y = draw.integers(-10, 50, 2).tolist()
        right, low = x + int(draw.integers(4, 40)), y + int(draw.integers(4, 30))
        corners = [[x, y], [right, y], [right, low], [x, low]]
        label = {"label": ("cat", "dog")[number % 2]} if number else {}
        layers.append({"kind": "quad", "image": COLOURS[number], "corners": corners} | label)
    made = composed({"background": "#ffffff", "size": [48, 40], "layers": layers})
    assert (made.image.shape, made.mask.shape) == ((40, 48, 3), (40, 48))
    labels = list(dict.fromkeys(layer["label"] for layer in layers if "label" in layer))
    boxes, expected = [], np.zeros((40, 48), np.uint8)
    for number in colours:
        colour = tuple(bytes.fromhex(COLOURS[number][1:]))
        mine = (made.image == colour).all(axis=2)
        kind = labels.index(("cat", "dog")[number % 2]) + 1 if number else 0
        expected[mine] = kind
        if number and mine.any():
            rows, columns = mine.any(axis=1).nonzero()[0], mine.any(axis=0).nonzero()[0]
            box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            boxes.append((kind, box, mine.sum()))
    assert np.array_equal(made.mask, expected)
    assert [(thing.label, thing.box, thing.area) for thing in made.things] == boxes
    assert made.caption.count("a ") == len(boxes)


def test_what_is_hidden_is_told_of_nowhere():
    square = [[10, 10], [20, 10], [20, 20], [10, 20]]
    under = {"kind": "quad", "image": "#ff0000", "corners": square, "label": "apple"}
    over = {"kind": "quad", "image": "#00ff00", "corners": square}
    beyond = {"kind": "sphere", "image": "#0000ff", "x": -50, "y": 5, "radius": 20, "label": "ball"}
    tree = {"size": [32, 32], "caption": "{things} on a table"}
    shown = composed(tree | {"layers": [under, beyond]})
    assert shown.caption == "an apple on a table"
    assert (shown.mask[10:20, 10:20] == 1).all()
    assert (len(shown.things), shown.things[0].area) == (1, 100)
    hidden = composed(tree | {"layers": [under, over, beyond]})
    assert hidden.caption == "nothing on a table"
    assert not hidden.things
    assert not hidden.mask.any()


def test_captions_list_what_is_seen_as_it_is_called():
    layers = [
        {"kind": "sphere", "image": colour, "x": 20 + 30 * n, "y": 20, "radius": 10, **told}
        for n, (colour, told) in enumerate(
            [("#ff0000", {"label": "ball", "caption": "a red ball"}), ("#00ff00", {"label": "egg"}),
             ("#0000ff", {"label": "ball"}), ("#000000", {})]
        )
    ]  # fmt: skip
    made = composed({"size": [120, 40], "layers": layers})
    assert made.caption == "a red ball, an egg and a ball"
    assert [thing.label for thing in made.things] == [1, 2, 1]


def test_files_are_cut_out_by_their_alpha_their_mask_or_a_class_of_it(tmp_path):
    red = disc((255, 0, 0))
    images.save(red, tmp_path / "alpha.png")
    images.save(red[..., :3], tmp_path / "opaque.jpg")
    images.save(red[..., 3:], tmp_path / "mask.png")
    classes = np.where(red[..., 3:] > 0, 7, 2).astype(np.uint8)
    (tmp_path / "classes.png").write_bytes(masks.encode(classes))
    whole = {"kind": "file", "path": "opaque.jpg"}
    ways = ["alpha.png", whole | {"mask": "mask.png"}, whole | {"mask": "classes.png", "of": 7}]
    made = [
        composed(
            {"background": "#000000", "size": [40, 40],
             "layers": [{"kind": "paste", "image": way, "x": 15.5, "y": 20.5, "label": "disc"}]},
            tmp_path,
        )
        for way in ways
    ]  # fmt: skip
    expected = np.zeros((40, 40), bool)
    expected[10:31, 5:26] = red[..., 3] > 0
    for each in made:
        assert np.array_equal(each.mask > 0, expected)
        assert np.array_equal(each.image[..., 0] > 128, expected)
        assert each.things[0].box == (5, 10, 26, 31)
    rest = whole | {"mask": "classes.png", "of": 2}
    inverse = {"kind": "paste", "image": rest, "x": 15.5, "y": 20.5, "label": "rest"}
    beside = composed({"size": [40, 40], "layers": [inverse]}, tmp_path)
    assert beside.mask.sum() == 21 * 21 - expected.sum()


def test_a_folder_gives_one_of_its_images_with_its_own_mask(tmp_path):
    for number, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        picture = disc(colour, 11 + 2 * number)
        (tmp_path / "photos" / "deeper").mkdir(parents=True, exist_ok=True)
        (tmp_path / "masks" / "deeper").mkdir(parents=True, exist_ok=True)
        images.save(picture[..., :3], tmp_path / "photos" / "deeper" / f"{number}.bmp")
        kind = np.where(picture[..., 3:] > 0, 1, 0).astype(np.uint8) * (number != 2)  # none of it
        (tmp_path / "masks" / "deeper" / f"{number}.png").write_bytes(masks.encode(kind))
    image = {"kind": "file", "path": "photos", "mask": "masks", "of": 1}
    layer = {"kind": "paste", "image": image, "label": "disc"}
    scene = {"background": "#000000", "size": [30, 30], "layers": [layer]}
    seen = set()
    for number in range(20):
        made = composed(scene, tmp_path, number)
        colours = {tuple(each) for each in made.image[made.mask > 0].tolist()}
        assert len(colours) == 1
        seen |= colours
        assert made.things[0].area == (made.image.max(axis=2) > 128).sum()
    assert seen == {(255, 0, 0), (0, 255, 0)}
    refused = image | {"of": 9}
    with pytest.raises(InputError, match="masks: nothing is of class 9"):
        composed(scene | {"layers": [layer | {"image": refused}]}, tmp_path)


def test_chance_keeps_to_its_ranges_and_is_a_function_of_the_key():
    layer = {"kind": "sphere", "image": "#ff0000", "radius": [3, 8], "copies": [0, 3], "label": "o"}
    rare = {"kind": "sphere", "image": "#00ff00", "radius": 2, "probability": 0.25, "label": "r"}
    scene = {"background": "#000000", "size": [400, 300], "layers": [layer, rare]}
    every = [composed(scene, number=number) for number in range(120)]
    assert np.array_equal(composed(scene, number=17).image, every[17].image)
    counts = [sum(thing.label == 1 for thing in made.things) for made in every]
    assert set(counts) == {0, 1, 2, 3}
    assert sum(thing.label == 2 for made in every for thing in made.things) in range(15, 50)
    sides = [th.box[2] - th.box[0] for made in every for th in made.things if th.label == 1]
    assert min(sides) <= 8
    assert 14 <= max(sides) <= 17
    boxes = np.array([thing.box for made in every for thing in made.things])
    assert boxes.min() >= 0
    assert (boxes[:, 2:] <= (400, 300)).all()
    assert boxes[:, 0].max() > 300
    assert boxes[:, 0].min() < 60


def test_feathers_fade_in_from_borders_but_not_from_the_canvas():
    corners = [[-20, 10], [20, 10], [20, 30], [-20, 30]]
    layer = {"kind": "quad", "image": "#ffffff", "corners": corners, "feather": 4, "label": "x"}
    made = composed({"background": "#000000", "size": [40, 40], "layers": [layer]})
    row, column = made.image[20, :, 0] / 255, made.image[:, 8, 0] / 255
    ramp = [1 / 9, 3 / 9, 5 / 9, 7 / 9]
    np.testing.assert_allclose(row[16:20], ramp[::-1], atol=0.01)
    np.testing.assert_allclose(column[10:14], ramp, atol=0.01)
    assert (row[:15] == 1).all()
    assert not row[20:].any()
    assert np.array_equal(made.mask > 0, made.image[..., 0] > 127)
    assert torch.equal(feathered(torch.ones(3, 3), 0), torch.ones(3, 3))


@pytest.mark.parametrize("blend", ["poisson", "mixed"])
def test_blended_layers_are_solved_within_what_they_cover(tmp_path, blend):
    draw = np.random.default_rng(0)
    room = draw.integers(60, 190, (40, 50, 3), np.uint8)
    photo = np.dstack([draw.integers(60, 190, (21, 21, 3), np.uint8), disc((0, 0, 0))[..., 3]])
    images.save(room, tmp_path / "room.png")
    images.save(photo, tmp_path / "photo.png")
    layer = {"kind": "paste", "image": "photo.png", "x": 20.5, "y": 30.5, "blend": blend}
    made = composed({"background": "room.png", "layers": [layer | {"label": "o"}]}, tmp_path)
    region = torch.zeros(40, 50, dtype=torch.bool)
    region[20:41, 10:31] = torch.from_numpy(photo[..., 3] > 0)[:20]  # it is cut off below
    source = torch.zeros(3, 40, 50)
    source[:, 20:, 10:31] = torch.from_numpy(photo[:20, :, :3].copy()).permute(2, 0, 1) / 255
    inner = eroded(region)
    below = torch.from_numpy(room).permute(2, 0, 1) / 255
    expected = cloned(below, source, inner, blend == "mixed").clamp(0, 1).mul(255).round()
    off = made.image.astype(int) - expected.permute(1, 2, 0).numpy().astype(int)
    assert np.abs(off).max() <= 1
    assert np.array_equal(made.mask > 0, inner.numpy())
    assert np.array_equal(made.image[~inner.numpy()], room[~inner.numpy()])


def test_a_background_is_cut_to_the_canvas_about_its_middle(tmp_path):
    room = np.zeros((20, 60, 3), np.uint8)
    room[:, 20:40] = 255
    images.save(room, tmp_path / "room.png")
    assert composed({"background": "room.png"}, tmp_path).image.shape == (20, 60, 3)
    square = composed({"background": "room.png", "size": [40, 40]}, tmp_path).image
    assert square.mean() == pytest.approx(255, abs=4)
    images.save(disc((255, 0, 0)), tmp_path / "disc.png")
    corner = composed({"background": "disc.png"}, tmp_path).image[0, 0]
    assert corner.tolist() == [255, 255, 255]


def test_collages_lay_images_in_rows(tmp_path):
    for number, colour in enumerate(COLOURS):
        flat = np.broadcast_to(tuple(bytes.fromhex(colour[1:])), (9 + number, 20, 3))
        images.save(flat.astype(np.uint8), tmp_path / f"{number}.png")
    collage = {"kind": "collage", "paths": ["."], "width": 34, "height": 23, "columns": 3,
               "rows": 2, "gap": 1, "colour": "#102030"}  # fmt: skip
    made = composed({"background": collage}, tmp_path).image
    tops, lefts = [(1, 11), (12, 22)], [(1, 11), (12, 22), (23, 33)]
    shown = [COLOURS[n % 5] for n in range(6)]
    for number, (row, column) in enumerate((row, column) for row in tops for column in lefts):
        cell = made[slice(*row), slice(*column)]
        assert (cell == tuple(bytes.fromhex(shown[number][1:]))).all()
    assert (made[[0, 11, 22]] == (16, 32, 48)).all()
    orders = {
        composed({"background": collage | {"shuffled": True}}, tmp_path, number).image.tobytes()
        for number in range(6)
    }
    assert len(orders) > 3


def test_mosaics_are_laid_of_the_nearest_tiles(tmp_path):
    (tmp_path / "tiles").mkdir()
    colours = [tuple(bytes.fromhex(colour[1:])) for colour in COLOURS]
    for number, colour in enumerate(colours):
        flat = np.broadcast_to(colour, (30, 40, 3)).astype(np.uint8)
        images.save(flat, tmp_path / "tiles" / f"{number}.png")
    chosen = np.random.default_rng(0).integers(0, 5, (6, 8))
    shown = np.array(colours, np.uint8)[chosen].repeat(6, axis=0).repeat(6, axis=1)
    near = (shown * 0.9 + 10).astype(np.uint8)
    images.save(near, tmp_path / "shown.png")
    mosaic = {"kind": "mosaic", "path": "shown.png", "tiles": "tiles", "columns": 8, "tile": 5}
    made = composed({"background": mosaic}, tmp_path).image
    assert np.array_equal(made, shown[::6, ::6].repeat(5, axis=0).repeat(5, axis=1))
    tinted = composed({"background": mosaic | {"tint": 1}}, tmp_path).image
    assert np.array_equal(tinted, near[::6, ::6].repeat(5, axis=0).repeat(5, axis=1))


def test_files_that_changed_since_another_scene_are_read_anew(tmp_path):
    for level, names in ((9, "a"), (90, "ab")):
        for name in names:
            flat = np.full((4, 4, 3), level, np.uint8)
            images.save(flat, tmp_path / f"{name}.png")
        shown = {composed({"background": "."}, tmp_path, each).image[0, 0, 0] for each in range(9)}
        assert shown == {level}
        collage = {"kind": "collage", "paths": ["."], "width": 9, "height": 4, "columns": 2,
                   "rows": 1, "gap": 1, "colour": "#000"}  # fmt: skip
        assert (composed({"background": collage}, tmp_path).image > 0).sum() == 3 * 2 * 6


MANY_CELLS = """
import resource, torch
from pathlib import Path
from genimg.composition.gathered import nearest_of
wanted, looks = torch.arange(200_000.0)[:, None] / 402, torch.arange(500.0)[:, None]
nearest_of(wanted[:9], looks)
lines = Path("/proc/self/status").read_text().splitlines()
taken = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData:"))
resource.setrlimit(resource.RLIMIT_DATA, (taken + (150 << 20),) * 2)
assert (looks[nearest_of(wanted, looks)] - wanted).abs().max() < 0.501
"""


def test_many_cells_are_compared_with_many_tiles_in_little_memory():
    """Together their distances take 400 MB, and there are 150."""
    subprocess.run([sys.executable, "-c", MANY_CELLS], check=True)


def test_kinds_say_what_they_are():
    assert all(kind.model_fields["kind"].description for kind in KINDS.values())


def numbers(low: float, high: float) -> st.SearchStrategy:
    """One, or a range."""
    one = st.floats(low, high)
    return one | st.tuples(one, one).map(sorted).map(list)


place = {"x": numbers(-30, 90), "y": numbers(-30, 90)}
solid = {"radius": numbers(0.1, 60), "tilt": numbers(-85, 85), "turn": numbers(-360, 360),
         "rotate": numbers(-360, 360), "azimuth": numbers(-360, 360)}  # fmt: skip
sides = st.floats(12, 90)
corners = st.tuples(st.floats(-40, 40), st.floats(-40, 40), sides, sides).map(
    lambda box: np.add([[0, 0], [box[2], 3], [box[2], box[3]], [-5, box[3] + 9]], box[:2]).tolist()
)
OPTIONS = {
    "paste": ({"rotate": numbers(-360, 360), "scale": numbers(0.01, 30)}, place),
    "quad": ({"corners": corners}, {}),
    "mesh": ({"points": corners.map(lambda c: [[c[0], c[1]], [c[3], c[2]]])}, {}),
    "sphere": (solid, place),
    "cylinder": (solid | {"height": numbers(0.1, 90)}, place),
}


@st.composite
def layers(draw):
    kind = draw(st.sampled_from(sorted(OPTIONS)))
    needed, left_out = OPTIONS[kind]
    return draw(
        st.fixed_dictionaries(
            {"kind": st.just(kind), "image": st.sampled_from(["#ff0000", "#0000ff80", "disc.png"])}
            | needed,
            optional=left_out
            | {"label": st.sampled_from("ab"), "feather": st.integers(0, 12)}
            | {"blend": st.sampled_from(["over", "poisson", "mixed"])}
            | {"copies": st.just([0, 2]), "probability": st.just(0.5)},
        )
    )


@settings(max_examples=60)
@given(st.lists(layers(), max_size=5), st.integers(1, 40), st.integers(1, 40))
def test_whatever_lies_in_a_scene_what_is_told_is_what_is_seen(tmp_path_factory, every, wide, high):
    assert set(OPTIONS) == set(KINDS)
    base = tmp_path_factory.getbasetemp()
    if not (base / "disc.png").exists():
        images.save(disc((9, 200, 30), 31), base / "disc.png")
    made = composed({"background": "#808080", "size": [wide, high], "layers": every}, base)
    assert made.image.shape == (high, wide, 3)
    assert made.mask.shape == (high, wide)
    shared = np.zeros((high, wide), int)
    for thing in made.things:
        x0, y0, x1, y1 = thing.box
        assert 0 <= x0 < x1 <= wide
        assert 0 <= y0 < y1 <= high
        inside = made.mask[y0:y1, x0:x1] == thing.label
        assert 0 < thing.area <= inside.sum()
        assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
        shared[y0:y1, x0:x1] |= inside
    assert np.array_equal(shared > 0, made.mask > 0)
    assert sum(thing.area for thing in made.things) == (made.mask > 0).sum()
    if not every:
        assert (made.image == 128).all()
