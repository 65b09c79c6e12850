"""Each augmentation does to pixels what it says, and what is beside an image follows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage, stats
from skimage import data

from genimg import recipes
from genimg.augmentations import KINDS, Geometric, Mixing, Values
from genimg.augmentations.geometry import Affine, Elastic, Perspective, onto, pixels, projected
from genimg.augmentations.values import Cutout, Light
from genimg.data.augment import augment, augmenting, varied
from genimg.data.beside import BOXES
from genimg.data.grids import FRAMES
from genimg.data.loader import Loader
from genimg.data.memory import Images
from genimg.errors import InputError
from genimg.ranges import draw
from genimg.rng import fold

SIDE = 64
PHOTO = torch.from_numpy(np.ascontiguousarray(data.astronaut()[::8, ::8].transpose(2, 0, 1)))
KEYS = fold(3, torch.arange(12))
WHOLE = torch.ones(len(KEYS))  # of their strength
MOVING = (
    Affine(rotate=25, zoom=(0.7, 1.4), shear=20, translate=0.1),
    Affine(rotate=180, zoom=(1, 1)),
    Perspective(corners=0.2),
    Elastic(strength=2, spacing=16),
)
EVERY = (*MOVING, Light(), Cutout())


def whole(keys):
    return torch.ones(len(keys))


def of_photos(augmentation, keys=KEYS, done=None):
    return varied({"image": PHOTO.expand(len(keys), -1, -1, -1)}, keys, augmentation, done)["image"]


def test_every_kind_is_tried_here():
    mixing = {kind for kind in KINDS.values() if issubclass(kind, Mixing)}  # in test_mixing
    assert {type(each) for each in EVERY} == set(KINDS.values()) - mixing


@pytest.mark.parametrize("augmentation", MOVING, ids=lambda each: each.told())
def test_points_go_where_pixels_are_seen(augmentation):
    warp = augmentation.warp(KEYS, SIDE, WHOLE)
    seen = warp.moved(warp.sources.flatten(1, 2))
    within = (warp.sources > 0).all(dim=-1) & (warp.sources < SIDE).all(dim=-1)
    off = (seen - pixels(SIDE, KEYS.device)).norm(dim=-1)[within.flatten(1)]
    assert off.max() < 0.3


@pytest.mark.parametrize("augmentation", MOVING, ids=lambda each: each.told())
def test_pixels_are_taken_from_their_sources_and_borders_mirror(augmentation):
    made = of_photos(augmentation)
    sources = augmentation.warp(KEYS, SIDE, WHOLE).sources.numpy() - 0.5
    for image, places in zip(made.numpy(), sources, strict=True):
        for channel, before in zip(image, PHOTO.numpy().astype(np.float64), strict=True):
            expected = ndimage.map_coordinates(
                before, [places[..., 1], places[..., 0]], order=1, mode="reflect"
            )
            assert np.abs(channel - expected).max() < 1


def test_rotations_are_counterclockwise_as_pillows():
    made = of_photos(Affine(rotate=90, zoom=(1, 1)))
    for image, degrees in zip(made, draw(KEYS, "rotate", -90, 90).tolist(), strict=True):
        whole = Image.fromarray(PHOTO[0].numpy()).rotate(degrees, Image.Resampling.BILINEAR)
        inner = slice(20, 44)  # which no border is seen in
        off = np.abs(image[0, inner, inner].numpy().astype(int) - np.asarray(whole)[inner, inner])
        assert off.max() <= 2


def test_zooms_and_shifts_are_of_their_lengths():
    larger = Affine(rotate=0, zoom=(2, 2)).warp(KEYS, SIDE, WHOLE)
    corner = torch.tensor([[[SIDE / 4, SIDE / 4]]]).expand(len(KEYS), -1, -1)
    torch.testing.assert_close(larger.moved(corner), torch.zeros(len(KEYS), 1, 2))
    keys = fold(0, torch.arange(4000))
    moved = (
        Affine(rotate=0, zoom=(1, 1), translate=0.25)
        .warp(keys, 8, whole(keys))
        .moved(torch.ones(1, 1, 2))
    )
    for shift in (moved[:, 0] - 1).unbind(1):
        assert stats.kstest(shift.numpy(), stats.uniform(-2, 4).cdf).pvalue > 1e-3


def test_upright_lines_lean_by_the_shear():
    ends = torch.tensor([[[32.0, 0], [32, 64]]])
    top, bottom = (
        Affine(rotate=0, zoom=(1, 1), shear=30).warp(KEYS, SIDE, WHOLE).moved(ends).unbind(1)
    )
    leaning = torch.atan((bottom[:, 0] - top[:, 0]) / 64).rad2deg()
    torch.testing.assert_close(leaning, draw(KEYS, "shear", -30, 30))
    torch.testing.assert_close((bottom - top)[:, 1], torch.full((len(KEYS),), 64.0))


@given(st.lists(st.floats(-0.24, 0.24), min_size=8, max_size=8))
def test_homographies_take_the_square_to_its_corners(moves):
    square = torch.tensor([[[0.0, 0], [1, 0], [1, 1], [0, 1]]])
    corners = square + torch.tensor(moves).view(1, 4, 2)
    torch.testing.assert_close(projected(onto(corners), square), corners, atol=1e-5, rtol=0)
    middle = torch.tensor([[[0.5, 0.5]]])  # where the diagonals meet, from aside too
    (a, b, c, d), (point,) = corners[0].double(), projected(onto(corners), middle)[0].double()
    for one, other in ((a, c), (b, d)):
        along, off = other - one, point - one
        assert abs(along[0] * off[1] - along[1] * off[0]) < 1e-4


def test_elastic_grids_move_by_their_strength_and_smoothly_between():
    keys = fold(0, torch.arange(300))
    moves = Elastic(strength=1.5, spacing=8).warp(keys, SIDE, whole(keys)).sources
    moves = moves - pixels(SIDE, keys.device).view(SIDE, SIDE, 2)
    assert moves[:, 0, 0].std() == pytest.approx(1.5, rel=0.1)  # a point of the grid
    assert moves.mean().abs() < 0.05
    assert moves.diff(dim=1).abs().max() < 1.5  # of the 5 deviations that are the largest of many
    assert torch.equal(of_photos(Elastic(strength=0))[0], PHOTO)


@pytest.mark.parametrize("augmentation", MOVING, ids=lambda each: each.told())
def test_masks_and_boxes_move_with_their_image(augmentation):
    keys = fold(7, torch.arange(200))
    box = torch.tensor([3.0, 20, 12, 40, 46])
    image = torch.zeros(len(keys), 1, SIDE, SIDE, dtype=torch.uint8)
    image[:, :, 12:46, 20:40] = 255
    boxes = torch.tensor([-1.0, 0, 0, 0, 0]).repeat(len(keys), BOXES, 1)
    boxes[:, 0] = box
    stored = {"image": image, "target": image, "mask": image // 255, "boxes": boxes,
              "label": torch.arange(len(keys)), "frames": image.repeat(1, FRAMES, 1, 1),
              }  # fmt: skip
    made = varied(stored, keys, augmentation)
    assert torch.equal(made["image"], made["target"])
    assert torch.equal(made["frames"][:, 5:6], made["image"])
    assert torch.equal(made["label"], stored["label"])
    assert torch.equal(made["boxes"][:, 1:], boxes[:, 1:])
    assert ((made["image"] > 127) == made["mask"].bool()).float().mean() > 0.999
    assert set(made["mask"].unique().tolist()) == {0, 1}
    for mask, row in zip(made["mask"][:, 0].numpy(), made["boxes"][:, 0].numpy(), strict=True):
        if row[0] < 0:  # it went out of sight
            assert augmentation.told().startswith("affine")
            continue
        rows, columns = np.nonzero(mask)
        # what is mirrored in at a border may be seen beyond the box, never short of it
        assert ([columns.min(), rows.min()] <= row[1:3] + 1.5).all()
        assert ([columns.max() + 1, rows.max() + 1] >= row[3:] - 1.5).all()


def test_factors_of_light_are_what_they_say():
    image = torch.tensor([[10.0, 20, 30], [50, 10, 90]]).T.reshape(1, 3, 1, 2)
    keys, plain = KEYS[:1], {"brightness": 1, "contrast": 1, "saturation": 1}
    torch.testing.assert_close(Light(**plain).change(image, keys, whole(keys)), image)
    brighter = Light(**{**plain, "brightness": 1.5}).change(image, keys, whole(keys))
    torch.testing.assert_close(brighter, image * 1.5)
    flat = Light(**{**plain, "contrast": 0}).change(image, keys, whole(keys))
    torch.testing.assert_close(flat, torch.full_like(image, 35.0))
    gray = Light(**{**plain, "saturation": 0}).change(image, keys, whole(keys))
    torch.testing.assert_close(gray[0, :, 0, 0], torch.full((3,), 20.0))
    torch.testing.assert_close(gray[0, :, 0, 1], torch.full((3,), 50.0))


def test_light_is_drawn_between_its_ends_and_clipped():
    white = torch.full((2000, 1, 2, 2), 200, dtype=torch.uint8)
    keys = fold(1, torch.arange(2000))
    made = varied({"image": white}, keys, Light(brightness=(0.5, 1.5), contrast=1))["image"]
    values = made[:, 0, 0, 0].float()
    assert values.min() == pytest.approx(100, abs=2)
    assert (values == 255).float().mean() == pytest.approx((1.5 - 1.275) / 1, abs=0.05)


@pytest.mark.parametrize("augmentation", [Light(brightness=(0.3, 0.6)), Cutout()])
def test_all_frames_of_a_clip_are_lit_and_hidden_as_its_image_is(augmentation):
    images = PHOTO.expand(len(KEYS), -1, -1, -1)
    stored = {"image": images, "frames": images.repeat(1, FRAMES, 1, 1), "target": images}
    made = varied(stored, KEYS, augmentation)
    assert (made["image"] != images).any()
    assert torch.equal(made["frames"], made["image"].repeat(1, FRAMES, 1, 1))
    assert torch.equal(made["target"], images)


def test_a_square_of_its_side_is_hidden_anywhere():
    keys = fold(2, torch.arange(4000))
    made = Cutout(side=0.5).change(torch.zeros(4000, 1, 16, 16), keys, whole(keys))[:, 0] == 127.5
    rows, columns = made.any(dim=2), made.any(dim=1)
    assert torch.equal(made, rows[:, :, None] & columns[:, None])
    assert rows.sum(dim=1).max() == columns.sum(dim=1).max() == 8
    assert rows.sum(dim=1).min() >= 4  # its middle is inside
    middle = made[:, 8, 8].float().mean()
    assert middle == pytest.approx(0.25, abs=0.03)
    assert made[:, 0, 0].float().mean() == pytest.approx(0.0625, abs=0.02)


@pytest.mark.parametrize("augmentation", EVERY, ids=lambda each: each.told())
def test_an_image_is_varied_alike_in_every_batch_and_each_its_own_way(augmentation):
    together = of_photos(augmentation)
    order = torch.tensor([7, 3, 11, 0])
    assert torch.equal(of_photos(augmentation, KEYS[order]), together[order])
    assert len({each.numpy().tobytes() for each in together}) == len(KEYS)


@pytest.mark.parametrize("augmentation", EVERY, ids=lambda each: each.told())
def test_it_befalls_its_share_of_the_images(augmentation):
    keys = fold(4, torch.arange(400))
    some = augmentation.model_copy(update={"probability": 0.3})
    made, always = of_photos(some, keys), of_photos(augmentation, keys)
    kept = (made == PHOTO).flatten(1).all(dim=1)
    assert kept.float().mean() == pytest.approx(0.7, abs=0.08)
    assert torch.equal(made[~kept], always[~kept])


@pytest.mark.parametrize("augmentation", EVERY, ids=lambda each: each.told())
def test_its_strength_goes_from_its_beginning_to_its_end(augmentation):
    rising = augmentation.model_copy(update={"begin": 0.0})
    none, all_of_it = torch.zeros(len(KEYS)), torch.ones(len(KEYS))
    assert (of_photos(rising, done=none) == PHOTO).all()
    assert torch.equal(of_photos(rising, done=all_of_it), of_photos(augmentation))
    half = augmentation.model_copy(update={"begin": 0.5, "end": 0.5})
    assert torch.equal(of_photos(rising, done=all_of_it / 2), of_photos(half))
    off = [(of_photos(rising, done=all_of_it * to).float() - PHOTO).abs().mean()
           for to in (0, 0.3, 0.6, 1)]  # fmt: skip
    assert off == sorted(off)


def test_all_that_is_drawn_is_scaled_by_the_strength():
    half = torch.full((len(KEYS),), 0.5)
    turned = Affine(rotate=40, zoom=(1, 1)).warp(KEYS, SIDE, half)
    torch.testing.assert_close(turned.sources, Affine(rotate=20, zoom=(1, 1)).warp(
        KEYS, SIDE, WHOLE).sources)  # fmt: skip
    for one, other in (
        (Affine(rotate=0, zoom=2, shear=0), Affine(rotate=0, zoom=1.5)),
        (Affine(rotate=0, zoom=1, translate=0.5), Affine(rotate=0, zoom=1, translate=0.25)),
        (Affine(rotate=0, zoom=1, shear=30), Affine(rotate=0, zoom=1, shear=15)),
        (Perspective(corners=0.2), Perspective(corners=0.1)),
        (Elastic(strength=2), Elastic(strength=1)),
    ):
        made, expected = one.warp(KEYS, SIDE, half), other.warp(KEYS, SIDE, WHOLE)
        torch.testing.assert_close(made.sources, expected.sources)
    image = PHOTO.float().expand(len(KEYS), -1, -1, -1)
    for one, other in (
        (
            Light(brightness=2, contrast=1, saturation=0),
            Light(brightness=1.5, contrast=1, saturation=0.5),
        ),
        (Cutout(side=0.5), Cutout(side=0.25)),
    ):
        torch.testing.assert_close(one.change(image, KEYS, half), other.change(image, KEYS, WHOLE))


def test_two_of_a_kind_have_each_its_own_luck():
    twice = [Affine(rotate=30, zoom=(1, 1))] * 2
    made = augment({"image": PHOTO.expand(12, -1, -1, -1)}, KEYS, "none", 0, twice)["image"]
    doubled = of_photos(Affine(rotate=60, zoom=(1, 1)))
    assert not torch.equal(made, doubled)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(EVERY), st.sampled_from([8, 12, 31]), st.sampled_from([1, 3]), st.data())
def test_any_size_stays_as_it_is(augmentation, size, channels, data):
    keys = fold(data.draw(st.integers(0, 2**62)), torch.arange(3))
    images = torch.randint(0, 256, (3, channels, size, size), dtype=torch.uint8)
    before = images.clone()
    made = varied({"image": images}, keys, augmentation)["image"]
    assert (made.shape, made.dtype) == (images.shape, torch.uint8)
    assert torch.equal(images, before)


def test_any_number_of_workers_sees_the_same_images():
    recipe = recipes.named("classifier").override(
        ["data.augmentations=[{kind: affine}, {kind: elastic, probability: 0.5}, {kind: cutout}]"]
    )
    images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8)

    def batch(rank: int, world: int) -> torch.Tensor:
        loader = Loader(
            Images({"image": images}, {}), batch_size=8, seed=0, device=torch.device("cpu"),
            augment=augmenting(recipe), rank=rank, world=world,
        )  # fmt: skip
        return loader.batch(16).rows["image"]

    assert torch.equal(batch(0, 1), torch.cat([batch(rank, 4) for rank in range(4)]))


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("[{kind: afine}]", r"data\.augmentations\.0: kind='afine': did you mean 'affine'"),
        (
            "[{rotate: 3}]",
            r"kind is missing; known: affine, copy-paste, cutmix, cutout, elastic, light,",
        ),
        ("[{kind: affine, rotat: 3}]", r"unknown key 'rotat'; did you mean 'rotate'"),
        ("[{kind: affine, rotate: 200}]", r"rotate=200: input should be less than or equal to 180"),
        ("[{kind: affine, zoom: [1.2, 0.8]}]", r"a range has its smallest value first"),
        ("[{kind: perspective, corners: 0.25}]", r"corners=0\.25"),
        ("{kind: affine, rotate: 9}", r"give a list, as \[\{kind: affine, rotate: 9\}\]"),
    ],
)
def test_what_is_wrong_in_a_list_is_named(listed, message):
    with pytest.raises(InputError, match=message):
        recipes.named("classifier").override([f"data.augmentations={listed}"])


def test_kinds_are_of_pixels_places_of_their_values_or_of_two_images():
    several = (Geometric, Values, Mixing)
    assert all(sum(issubclass(kind, each) for each in several) == 1 for kind in KINDS.values())
