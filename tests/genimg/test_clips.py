"""Where clips come from: folders of frames, animations, archives of them, arrays; or not."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from genimg import images, moving
from genimg.data.grids import FRAMES
from genimg.data.opening import open_dataset, told_by
from genimg.data.parts import Part, PartSource
from genimg.data.sources import open_source, opener
from genimg.errors import InputError
from genimg.images import BrokenImage
from genimg.recipe import Data

WANTS = ("image", "frames")


def clip(number: int, length: int, side: int = 12) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (length, side, side, 3), np.uint8)


def lasting(frames: np.ndarray) -> np.ndarray:
    """uint8 [H, W, FRAMES * C]: as long as clips are."""
    every = [frames[min(number, len(frames) - 1)] for number in range(FRAMES)]
    return np.concatenate(every, axis=2)


def folder_of_clips(folder: Path) -> dict[str, np.ndarray]:
    """Clips of a folder each, and one in a file, by the name of their first file."""
    made = {"a/1.png": clip(1, 12), "b/c/f8.png": clip(2, 23), "d.webp": clip(3, 5)}
    for name, start in (("a/{}.png", 1), ("b/c/f{}.png", 8)):
        frames = made[name.format(start)]
        (folder / name).parent.mkdir(parents=True)
        for number, frame in enumerate(frames, start=start):
            images.save(frame, folder / name.format(number))
    (folder / "d.webp").write_bytes(moving.encode(made["d.webp"]))
    return made


@pytest.mark.parametrize("form", ["folder", "zip", "gztar"])
def test_a_folder_is_a_clip_and_so_is_a_file_on_top(tmp_path, monkeypatch, form):
    monkeypatch.setenv("GENIMG_CACHE", str(tmp_path / "cache"))
    made = folder_of_clips(tmp_path / "set")
    where = tmp_path / "set"
    if form != "folder":
        where = Path(shutil.make_archive(str(where), form, tmp_path, "set"))
    whole = open_source(str(where), columns=WANTS)
    part = opener(str(where), WANTS, in_parts=True)("all").part(np.arange(3)[::-1])
    parted = PartSource(where, Part.unpacked(part.packed()), {})
    for source, order in ((whole, [*made]), (parted, [*made][::-1])):
        assert source.columns == WANTS
        assert source.labels is None
        assert [name.removeprefix("set/") for name in source.names] == order
        for index, name in enumerate(order):
            assert np.array_equal(source.read(index), made[name][0])
            assert np.array_equal(source.read(index, "frames", 3), lasting(made[name]))


def test_splits_lie_on_top_of_clips_and_batches_have_them(tmp_path):
    for split, number in (("train", 1), ("test", 2)):
        for name in ("x", "y"):
            (tmp_path / split / name).mkdir(parents=True)
            for place, frame in enumerate(clip(number, 3, 8)):
                images.save(frame, tmp_path / split / name / f"{place}.png")
    data = Data(source=str(tmp_path), size=8, holdout=1)
    assert told_by(data, WANTS).classes == {}
    for split, number in (("train", 1), ("test", 2)):
        opened = open_dataset(data, WANTS, split)
        stored = opened.fetch(np.arange(2), torch.arange(2))
        expected = torch.from_numpy(lasting(clip(number, 3, 8))).permute(2, 0, 1)
        assert stored["frames"].shape == (2, 3 * FRAMES, 8, 8)
        assert all(torch.equal(each, expected) for each in stored["frames"])
    with pytest.raises(InputError, match="has image and frames, but wanted are"):
        open_dataset(data, ("image", "label", "frames"))


def test_pictures_that_are_no_clips_are_refused_by_name(tmp_path):
    images.save(clip(0, 1)[0], tmp_path / "still.png")
    data = Data(source=str(tmp_path), size=8, holdout=1)
    with pytest.raises(InputError, match=r"still\.png: has fewer than two frames"):
        open_dataset(data, WANTS)
    npz = tmp_path / "x.npz"
    np.savez(npz, x=np.zeros((4, 8, 8), np.uint8))
    with pytest.raises(InputError, match="for frames, put each clip into a folder of its frames"):
        told_by(data.model_copy(update={"source": str(npz)}), WANTS)


@pytest.mark.parametrize("channels", [1, 3])
def test_moving_mnists_array_is_read(tmp_path, channels):
    array = np.random.default_rng(0).integers(0, 256, (21, 5, 16, 16), np.uint8)
    np.save(tmp_path / "test_seq.npy", array)
    data = Data(source=str(tmp_path / "test_seq.npy"), size=16, channels=channels, holdout=2)
    opened = open_dataset(data, WANTS)
    stored = opened.fetch(np.arange(5), torch.arange(5))
    frames = stored["frames"].view(5, FRAMES, channels, 16, 16)
    assert np.array_equal(frames[:, :, -1].numpy(), array[:FRAMES].swapaxes(0, 1))
    assert torch.equal(stored["image"], frames[:, 0])
    assert opened.name(3) == "test_seq.npy[3]"


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((20, 5, 16, 16), np.float32), r"is float32 20x5x16x16; must be uint8 \[T, N"),
        (np.zeros((20, 16, 16), np.uint8), "is uint8 20x16x16; must be"),
        (np.zeros((1, 5, 16, 16), np.uint8), "has 1 frames of 5 clips"),
        (np.array([{}]), r"not a readable \.npy"),
    ],
)
def test_other_arrays_are_refused(tmp_path, array, told):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(InputError, match=told):
        open_source(str(tmp_path / "x.npy"), columns=WANTS)


def test_frames_of_a_file_or_a_folder_come_in_their_order(tmp_path):
    frames = clip(0, 11)
    (tmp_path / "clip").mkdir()
    for number, frame in enumerate(frames):
        images.save(frame, tmp_path / "clip" / f"{number}.png")
    (tmp_path / "clip.webp").write_bytes(moving.encode(frames))
    assert np.array_equal(moving.load(tmp_path / "clip"), frames)
    assert np.array_equal(moving.load(tmp_path / "clip.webp"), frames)
    assert np.array_equal(moving.load(tmp_path / "clip" / "3.png"), frames[3:4])
    with pytest.raises(BrokenImage, match="more than 1,000 pixels in all"):
        moving.decode((tmp_path / "clip.webp").read_bytes(), max_pixels=1000)
    assert len(moving.decode((tmp_path / "clip.webp").read_bytes(), most=4)) == 4
    images.save(clip(0, 1, 9)[0], tmp_path / "clip" / "20.png")
    with pytest.raises(InputError, match=r"20\.png: its size is not that of the frames before"):
        moving.load(tmp_path / "clip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images in it; give a folder of frames"):
        moving.load(tmp_path / "empty")


def test_of_a_long_folder_only_the_last_frames_are_read(tmp_path):
    frames = clip(0, FRAMES)
    for number, frame in enumerate(frames, start=980):
        images.save(frame, tmp_path / f"{number}.png")
    (tmp_path / "979.png").write_bytes(b"never opened")
    assert np.array_equal(moving.load(tmp_path), frames)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("format", ["gif", "webp"])
def test_damaged_animations_are_refused_and_never_crash(format):
    data = moving.encode(clip(0, 5), format)
    draw = np.random.default_rng(0)
    for length in range(0, len(data), len(data) // 25):
        broken = bytearray(data[:length] if length % 2 else data)
        for place in draw.integers(13, len(data), 40):
            if place < len(broken):
                broken[place] = draw.integers(256)
        try:
            made = moving.decode(bytes(broken), 3)
        except BrokenImage:
            continue
        assert all(frame.ndim == 3 and frame.dtype == np.uint8 for frame in made)
    with pytest.raises(BrokenImage, match="damaged"):
        moving.decode(data[: len(data) // 2])


def test_the_frames_of_a_folder_have_no_more_pixels_than_those_of_a_file(tmp_path):
    for number in range(4):
        images.save(np.full((8, 9, 3), number, np.uint8), tmp_path / f"{number}.png")
    assert moving.load(tmp_path, max_pixels=4 * 72).shape == (4, 8, 9, 3)
    with pytest.raises(InputError, match=r"3\.png: with the frames before it has more than 287 p"):
        moving.load(tmp_path, max_pixels=4 * 72 - 1)
