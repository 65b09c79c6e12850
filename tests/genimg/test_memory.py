"""Images in memory: fits against Pillow, crops against slices, the order's properties, holdout."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from genimg import rng
from genimg.data.loading import BrokenReport, load_images
from genimg.data.memory import Images
from genimg.data.sources import open_source
from genimg.data.storage import Ragged
from genimg.errors import InputError


def write(path: Path, height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    """A smooth-ish random picture on disk (PNG), uint8 [H, W, channels]."""
    array = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.squeeze(2) if channels == 1 else array).save(path)
    return array


def loaded(path: Path, **options) -> Images:
    """With its labels, where it has some."""
    source = open_source(str(path))
    return load_images(
        source, source.columns, **{"channels": 3, "size": 8, "fit": "resize"} | options
    )[0]


def numbered(count: int, size: int = 2) -> Images:
    """Image i is filled with i; label i."""
    pixels = torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, size, size)
    names = tuple(map(str, range(count)))
    return Images({"image": pixels.contiguous(), "label": torch.arange(count)}, {"label": names})


def keys(count: int, seed: int = 0) -> torch.Tensor:
    return rng.fold(seed, torch.arange(count))


def test_images_of_the_right_size_come_unchanged_in_any_fit(tmp_path):
    expected = np.stack([write(tmp_path / f"{i}.png", 8, 8, seed=i) for i in range(3)])
    for fit in ("resize", "pad", "crop"):
        stored = loaded(tmp_path, fit=fit).fetch(np.array([2, 0]), keys(2))
        pixels = stored.pop("image").permute(0, 2, 3, 1).numpy()
        np.testing.assert_array_equal(pixels, expected[[2, 0]])
        assert not stored


@pytest.mark.parametrize(("height", "width"), [(20, 31), (31, 20), (4, 7), (12, 7), (8, 9)])
def test_resize_is_pillows_lanczos_and_a_centre_crop(tmp_path, height, width):
    array = write(tmp_path / "1.png", height, width)
    short = min(height, width)
    new_height, new_width = round(height * 8 / short), round(width * 8 / short)
    small = Image.fromarray(array).resize((new_width, new_height), Image.Resampling.LANCZOS)
    top, left = (new_height - 8) // 2, (new_width - 8) // 2
    expected = np.array(small)[top : top + 8, left : left + 8]
    got = loaded(tmp_path).whole(0)["image"].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(got, expected)


def test_pad_centres_on_black(tmp_path):
    array = write(tmp_path / "1.png", 5, 2)
    expected = np.zeros((8, 8, 3), np.uint8)
    expected[1:6, 3:5] = array
    got = loaded(tmp_path, fit="pad").whole(0)["image"].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(got, expected)


def test_pad_first_reduces_what_is_larger(tmp_path):
    array = write(tmp_path / "1.png", 16, 8)
    small = np.array(Image.fromarray(array).resize((4, 8), Image.Resampling.LANCZOS))
    got = loaded(tmp_path, fit="pad").whole(0)["image"].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(got[:, 2:6], small)
    assert not got[:, :2].any()
    assert not got[:, 6:].any()


@pytest.mark.parametrize(("stored", "asked"), [(1, 3), (3, 1)])
def test_channels_are_converted(tmp_path, stored, asked):
    array = write(tmp_path / "1.png", 8, 8, channels=stored)
    expected = np.array(Image.open(tmp_path / "1.png").convert("L" if asked == 1 else "RGB"))
    images = loaded(tmp_path, channels=asked)
    assert images.channels == asked
    np.testing.assert_array_equal(
        images.whole(0)["image"].permute(1, 2, 0).numpy().squeeze(), expected
    )
    assert array.shape[2] == stored


def test_images_are_called_by_their_files_also_where_some_are_left_out(tmp_path):
    for name in ("b", "a", "d", "e"):
        write(tmp_path / f"{name}.png", 4, 4)
    (tmp_path / "c.png").write_bytes(b"no image")
    images = loaded(tmp_path, size=4, fit="resize", channels=3, tolerate_broken=1)
    assert [images.name(i) for i in range(4)] == ["a.png", "b.png", "d.png", "e.png"]
    assert images.subset(np.array([2, 0])).name(0) == "d.png"
    assert numbered(3).name(1) == "000001"


def test_labels_go_with_their_images(tmp_path):
    for label, name in enumerate(("ant", "bee", "cow")):
        write(tmp_path / name / "1.png", 8, 8, seed=label)
    images = loaded(tmp_path)
    assert images.classes == {"label": ("ant", "bee", "cow")}
    stored = images.fetch(np.array([2, 0, 2]), keys(3))
    assert stored["label"].tolist() == [2, 0, 2]
    expected = np.array(Image.open(tmp_path / "cow" / "1.png")).transpose(2, 0, 1)
    np.testing.assert_array_equal(stored["image"][0].numpy(), expected)


SIZES = [(9, 12), (8, 8), (20, 8), (8, 15), (13, 11)]


def ragged_set(channels: int = 3) -> tuple[Images, list[np.ndarray]]:
    arrays = [
        np.random.default_rng(i).integers(0, 256, (channels, *size), np.uint8)
        for i, size in enumerate(SIZES)
    ]
    labels = torch.arange(len(arrays))
    return Images({"image": Ragged.joined(list(arrays), 8), "label": labels}), arrays


@given(st.lists(st.integers(0, len(SIZES) - 1), min_size=1, max_size=9), st.integers(0, 2**31))
def test_every_crop_is_a_window_of_its_image(indices, seed):
    images, arrays = ragged_set()
    stored = images.fetch(np.array(indices), keys(len(indices), seed))
    crops = stored["image"]
    assert crops.shape == (len(indices), 3, 8, 8)
    assert stored["label"].tolist() == indices
    for index, crop in zip(indices, crops.numpy(), strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(arrays[index], (3, 8, 8))
        assert (windows == crop).all(axis=(3, 4, 5)).any()


def test_crops_follow_the_keys_and_reach_every_corner():
    images, arrays = ragged_set(channels=1)
    indices = np.zeros(400, np.int64)
    crops = images.fetch(indices, keys(400))["image"]
    alone = images.fetch(indices[:1], keys(400)[123:124])["image"]
    assert torch.equal(alone[0], crops[123])  # whatever batch it rides in
    windows = np.lib.stride_tricks.sliding_window_view(arrays[0][0], (8, 8))
    seen = {crop.numpy().tobytes() for crop in crops}
    assert seen == {window.tobytes() for window in windows.reshape(-1, 8, 8)}


def test_cropped_sets_keep_their_images_whole(tmp_path):
    arrays = [write(tmp_path / f"{i}.png", h, w, seed=i) for i, (h, w) in enumerate(SIZES)]
    images = loaded(tmp_path, fit="crop")
    for index, array in enumerate(arrays):
        np.testing.assert_array_equal(images.whole(index)["image"].permute(1, 2, 0).numpy(), array)


def test_image_too_small_to_crop_from_is_named(tmp_path):
    write(tmp_path / "large.png", 20, 20)
    write(tmp_path / "small.png", 20, 7)
    with pytest.raises(InputError, match=r"data\.size=8: small\.png is only 7x20"):
        loaded(tmp_path, fit="crop", tolerate_broken=5)


@given(count=st.integers(2, 200), data=st.data())
def test_held_out_images_and_the_others_are_everything(count, data):
    held_count = data.draw(st.integers(1, count - 1))
    train, held = numbered(count).hold_out(held_count)
    assert (len(train), len(held)) == (count - held_count, held_count)
    both = torch.cat([train.labels, held.labels])
    assert sorted(both.tolist()) == list(range(count))


def test_holdout_is_stable_and_grows_by_adding():
    small, large = (numbered(100).hold_out(count)[1].labels.tolist() for count in (10, 20))
    assert small == numbered(100).hold_out(10)[1].labels.tolist()
    assert set(small) < set(large)
    assert small != list(range(10))


@pytest.mark.parametrize("count", [5, 6])
def test_holding_out_everything_is_refused(count):
    with pytest.raises(InputError, match=rf"data\.holdout={count}: there are only 5 images"):
        numbered(5).hold_out(count)


def test_subsets_count_from_zero_and_share_the_pixels():
    images = numbered(10)
    odd = images.subset(np.array([1, 3, 5, 7])).subset(np.array([3, 0]))
    assert len(odd) == 2
    stored = odd.fetch(np.array([0, 1]), keys(2))
    assert stored["image"][:, 0, 0, 0].tolist() == stored["label"].tolist() == [7, 1]
    assert odd.labels.tolist() == [7, 1]
    places = {part.whole(0)["image"].untyped_storage().data_ptr() for part in (odd, images)}
    assert len(places) == 1


def alone(pixels) -> Images:
    return Images({"image": pixels})


def labelled(pixels, labels, classes) -> Images:
    return Images({"image": pixels, "label": labels}, {"label": tuple(classes)})


def test_fingerprint_changes_with_anything_in_the_set():
    base = torch.zeros(4, 1, 6, 6, dtype=torch.uint8)
    spot = base.clone()
    spot[3, 0, 5, 5] = 1
    labels = torch.tensor([0, 1, 0, 1])
    sets = [
        alone(base), alone(spot), labelled(base, labels, "ab"),
        labelled(base, 1 - labels, "ab"), labelled(base, labels, "ac"),
        alone(base.reshape(1, 4, 6, 6)), alone(base[:3]),
        alone(base).subset(np.array([0, 1])), alone(base).subset(np.array([1, 0])),
        alone(Ragged.joined([np.zeros((1, 12, 12), np.uint8)], 6)),
        alone(Ragged.joined([np.zeros((1, 12, 12), np.uint8)], 8)),
        alone(Ragged.joined([np.zeros((1, 9, 16), np.uint8)], 8)),
    ]  # fmt: skip
    assert len({images.fingerprint for images in sets}) == len(sets)
    assert alone(base.clone()).fingerprint == sets[0].fingerprint
    assert len(sets[0].fingerprint) == len(hashlib.sha256().hexdigest())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_gpu_fetches_what_the_cpu_does():
    indices = np.random.default_rng(0).integers(0, 5, 64)
    for images in (numbered(5), ragged_set()[0]):
        expected = images.fetch(indices, keys(64))
        got = images.to("cuda").fetch(indices, keys(64).cuda())
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[name].cpu(), expected[name]) for name in got)


def test_moving_to_a_device_keeps_everything():
    for images in (numbered(5), ragged_set()[0]):
        moved = images.to("meta")
        assert moved.device.type == moved.labels.device.type == "meta"
        assert (len(moved), moved.fingerprint) == (len(images), images.fingerprint)
        assert images.device.type == "cpu"


def broken_set(root: Path, broken: int) -> Path:
    for i in range(6):
        write(root / ("a" if i < 3 else "b") / f"{i}.png", 8, 8, seed=i)
    for i in range(broken):
        (root / "a" / f"bad{i}.png").write_bytes(b"not an image")
    return root


def test_tolerated_broken_files_are_left_out_and_named(tmp_path):
    source = open_source(str(broken_set(tmp_path, 2)))
    images, report = load_images(source, channels=3, size=8, fit="resize", tolerate_broken=2)
    assert len(report) == 2
    assert report.names == ("a/bad0.png", "a/bad1.png")
    assert "not an image" in str(report)
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(
        images.whole(5)["image"].permute(1, 2, 0).numpy(),
        np.array(Image.open(tmp_path / "b" / "5.png")),
    )


def test_broken_files_in_cropped_sets_are_left_out_too(tmp_path):
    images = loaded(broken_set(tmp_path, 1), fit="crop", tolerate_broken=1)
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_one_broken_file_too_many_stops_and_names_the_first(tmp_path):
    with pytest.raises(InputError, match=r"data\.tolerate_broken=1: .*a/bad0\.png: .*a/bad1\.png"):
        loaded(broken_set(tmp_path, 2), tolerate_broken=1)


def test_a_set_without_a_readable_image_is_refused(tmp_path):
    (tmp_path / "1.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"none of the 1 images can be read.*1\.png"):
        loaded(tmp_path, tolerate_broken=1)


def test_nothing_broken_is_an_empty_report(tmp_path):
    write(tmp_path / "1.png", 8, 8)
    _, report = load_images(open_source(str(tmp_path)), channels=3, size=8, fit="resize")
    assert report == BrokenReport()


def test_progress_reaches_the_end(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((150, 4, 4), np.uint8))
    seen: list[tuple[int, int]] = []
    loaded(tmp_path / "x.npz", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(64, 150), (128, 150), (150, 150)]


def test_real_mnist_padded(shared_data):
    source = open_source(str(shared_data / "mnist"), "test")
    images, report = load_images(source, channels=1, size=32, fit="pad")
    assert (len(images), len(report)) == (10_000, 0)
    pixels = images.fetch(np.arange(5), keys(5))["image"]
    assert images.labels[:5].tolist() == [7, 2, 1, 0, 4]
    np.testing.assert_array_equal(pixels[0, 0, 2:30, 2:30].numpy(), source.read(0)[..., 0])
    assert not pixels[:, :, :2].any()


def test_real_photographs_cropped(shared_data):
    images = loaded(shared_data / "sr" / "Set5", size=64, fit="crop")
    crops = images.fetch(np.array([4, 0, 4]), keys(3))["image"]
    assert crops.shape == (3, 3, 64, 64)
    assert not torch.equal(crops[0], crops[2])
