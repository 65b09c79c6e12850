"""The column `frames`: clips follow their image, from shards to batches."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import fs

from genimg import images, moving
from genimg.data.augment import augment
from genimg.data.columns import COLUMNS
from genimg.data.fitting import placed
from genimg.data.grids import FRAMES
from genimg.data.loader import Loader
from genimg.data.opening import open_dataset
from genimg.data.shard_writing import GROUP_BYTES, grouped, write_shard
from genimg.images import BrokenImage
from genimg.recipe import Data

CLIP = COLUMNS["frames"]


def clip(number: int, height: int = 9, width: int = 9, length: int = FRAMES) -> list[np.ndarray]:
    draw = np.random.default_rng(number)
    return [draw.integers(0, 256, (height, width, 3), np.uint8) for _ in range(length)]


def encoded(frames: list[np.ndarray]) -> list[bytes]:
    return [images.encode(frame) for frame in frames]


@given(st.integers(2, 24))
def test_a_clip_has_as_many_frames_as_are_taken(length: int):
    frames = clip(0, length=length)
    value = CLIP.decoded(encoded(frames), 3)
    expected = [frames[min(i, length - 1)] for i in range(FRAMES)]
    assert np.array_equal(value, np.concatenate(expected, axis=2))
    again = CLIP.decoded(CLIP.encoded(value, images.encode), 3)
    assert np.array_equal(again, value)


def test_what_is_no_clip_is_told():
    for stored, told in (
        ([], "fewer than two frames"),
        (encoded(clip(0, length=1)), "fewer than two frames"),
        ([images.encode(clip(1)[0]), moving.encode(np.stack(clip(0)))], "one is animated"),
        (encoded([*clip(0, length=2), *clip(1, 5, 5, 2)]), "its frames differ in size"),
        ([b"none"], "not an image"),
    ):
        with pytest.raises(BrokenImage, match=told):
            CLIP.decoded(stored, 3)


@given(
    st.integers(1, 30), st.integers(1, 30), st.sampled_from(["resize", "pad"]), st.integers(0, 7)
)
def test_each_frame_is_fitted_and_turned_as_its_image_is(height, width, fit, symmetry):
    frames = clip(height * 31 + width, height, width)
    place = placed((height, width), 8, fit)
    row = torch.from_numpy(CLIP.row(CLIP.fitted(np.concatenate(frames, axis=2), place)).copy())
    by = torch.tensor([symmetry])
    turned = CLIP.ready(CLIP.turned(row[None], by, (8, 8)))
    assert turned.shape == (1, FRAMES, 3, 8, 8)
    pixels = COLUMNS["image"]
    for number, frame in enumerate(frames):
        alone = torch.from_numpy(pixels.row(pixels.fitted(frame, place)).copy())[None]
        assert torch.equal(pixels.ready(pixels.turned(alone, by, (8, 8)))[0], turned[0, number])


@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_frames_come_from_shards_beside_their_images(tmp_path, fit):
    clips = [clip(number, 12, 10) for number in range(6)]
    rows = [
        {"name": str(n), "image": images.encode(frames[0]), "frames": encoded(frames)}
        for n, frames in enumerate(clips)
    ]
    path = str(tmp_path / "clips.parquet")
    local = fs.LocalFileSystem()
    write_shard(path, rows, columns=("image", "frames"), classes={}, broken=[], filesystem=local)
    metadata = pq.ParquetFile(path).metadata.row_group(0)
    kinds = [metadata.column(i) for i in range(metadata.num_columns)]
    assert {k.compression for k in kinds if "name" not in k.path_in_schema} == {"UNCOMPRESSED"}
    data = open_dataset(Data(source=path, size=8, holdout=1, fit=fit), ("image", "frames"))
    loader = Loader(data, batch_size=6, seed=0, device=torch.device("cpu"),
                    augment=lambda stored, keys, _: augment(stored, keys, "dihedral"))  # fmt: skip
    found = loader.batch(0).rows
    assert found["frames"].shape == (6, FRAMES, 3, 8, 8)
    assert torch.equal(found["frames"][:, 0], found["image"])  # the image is the first frame


def test_rows_of_clips_are_grouped_by_their_bytes():
    rows = [{"image": b"", "frames": [bytes(GROUP_BYTES // 8)] * 4} for _ in range(6)]
    assert [len(group) for group in grouped(rows, ("image", "frames"))] == [2, 2, 2]


def test_other_programs_lists_are_read(tmp_path):
    table = {"image": encoded(clip(0, length=3)), "frames": [encoded(clip(n)) for n in range(3)]}
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    wants = ("image", "frames")
    data = open_dataset(Data(source=str(tmp_path / "x.parquet"), size=8, holdout=1), wants)
    assert data.columns == wants
