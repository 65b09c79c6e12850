"""Where textures are seen: against transforms that are known, and found another way."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation
from skimage import data, transform

from genimg.composition import KINDS
from genimg.composition.composing import around
from genimg.composition.flat import Paste, Quad
from genimg.composition.mesh import Mesh, triangles_of
from genimg.composition.solids import Cylinder, Sphere
from genimg.composition.surfaces import rendered
from genimg.rng import fold

KEY = fold(5, torch.tensor([0]))
CANVAS = (120, 90)
WHOLE = (0, 0, *CANVAS)
PHOTO = np.dstack([data.astronaut()[:64, 200:280], np.full((64, 80), 255, np.uint8)])
# its red tells the place across, its green the place down, from 0 at one border to 255 at the other
across, down = np.meshgrid(np.arange(255.0), np.arange(255.0))
PLACES = np.dstack([across + 0.5, down + 0.5, 0 * down, 255 + 0 * down]).round().astype(np.uint8)
WHITE = np.full((1, 1, 4), 255, np.uint8)


def seen(layer, *pictures: np.ndarray, window=WHOLE) -> np.ndarray:
    """float [H, W, 4] in 0 to 255: what a canvas shows of a layer alone."""
    surfaces = layer.surfaces(pictures, CANVAS, KEY)
    made = sum(rendered(surface, window) for surface in surfaces)
    return made.permute(1, 2, 0).numpy().astype(np.float64) * 255


def homography(corners: np.ndarray) -> np.ndarray:
    """[3, 3] of the unit square onto corners, by its eight equations."""
    rows, right = [], []
    for (u, v), (x, y) in zip([(0, 0), (1, 0), (1, 1), (0, 1)], corners, strict=True):
        rows += [[u, v, 1, 0, 0, 0, -u * x, -v * x], [0, 0, 0, u, v, 1, -u * y, -v * y]]
        right += [x, y]
    return np.append(np.linalg.solve(rows, right), 1).reshape(3, 3)


def quads():
    """Convex quadrilaterals on the canvas."""
    moves = st.lists(st.floats(-14, 14), min_size=8, max_size=8)
    middle = np.array([[30, 22], [90, 22], [90, 68], [30, 68]])
    return moves.map(lambda by: middle + np.array(by).reshape(4, 2))


def test_what_is_moved_by_whole_pixels_keeps_its_pixels():
    made = seen(Paste(image="x", x=50, y=40), PHOTO)
    np.testing.assert_allclose(made[8:72, 10:90], PHOTO, atol=1e-3)
    made[8:72, 10:90] = 0
    assert not made.any()
    odd = seen(Paste(image="x", x=50.2, y=40), PHOTO[:63, :77])  # onto whole pixels, all the same
    place = tuple(odd[..., 3].nonzero()[axis].min() for axis in (0, 1))
    np.testing.assert_allclose(odd[place[0] :, place[1] :][:63, :77], PHOTO[:63, :77], atol=1e-3)


def test_a_picture_of_odd_sides_moves_on_by_the_pixels_that_its_middle_does():
    for rotate in (0, 90):
        places = []
        for x in range(20, 26):
            made = seen(Paste(image="x", x=x, y=x, rotate=rotate), PHOTO[:5, :7])
            places.append(np.argwhere(made[..., 3] > 254)[0])
        assert (np.diff(places, axis=0) == 1).all()


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_right_angles_are_counterclockwise_and_exact(quarters):
    made = seen(Paste(image="x", x=50, y=42, rotate=90 * quarters), PHOTO)
    turned = np.rot90(PHOTO, quarters)
    top, left = 42 - turned.shape[0] // 2, 50 - turned.shape[1] // 2
    part = made[top : top + turned.shape[0], left : left + turned.shape[1]]
    np.testing.assert_allclose(part, turned, atol=1e-3)
    assert made[..., 3].sum() == pytest.approx(255 * 64 * 80)


def test_mirrors_scales_and_sides():
    mirrored = seen(Paste(image="x", x=50, y=40, mirrored=1), PHOTO)
    np.testing.assert_allclose(mirrored[8:72, 10:90], PHOTO[:, ::-1], atol=1e-3)
    half = seen(Paste(image="x", x=50, y=40, scale=0.5), PHOTO)
    assert half[..., 3].sum() == pytest.approx(255 * 32 * 40)
    blocks = PHOTO.reshape(32, 2, 40, 2, 4).mean(axis=(1, 3))
    assert np.abs(half[24:56, 30:70] - blocks).mean() < 3
    sized = seen(Paste(image="x", x=50, y=40, side=40), PHOTO)
    np.testing.assert_allclose(sized, half, atol=1e-3)


def test_a_transparent_margin_is_left_out():
    framed = np.zeros((100, 100, 4), np.uint8)
    framed[10:74, 5:85] = PHOTO
    pasted = Paste(image="x", x=50, y=40)
    np.testing.assert_allclose(seen(pasted, framed), seen(pasted, PHOTO), atol=1e-3)


@settings(max_examples=20)
@given(quads())
def test_quadrilaterals_are_seen_through_their_homography(corners):
    small = PHOTO[:24, :32]  # enlarged, so that a pixel shows the texture at its middle
    made = seen(Quad(image="x", corners=corners.tolist()), small)
    y, x = np.mgrid[:90, :120] + 0.5
    back = np.linalg.inv(homography(corners)) @ np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    u, v = (back[:2] / back[2]).reshape(2, 90, 120)
    inside = ndimage.binary_erosion((u > 0) & (u < 1) & (v > 0) & (v < 1))
    for channel in range(3):
        expected = ndimage.map_coordinates(
            small[..., channel].astype(float), [v * 24 - 0.5, u * 32 - 0.5], order=1, mode="nearest"
        )
        off = np.abs(made[..., channel] - expected)[inside]
        assert off.mean() < 1.5
    np.testing.assert_allclose(made[inside, 3], 255, atol=1e-3)


@settings(max_examples=20)
@given(quads())
def test_borders_cover_pixels_by_their_share(corners):
    made = seen(Quad(image="x", corners=corners.tolist()), WHITE)
    x, y = corners.T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert made[..., 3].sum() / 255 == pytest.approx(area, rel=0.01)
    np.testing.assert_allclose(made[..., 0], made[..., 3], atol=1e-3)  # premultiplied white


@pytest.mark.parametrize("factor", [3, 8, 21])
def test_what_is_shrunk_does_not_alias(factor):
    checks = (np.indices((40 * factor, 40 * factor)).sum(axis=0) % 2 * 255).astype(np.uint8)
    picture = np.dstack([checks] * 3 + [np.full_like(checks, 255)])
    made = seen(Paste(image="x", x=60, y=45, side=40), picture)[30:60, 45:75, 0]
    assert np.abs(made - 127.5).max() < 20
    assert made.mean() == pytest.approx(127.5, abs=2)


def test_an_even_mesh_is_the_picture_and_an_affine_one_a_quadrilateral():
    grid = [[[10 + 20 * c, 8 + 16 * r] for c in range(5)] for r in range(5)]
    pasted = seen(Paste(image="x", x=50, y=40), PHOTO)
    np.testing.assert_allclose(seen(Mesh(image="x", points=grid), PHOTO), pasted, atol=1e-2)
    leaning = [
        [[20.03 + 15 * c + 4 * r, 10.01 + 3 * c + 12 * r] for c in range(5)] for r in range(4)
    ]
    corners = [leaning[0][0], leaning[0][-1], leaning[-1][-1], leaning[-1][0]]
    quad = seen(Quad(image="x", corners=corners), PHOTO)
    np.testing.assert_allclose(seen(Mesh(image="x", points=leaning), PHOTO), quad, atol=1e-2)


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_each_triangle_of_a_mesh_has_its_affine_map(seed):
    generator = np.random.default_rng(seed)
    points = np.stack(np.meshgrid(np.linspace(10, 110, 5), np.linspace(8, 80, 4)), axis=-1)
    points += generator.uniform(-5, 5, points.shape)
    made = seen(Mesh(image="x", points=points.tolist()), PLACES)
    corners, uv = (each.numpy() for each in triangles_of(torch.from_numpy(points)))
    assert len(corners) == 2 * 4 * 3
    for triangle, there in zip(corners, uv, strict=True):
        affine = transform.AffineTransform.from_estimate(there, triangle)
        middle = there.mean(axis=0, keepdims=True)
        x, y = affine(middle)[0]
        place = affine.inverse(np.floor([[x, y]]) + 0.5)[0]  # of the middle of its pixel
        np.testing.assert_allclose(made[int(y), int(x), :2] / 255, place, atol=0.01)


def on_solid(points: np.ndarray, tilt: float, rotate: float) -> np.ndarray:
    """Points of a solid (right, down, to its front) as a viewer sees them, in the same axes."""
    lean = Rotation.from_euler("x", tilt, degrees=True)  # its upper end comes nearer
    roll = Rotation.from_euler("z", -rotate, degrees=True)  # as y goes down
    return (roll * lean.inv()).apply(points)


def compared(made: np.ndarray, where, uv: np.ndarray, most: float) -> int:
    """How many points there were to compare; each pixel tells of its place on the picture.

    where: places on the picture [N, 2] -> on the canvas, which are taken to the middles of pixels
    """
    x, y = np.floor(where(uv)).astype(int).T
    middles = np.stack([x, y], axis=-1) + 0.5
    for _ in range(5):  # Newton's method
        columns = [(where(uv + step) - where(uv - step)) / 2e-6 for step in np.eye(2) * 1e-6]
        jacobian = np.stack(columns, axis=-1)
        uv = uv + np.linalg.solve(jacobian, (middles - where(uv))[..., None])[..., 0]
    pixel = made[y, x]
    within = np.abs(uv[:, 1] - 0.5) < 0.43  # lest a part of the pixel show what lies beyond
    whole = (pixel[:, 3] > 254) & within
    off = pixel[whole, :2] / 255 - uv[whole]
    off[:, 0] -= off[:, 0].round()
    assert np.abs(off).max() < most
    return int(whole.sum())


SOLID = 0.005  # of a picture's side, by which pixels may be off
angles = st.tuples(st.floats(-60, 60), st.floats(-180, 180), st.floats(-180, 180))


@settings(max_examples=12)
@given(angles)
def test_spheres_show_latitude_and_longitude_where_they_lie(angle):
    tilt, rotate, turn = angle
    layer = Sphere(image="x", x=60, y=45, radius=40, tilt=tilt, rotate=rotate, turn=turn, ambient=1)
    made = seen(layer, PLACES)
    generator = np.random.default_rng(0)
    u, v = generator.uniform(0.02, 0.98, 400), generator.uniform(0.2, 0.8, 400)

    def there(uv: np.ndarray) -> np.ndarray:
        theta, latitude = 2 * math.pi * (uv[:, 0] - 0.5 + turn / 360), math.pi * (uv[:, 1] - 0.5)
        across, ahead = np.cos(latitude) * np.sin(theta), np.cos(latitude) * np.cos(theta)
        return on_solid(np.stack([across, np.sin(latitude), ahead], -1), tilt, rotate)

    uv = np.stack([u, v], -1)
    near = (there(uv)[:, 2] > 0.5) & (u > 0.04) & (u < 0.96)  # at its seam a pixel has both borders
    assert compared(made, lambda uv: (60, 45) + 40 * there(uv)[:, :2], uv[near], SOLID) > 50


@settings(max_examples=12)
@given(angles)
def test_cylinders_show_their_picture_and_their_cap(angle):
    tilt, rotate, turn = angle
    layer = Cylinder(
        image="x", x=60, y=45, radius=24, height=40, tilt=tilt, rotate=rotate, turn=turn, ambient=1
    )
    red = np.array([[[255, 0, 0, 255]]], np.uint8)
    made = seen(layer, PLACES, red)
    generator = np.random.default_rng(0)
    u, v = generator.uniform(0.04, 0.96, 400), generator.uniform(0.05, 0.95, 400)

    def there(uv: np.ndarray) -> np.ndarray:
        theta = 2 * math.pi * (uv[:, 0] - 0.5 + turn / 360)
        points = np.stack([24 * np.sin(theta), 40 * (uv[:, 1] - 0.5), 24 * np.cos(theta)], -1)
        return (60, 45) + on_solid(points, tilt, rotate)[:, :2]

    near = np.cos(2 * math.pi * (u - 0.5 + turn / 360)) > 0.5
    assert compared(made, there, np.stack([u, v], -1)[near], SOLID) > 50
    if abs(tilt) > 15:
        end = on_solid(np.array([[0, -math.copysign(20, tilt), 0]]), tilt, rotate)[0]
        x, y = np.add(end[:2], (60, 45))
        np.testing.assert_allclose(made[int(y), int(x)], red[0, 0], atol=1e-3)
    # a tilted cylinder's outline: its side and the halves of two ellipses
    a, b = 24, 24 * math.sin(math.radians(abs(tilt)))
    area = 48 * 40 * math.cos(math.radians(tilt)) + math.pi * a * b
    assert made[..., 3].sum() / 255 == pytest.approx(area, rel=0.01)


@pytest.mark.parametrize("tilt", [50, -50])
def test_ends_of_cylinders_turn_with_them_and_are_never_mirrored(tilt):
    """By where points of a picture come to lie that is glued onto the end that is seen."""
    turn, rotate, above = 70, 20, math.copysign(1, tilt)
    layer = Cylinder(
        image="x", x=60, y=45, radius=30, height=10, tilt=tilt, rotate=rotate, turn=turn, ambient=1
    )
    made = seen(layer, PLACES, PLACES)
    uv = np.random.default_rng(0).uniform(0.2, 0.8, (200, 2))

    def there(uv: np.ndarray) -> np.ndarray:
        right, down = (60 * (uv - 0.5)).T
        out, theta = above * down, math.radians(turn)
        points = np.stack([
            right * math.cos(theta) + out * math.sin(theta), np.full_like(right, -above * 5),
            out * math.cos(theta) - right * math.sin(theta),
        ], -1)  # fmt: skip
        return (60, 45) + on_solid(points, tilt, rotate)[:, :2]

    assert compared(made, there, uv, SOLID) > 50


def test_light_falls_by_lamberts_law_from_where_it_comes():
    ball = {"image": "x", "x": 60, "y": 45, "radius": 40, "rotate": 70}
    layer = Sphere(**ball, azimuth=90, elevation=30, ambient=0.2)
    made = seen(layer, WHITE)[..., 0] / 255
    light = np.array([0, -math.cos(math.pi / 6), math.sin(math.pi / 6)])  # from above
    for x, y in [(60, 45), (60, 20), (80, 40), (40, 70), (60, 80)]:
        flat = np.array([x + 0.5 - 60, y + 0.5 - 45]) / 40
        normal = np.array([*flat, math.sqrt(1 - flat @ flat)])
        expected = 0.2 + 0.8 * max(0, normal @ light)
        assert made[y, x] == pytest.approx(expected, abs=0.01)
    can = Cylinder(
        image="x", x=60, y=45, radius=20, height=40, tilt=30, azimuth=90, elevation=60, ambient=0.1
    )
    lit = seen(can, WHITE, WHITE)[..., 0] / 255
    top = 45 - 20 * math.cos(math.pi / 6)
    assert lit[int(top), 60] == pytest.approx(0.1 + 0.9 * math.cos(math.pi / 6), abs=0.01)
    assert lit[60, 60] == pytest.approx(0.1 + 0.9 * 0.5, abs=0.01)  # 60 degrees off the light


@pytest.mark.parametrize(
    "layer",
    [
        Paste(image="x", x=60, y=45, rotate=25, scale=0.7),
        Quad(image="x", corners=[[20, 10], [100, 30], [90, 80], [30, 70]]),
        Mesh(image="x", points=[[[10, 10], [60, 20], [110, 5]], [[15, 80], [55, 70], [100, 85]]]),
        Sphere(image="x", x=60, y=45, radius=30, tilt=40),
        Cylinder(image="x", x=60, y=45, radius=20, height=50, tilt=-30, rotate=40),
    ],
    ids=lambda each: each.kind,
)
def test_parts_of_a_canvas_are_as_in_the_whole_and_nothing_lies_beyond(layer):
    assert {Paste, Quad, Mesh, Sphere, Cylinder} == set(KINDS.values())
    pictures = [PHOTO] * len(layer.pictures())
    whole = seen(layer, *pictures)
    np.testing.assert_allclose(
        seen(layer, *pictures, window=(33, 21, 77, 58)), whole[21:58, 33:77], atol=1e-3
    )
    x0, y0, x1, y1 = around(layer.surfaces(pictures, CANVAS, KEY))
    beyond = whole.copy()
    beyond[max(0, y0) : y1, max(0, x0) : x1] = 0
    assert not beyond.any()
