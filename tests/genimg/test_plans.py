"""Plans: images of every size in tiles that leave no trace, frames that move, what is refused."""

import io

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
from genimg.plans import Tiled, tiles_of


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
    for start in range(0, plan.count, at_once):
        stop = min(start + at_once, plan.count)
        plan.put(start, ability.compute(plan.rows(start, stop)))
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
)
def test_tiled_equals_whole_for_sides_of_every_remainder(
    height, width, reach, stride, scale, more, channels, at_once
):
    ability = blur(reach * stride, stride, scale)
    image = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    tile = max(4 * reach * stride, stride) + more * stride
    whole = made(ability, image, 1, tile=0)
    tiled = made(ability, image, at_once, tile=tile)
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
    assert plan.rows(3, 4)["image"].shape == (1, 3, 512, 512)


def test_strength_mixes_and_alpha_passes_through():
    image = np.random.default_rng(0).integers(0, 256, (21, 33, 4), np.uint8)
    full, half, none = (made(blur(4, 2, 1), image, 2, strength=s) for s in (1.0, 0.5, 0.0))
    assert np.array_equal(none, image)
    assert np.array_equal(full[..., 3], image[..., 3])
    assert np.abs(half[..., :3] - (full[..., :3].astype(float) + image[..., :3]) / 2).max() <= 1


def test_tiles_without_room_for_their_margins_are_refused():
    with pytest.raises(InputError, match="tile=30: use 0, 'auto' or a multiple of 2 from 32"):
        Tiled(blur(8, 2, 1), np.zeros((100, 9, 1), np.uint8), tile=30)
    with pytest.raises(InputError, match="tile=33: use 0"):
        Tiled(blur(8, 2, 1), np.zeros((100, 9, 1), np.uint8), tile=33)
    Tiled(blur(8, 2, 1), np.zeros((33, 9, 1), np.uint8), tile=33)  # one tile


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
