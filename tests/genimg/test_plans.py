"""Plans: images of every size in tiles that leave no trace, frames that move, what is refused."""

import io
import math
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from genimg import moving
from genimg.contracts import Ability, Rows
from genimg.errors import InputError
from genimg.operations.restoring import Inpaint
from genimg.tiled import TILE, Tiled, fitting_tile, least_tile, tiles_of
from genimg.tiles import extended


def blur(margin: int, stride: int, scale: int):
    """A network of that context, which works on blocks of `stride` pixels and enlarges."""

    def compute(rows: Rows) -> Rows:
        images = rows["image"]
        assert images.shape[-2] % stride == images.shape[-1] % stride == 0
        blocks = F.avg_pool2d(images, stride)
        reach = margin // stride
        width = 2 * reach + 1
        blocks = F.avg_pool2d(blocks, width, stride=1, padding=reach)
        return {"image": F.interpolate(blocks, scale_factor=stride * scale)}

    return Ability(compute, 3, margin=margin, stride=stride, scale=scale)


def made(ability: Ability, image: np.ndarray, at_once: int, **options) -> np.ndarray:
    plan = Tiled(ability, image, **options)
    start = 0
    while start < plan.count:
        stop = min(start + at_once, plan.lap(start)[1])
        plan.put(start, ability.compute(plan.rows(start, stop)))
        start = stop
    return plan.result().images[0]


@settings(max_examples=150)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    reach=st.integers(0, 3),
    stride=st.sampled_from([1, 2, 4]),
    scale=st.sampled_from([1, 2, 3]),
    more=st.integers(0, 5),
    channels=st.integers(1, 4),
    at_once=st.integers(1, 5),
    ensemble=st.booleans(),
)
def test_tiled_equals_whole_for_sides_of_every_remainder(
    height, width, reach, stride, scale, more, channels, at_once, ensemble
):
    ability = blur(reach * stride, stride, scale)
    tile = max(4 * reach * stride, stride) + more * stride
    height, width = min(height, 5 * tile), min(width, 5 * tile)  # no more tiles tell more
    image = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    whole = made(ability, image, 1, tile=0, ensemble=ensemble)
    tiled = made(ability, image, at_once, tile=tile, ensemble=ensemble)
    assert whole.shape == tiled.shape == (scale * height, scale * width, channels)
    assert np.abs(whole.astype(int) - tiled).max() <= 1  # where a half is rounded


@given(
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    margin=st.sampled_from([0, 2, 8]),
    tile=st.sampled_from([32, 64, 100]),
)
def test_every_pixel_is_decided_once_by_a_tile_that_has_its_context(shape, margin, tile):
    for length, spans in zip(shape, tiles_of(shape, tile, margin, 2), strict=True):
        padded = length + length % 2
        assert [span.a for span in spans] == [0, *(span.b for span in spans[:-1])]
        assert spans[-1].b == padded
        assert len({span.stop - span.start for span in spans}) == 1
        for span in spans:
            assert span.start % 2 == 0
            assert span.a - span.start >= margin or span.start == 0
            assert span.stop - span.b >= margin or span.stop == padded


def test_a_plan_keeps_bytes_and_no_floats():
    image = np.zeros((4000, 3000, 3), np.uint8)
    plan = Tiled(blur(8, 2, 1), image)
    kept = sum(
        v.nbytes for v in vars(plan).values() if isinstance(v, np.ndarray) and v.base is None
    )
    kept += sum(v.nbytes for v in vars(plan).values() if isinstance(v, torch.Tensor))
    assert kept <= image.nbytes
    height, width = plan.rows(3, 4)["image"].shape[2:]
    assert height * width <= TILE


