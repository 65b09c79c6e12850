"""Whatever image there is goes through a verb as it should, or is refused in a line."""

from pathlib import Path

import numpy as np
import pytest
from icc import rgb
from image_files import file_of, png_of, tiff_of
from PIL import Image
from typer.testing import CliRunner

from genimg.engine import Engine
from genimg.errors import InputError
from jobs.cli import app
from jobs.model import Model

SIZES = {
    "one pixel": (1, 1),
    "a line": (1, 37),
    "a column": (29, 1),
    "smaller than what a network sees": (5, 7),
    "odd sides": (61, 43),
}


@pytest.fixture(scope="module", autouse=True)
def loaded_once():
    """Each model once, which takes a second."""
    engines, load = {}, Model.engine

    def engine(model: Model) -> Engine:
        if model.name not in engines:
            engines[model.name] = load(model)
        return engines[model.name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Model, "engine", engine)
        yield


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no registry is


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return draw.integers(90, 160, (height, width, channels), np.uint8)


def shaded(height: int, width: int) -> np.ndarray:
    """Smooth colours, which a denoiser leaves as they are."""
    down, across = np.mgrid[0:height, 0:width] / [[[height]], [[width]]]
    return np.stack([40 + 150 * down, 200 - 120 * across, 60 + 90 * across * down], -1).astype("u1")


def made(*words: str) -> Image.Image:
    command = [*words, "-o", "made.png"]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    return Image.open("made.png")


def refused(*words: str) -> str:
    """What is told; nothing is written."""
    done = CliRunner().invoke(app, [*words, "-o", "made.png"])
    assert isinstance(done.exception, InputError), done.output
    assert not Path("made.png").exists()
    return str(done.exception)


@pytest.mark.parametrize("verb", ["denoise", "restore", "deblock", "upscale", "inpaint"])
def test_every_size_keeps_its_sides(verb):
    for height, width in SIZES.values():
        Image.fromarray(noise(height, width)).save("given.png")
        more = []
        if verb == "inpaint":
            holes = np.zeros((height, width), np.uint8)
            holes[0, : width // 2] = 255  # of one pixel: nothing
            Image.fromarray(holes).save("mask.png")
            more = ["--mask", "mask.png"]
        scale = 2 if verb == "upscale" else 1
        assert made(verb, "given.png", *more).size == (scale * width, scale * height)


def test_eight_symmetries_are_asked_for_without_a_value():
    Image.fromarray(noise(24, 36)).save("given.png")
    once, ensemble = made("denoise", "given.png"), made("denoise", "--ensemble", "given.png")
    assert ensemble.size == once.size == (36, 24)
    assert np.abs(np.asarray(ensemble, float) - np.asarray(once, float)).max() > 0


def colours(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


@pytest.mark.parametrize(
    ("mode", "becomes"),
    [("L", "L"), ("1", "L"), ("LA", "LA"), ("P", "RGB"), ("RGBA", "RGBA"), ("CMYK", "RGB")],
)
def test_every_mode_comes_back_as_what_it_shows(mode, becomes):
    image = Image.fromarray(shaded(24, 36)).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(noise(24, 36, 1, seed=1)[..., 0]))
    image.save("given.tif" if mode == "CMYK" else "given.png")
    given = "given.tif" if mode == "CMYK" else "given.png"
    restored = made("denoise", given, "-m", "denoise", "--sigma", "3")
    assert restored.mode == becomes
    near = np.abs(np.asarray(colours(restored), float) - np.asarray(colours(image), float))
    assert near.mean() < (40 if mode in "P1" else 8)
    if "A" in mode:
        np.testing.assert_array_equal(restored.getchannel("A"), image.getchannel("A"))


def test_dark_images_of_16_bits_keep_their_depth():
    dark = (noise(24, 36, 1)[..., 0].astype(np.uint16) - 90) * 5  # of 65,535: black in 8 bits
    strip = dark.astype("<u2").tobytes()
    Path("given.tif").write_bytes(tiff_of(36, 24, 16, 1, strip))
    restored = np.asarray(made("denoise", "given.tif", "-m", "denoise-gray", "--sigma", "1"))
    assert restored.dtype in (np.uint16, np.int32)
    assert abs(float(restored.mean()) - dark.mean()) < 100
    assert len(np.unique(restored)) > 20


def test_profiles_are_kept_and_turned_images_turned():
    image = Image.fromarray(noise(20, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter
    image.save("given.jpg", icc_profile=rgb(), exif=exif, quality=95)
    restored = made("denoise", "given.jpg")
    assert restored.size == (20, 30)
    assert restored.info["icc_profile"] == rgb()
    assert restored.getexif().get(0x0112, 1) == 1


def test_what_is_no_whole_image_is_refused_in_a_line():
    whole = file_of(Image.fromarray(noise(64, 64)), "PNG")
    broken = {
        "truncated": whole[: len(whole) // 2],
        "more than 64,000,000 pixels": png_of(60_000, 60_000, 8, 2, bytes(100_000)),
        "given.png": b"",
        "not an image in": b"what is no image at all",
    }
    Image.fromarray(noise(8, 8)).save("mask.png")
    for told, data in broken.items():
        Path("given.png").write_bytes(data)
        for verb in (["denoise"], ["upscale"], ["inpaint", "--mask", "mask.png"]):
            answer = refused(*verb, "given.png")
            assert told in answer
            assert "given.png" in answer


def test_masks_empty_full_soft_and_of_another_size():
    image = noise(40, 32)
    Image.fromarray(image).save("given.png")
    words = ("inpaint", "given.png", "--mask", "mask.png")

    def masked(mask: np.ndarray) -> tuple[str, ...]:
        Image.fromarray(mask).save("mask.png")
        return words

    assert "marks all of the image" in refused(*masked(np.full((40, 32), 255, np.uint8)))
    other = refused(*masked(np.zeros((32, 40), np.uint8)))
    assert "mask of 40x32 for an image of 32x40" in other

    empty = made(*masked(np.zeros((40, 32), np.uint8)))
    np.testing.assert_array_equal(empty, image)
    hole, soft = np.zeros((40, 32), np.uint8), np.zeros((40, 32), np.uint8)
    hole[10:20, 10:20], soft[10:20, 10:20] = 255, 128
    whole = np.asarray(made(*masked(hole)), float)
    half = np.asarray(made(*masked(soft)), float)
    marked = hole > 0
    assert np.abs(half[marked] - (whole + image)[marked] / 2).max() <= 2
    np.testing.assert_array_equal(half[~marked], image[~marked])


def test_what_would_become_too_large_is_refused_by_the_size_of_the_result():
    Image.new("L", (7_000, 7_000)).save("given.png")
    assert "28000x28000" in refused("upscale", "given.png", "--scale", "4")


def test_a_format_that_cannot_hold_the_result_is_refused_before_a_model_is_loaded(monkeypatch):
    clear = noise(20, 24, 4)
    clear[:12, ..., 3] = 255
    Image.fromarray(clear).save("clear.png")
    Image.fromarray(noise(20, 24, 1)[..., 0].astype(np.uint16)).save("deep.png")
    monkeypatch.setattr(Model, "engine", lambda _: 1 / 0)
    for verb, name, told in (
        ("denoise", "clear", "jpeg holds no transparency"),
        ("denoise", "deep", "jpeg holds 8 bits"),
        ("inpaint", "clear", "division by zero"),  # whose result is opaque
    ):
        done = CliRunner().invoke(app, [verb, f"{name}.png", "-o", "never.jpg"])
        assert told in str(done.exception)
    assert not Path("never.jpg").exists()