@given(
    shape=st.tuples(st.integers(1, 6000), st.integers(1, 6000)),
    margin=st.sampled_from([0, 17, 38, 144, 224]),
    most=st.sampled_from([512**2, TILE, 12_000_000]),
)
def test_tiles_of_bounded_size_compute_as_little_twice_as_they_can(shape, margin, most):
    stride = 16 if margin % 16 == 0 else 1
    down, across = tiles_of(shape, "auto", margin, stride, most)
    height, width = (spans[0].stop - spans[0].start for spans in (down, across))
    least = least_tile(margin, stride)
    assert height * width <= max(most, least**2)
    padded = [-(-length // stride) * stride for length in shape]
    if padded[0] * padded[1] <= most:
        assert (len(down), len(across)) == (1, 1)
    square = math.isqrt(most) // stride * stride
    if square >= least:  # squares are among what could have been chosen
        counts = [-(-(max(p - 2 * margin, 1)) // (square - 2 * margin)) for p in padded]
        sides = [
            -(-(p - 2 * margin) // n) + 2 * margin for p, n in zip(padded, counts, strict=True)
        ]
        sides = [max(-(-side // stride) * stride, least) for side in sides]
        cost = math.prod(counts) * math.prod(map(min, sides, padded))
        assert len(down) * height * len(across) * width <= cost


def test_strength_mixes_and_alpha_passes_through():
    image = np.random.default_rng(0).integers(0, 256, (21, 33, 4), np.uint8)
    full, half, none = (made(blur(4, 2, 1), image, 2, strength=s) for s in (1.0, 0.5, 0.0))
    assert np.array_equal(none, image)
    assert np.array_equal(full[..., 3], image[..., 3])
    assert np.abs(half[..., :3] - (full[..., :3].astype(float) + image[..., :3]) / 2).max() <= 1


@pytest.mark.parametrize(("kind", "most"), [(np.uint8, 255), (np.uint16, 65535)])
def test_edges_of_alpha_are_enlarged_smoothly(kind, most):
    alpha = np.zeros((6, 8), kind)
    alpha[:, 4:] = most
    image = np.dstack([np.full((6, 8), 7, kind), alpha])

    def twice(rows: Rows) -> Rows:
        return {"image": rows["image"].repeat_interleave(2, 2).repeat_interleave(2, 3)}

    enlarged = made(Ability(twice, 1, scale=2), image, 1)[..., 1]
    assert enlarged.dtype == kind
    assert enlarged.shape == (12, 16)
    assert (enlarged[:, :6] == 0).all()
    assert (enlarged[:, 10:] == most).all()
    across = enlarged[5].astype(int)
    assert (np.diff(across) >= 0).all()
    assert {0, most} < {*across.tolist()}


def test_tiles_without_holes_are_not_computed():
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    mask = np.zeros((96, 96), np.float32)
    mask[70:75, 80:90] = 1
    assert Tiled(shifted(), image, tile=16, mask=mask).count == 4  # on a corner of four
    assert Tiled(shifted(), image, tile=16, mask=np.ones_like(mask)).count == 49
    filled = made(shifted(), image, 1, tile=16, mask=mask)
    changed = (filled != image).any(axis=2)
    assert changed[70:75, 80:90].any()
    assert not changed[mask == 0].any()


def shifted() -> Ability:
    """A network that moves what it sees a pixel to the right, as if it were mirrored there."""

    def compute(rows: Rows) -> Rows:
        return {"image": extended(rows["image"], 1, 0, 0)[..., 1:, :-1]}

    return Ability(compute, 3, margin=1)


@settings(max_examples=40)
@given(height=st.integers(1, 24), width=st.integers(1, 24), at_once=st.integers(1, 9))
def test_an_ensemble_is_the_mean_of_the_eight_symmetries(height, width, at_once):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    total = np.zeros(image.shape)
    for flipped in (False, True):
        for turns in range(4):
            seen = np.rot90(image[:, ::-1] if flipped else image, turns)
            back = np.rot90(made(shifted(), np.ascontiguousarray(seen), 1, tile=0), -turns)
            total += back[:, ::-1] if flipped else back
    expected = total / 8
    for tile in (0, 8):
        ensemble = made(shifted(), image, at_once, tile=tile, ensemble=True)
        assert np.abs(ensemble - expected).max() <= 0.51
    (unturned,) = {made(shifted(), image, 1, tile=0).tobytes()}
    if width > 1 and height > 1 and max(height, width) > 4:
        assert ensemble.tobytes() != unturned


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_who_has_the_result_need_not_have_the_image_as_well(channels):
    image = np.zeros((20, 33, channels), np.uint8)
    mask = np.zeros((20, 33), np.float32)
    held = [weakref.ref(image), weakref.ref(mask)]
    plan = Tiled(shifted(), image, tile=16, mask=mask)
    for row in range(plan.count):
        plan.put(row, shifted().compute(plan.rows(row, row + 1)))
    del image, mask
    assert all(one() is not None for one in held)
    result = plan.result()
    assert result.images.shape == (1, 20, 33, channels)
    assert [one() for one in held] == [None, None]


@pytest.mark.parametrize("shape", [(20, 33, 3), (24, 24, 3)])
@pytest.mark.parametrize("failed", [1, 3, 5, 9])
def test_rows_that_come_again_after_a_pass_that_failed_count_once(shape, failed):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    plan = Tiled(shifted(), image, tile=16, ensemble=True)
    for end in (failed, plan.count):
        for row in range(end):
            plan.put(row, shifted().compute(plan.rows(row, row + 1)))
    expected = made(shifted(), image, 1, tile=16, ensemble=True)
    assert np.array_equal(plan.result().images[0], expected)


@settings(max_examples=40)
@given(
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    channels=st.integers(1, 4),
    ensemble=st.booleans(),
)
def test_only_what_a_mask_marks_is_replaced_and_none_of_it_is_seen(
    height, width, channels, ensemble
):
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (height, width, channels), np.uint8)
    mask = draw.random((height, width)).astype(np.float32).round()

    def compute(rows: Rows) -> Rows:
        holes = rows["mask"][:, None].expand_as(rows["image"])
        assert (rows["image"][holes > 0] == 0).all()
        return {"image": torch.ones_like(rows["image"])}

    ability = Ability(compute, 3, margin=2, stride=2)
    filled = made(ability, image, 3, tile=8, mask=mask, ensemble=ensemble)
    colours = channels - (channels in (2, 4))
    assert np.array_equal(filled[mask == 0], image[mask == 0])
    assert (filled[mask == 1][:, :colours] == 255).all()
    assert np.array_equal(filled[..., colours:], image[..., colours:])
    half = made(ability, image, 3, tile=8, mask=mask / 2)[..., :colours]
    between = (image[..., :colours].astype(float) + 255) / 2
    assert np.abs(half[mask == 1] - between[mask == 1]).max(initial=0) <= 1


def test_a_mask_of_another_size_is_refused():
    inputs = {"image": np.zeros((5, 9, 3), np.uint8), "mask": np.zeros((4, 9, 1), np.uint8)}
    with pytest.raises(InputError, match="mask of 9x4 for an image of 9x5; give one of its size"):
        Inpaint().plan(shifted(), inputs)
    with pytest.raises(InputError, match="mask of 9x4 for an image of 9x5"):
        Inpaint().check(inputs)  # before there is a model


def test_an_image_that_would_become_too_large_is_refused_before_anything_is_computed():
    with pytest.raises(InputError, match="20000x20000 would come of it, and 268,435,456 pixels"):
        Tiled(blur(8, 2, 4), np.zeros((5000, 5000, 1), np.uint8))


def test_strength_mixes_with_the_enlarged_image():
    image = np.full((9, 7, 3), 50, np.uint8)
    ability = Ability(
        lambda rows: {"image": torch.ones(len(rows["image"]), 3, *(2 * s for s in (9, 7)))},
        3, scale=2,
    )  # fmt: skip
    assert (made(ability, image, 1, strength=0.0) == 50).all()
    assert (made(ability, image, 1) == 255).all()
    assert np.abs(made(ability, image, 1, strength=0.5).astype(float) - 152.5).max() <= 1


def test_tiles_without_room_for_their_margins_are_as_large_as_they_must_be():
    for tile, side in ((1, 32), (30, 32), (33, 34), (40, 40)):
        assert fitting_tile(tile, 8, 2) == side
        assert tiles_of((100, 9), tile, 8, 2) == tiles_of((100, 9), side, 8, 2)
    assert len(tiles_of((33, 9), 33, 8, 2)[0]) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_frames_come_back_as_they_were(channels):
    frames = np.random.default_rng(0).integers(0, 256, (4, 8, 12, channels), np.uint8)
    file = Image.open(io.BytesIO(moving.encode(frames, "webp", frame_ms=50)))
    assert (file.n_frames, file.size) == (4, (12, 8))
    for number, frame in enumerate(frames):
        file.seek(number)
        found = np.asarray(file.convert("RGB"))
        assert np.array_equal(found, np.broadcast_to(frame, found.shape))
        assert file.info["duration"] == 50
    gif = Image.open(io.BytesIO(moving.encode(frames, "gif")))
    assert (gif.format, gif.n_frames) == ("GIF", 4)


def test_an_image_that_has_the_memory_to_itself_is_cut_into_larger_tiles():
    far = replace(blur(144, 8, 1), held=128)
    image = np.zeros((3000, 4000, 3), np.uint8)
    assert Tiled(far, image).count == 1
    assert Tiled(replace(far, held=0), image).count > 4
    assert Tiled(replace(far, held=512), image).pixels <= 3 * 2**20
