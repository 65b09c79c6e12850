"""Denoising over HTTP: every way to send an image, every kind of image, and how it comes back."""

import base64
import shutil
import struct
import subprocess

import icc
import numpy as np
import pytest
from denoise_calls import PICTURE, PNG, RAW, ROUTE, denoised, in_base64
from engine_calls import denoise
from live_server import file_of, opened, pixels
from PIL import Image

from cluster.places import open_storage
from cluster.registry import Registry
from genimg.engine import Engine


@pytest.fixture(scope="module")
def engine(trained):
    registry = Registry(open_storage(str(trained)))
    return Engine.load(registry.fetch(registry.resolve("denoiser")), "cpu")


def array(data: bytes) -> np.ndarray:
    """[H, W, C] as Pillow reads it."""
    values = np.array(opened(data))
    return values[..., None] if values.ndim == 2 else values


def test_an_image_may_be_sent_in_any_way(client, engine):
    expected = denoise(engine, PICTURE, sigma=25.0, strength=0.5)
    asked = {"sigma": "25", "strength": "0.5", "tile": "auto"}
    typed = {"sigma": 25, "strength": 0.5, "tile": "auto", "model": None}
    url = f"data:image/png;base64,{in_base64(PNG)}"
    unnamed = ("upload", PNG, "application/octet-stream")
    for request in (
        {"files": {"image": ("a.png", PNG, "image/png")}, "data": asked},
        {"files": {"file": unnamed}, "data": asked},
        {"files": {"image": ("a.txt", PNG, "text/plain")}, "params": asked},
        {"files": {"image": (None, in_base64(PNG))}, "data": asked},
        {"content": PNG, "params": asked, "headers": {"content-type": "image/png"}},
        {"content": PNG, "params": asked, "headers": {"content-type": "image/jpeg"}},  # a lie
        {"content": PNG, "params": asked, "headers": RAW},
        {"content": PNG, "params": asked},
        {"content": iter([PNG[:50], PNG[50:]]), "params": asked},  # chunked
        {"json": {"image": in_base64(PNG), **typed}},
        {"json": {"file": url, **typed}},
        {"json": {"image": url}, "params": asked},
    ):
        answer = client.post(ROUTE, **request)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["x-model-id"] == "denoiser"
        assert "x-seed" not in answer.headers
        np.testing.assert_array_equal(array(answer.content), expected)


def test_json_comes_back_where_it_is_asked_for(client, engine):
    answer = denoised(client, PNG, response_format="b64_json", sigma=25).json()
    assert (answer["model"], answer["version"]) == ("denoiser", 1)
    assert (answer["size"], answer["output_format"]) == ("34x21", "png")
    (entry,) = answer["data"]
    assert entry.keys() == {"b64_json"}
    result = array(base64.b64decode(entry["b64_json"]))
    np.testing.assert_array_equal(result, denoise(engine, PICTURE, sigma=25.0))


def test_the_noise_level_is_estimated_where_it_is_not_given(client, engine):
    for sigma in ({}, {"sigma": "null"}, {"sigma": ""}):
        result = array(denoised(client, PNG, **sigma).content)
        np.testing.assert_array_equal(result, denoise(engine, PICTURE))


@pytest.mark.parametrize(
    ("sent", "back"),
    [("PNG", "PNG"), ("JPEG", "JPEG"), ("WEBP", "WEBP"), ("BMP", "BMP"), ("TIFF", "TIFF"),
     ("GIF", "PNG")],
)  # fmt: skip
def test_an_image_comes_back_in_its_own_format(client, sent, back):
    answer = denoised(client, file_of(Image.fromarray(PICTURE), sent), sigma=0, strength=0)
    result = opened(answer.content)
    assert answer.headers["content-type"] == f"image/{back.lower()}"
    assert (result.format, result.size) == (back, (34, 21))
    if sent not in ("JPEG", "GIF"):
        np.testing.assert_array_equal(array(answer.content), array(file_of(PICTURE, sent)))


@pytest.mark.parametrize("sent", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("back", ["png", "jpeg", "webp", "tiff"])
def test_an_image_keeps_its_colour_profile(client, sent, back):
    data = file_of(Image.fromarray(PICTURE), sent, icc_profile=icc.rgb())
    answer = denoised(client, data, sigma=0, output_format=back)
    assert opened(answer.content).info["icc_profile"] == icc.rgb()


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_stay_sixteen_however_dark(client, engine, format):
    wide = pixels(20, 30, dtype=np.uint16) // 200  # below 256 and a little above
    answer = denoised(client, file_of(Image.fromarray(wide), format), sigma=5)
    assert opened(answer.content).mode.startswith("I;16")
    expected = denoise(engine, wide[..., None], sigma=5.0)
    np.testing.assert_array_equal(array(answer.content), expected)


@pytest.mark.parametrize(
    ("mode", "format"),
    [
        ("RGBA", "PNG"),
        ("LA", "PNG"),
        ("RGBA", "TIFF"),
        ("RGBA", "WEBP"),
        ("P", "PNG"),
        ("P", "GIF"),
    ],
)
def test_transparency_passes_through(client, mode, format):
    image = Image.fromarray(PICTURE)
    veil = Image.fromarray(pixels(21, 34, seed=1) | 1)
    if mode == "P":
        image = image.quantize(16)
        data = file_of(image, format, transparency=3)
        veil = opened(data).convert("RGBA").getchannel("A")
    else:
        image = image.convert(mode)
        image.putalpha(veil)
        data = file_of(image, format, **({"lossless": True} if format == "WEBP" else {}))
    result = opened(denoised(client, data, sigma=20).content)
    assert result.mode in ("RGBA", "LA")
    np.testing.assert_array_equal(np.array(result.getchannel("A")), np.array(veil))


def test_a_transparent_bmp_comes_back_as_png(client):
    veiled = np.dstack([PICTURE, PICTURE[..., 0]])
    masks = struct.pack("<IIII", 0xFF, 0xFF00, 0xFF0000, 0xFF000000)  # red, green, blue, alpha
    size = struct.pack("<IiiHHI", 108, 34, -21, 1, 32, 3)  # top down, with masks
    header = (size + bytes(20) + masks).ljust(108, b"\0")
    data = b"BM" + struct.pack("<IHHI", 122 + veiled.size, 0, 0, 122) + header + veiled.tobytes()
    np.testing.assert_array_equal(array(data), veiled)  # which Pillow can read but not write
    result = opened(denoised(client, data, strength=0).content)
    assert result.format == "PNG"
    np.testing.assert_array_equal(np.array(result), veiled)


@pytest.mark.parametrize("output_format", ["jpeg", "bmp"])
def test_transparency_is_not_dropped_for_a_format_without_it(client, output_format):
    data = file_of(np.dstack([PICTURE, PICTURE[..., 0]]))
    answer = client.post(ROUTE, content=data, params={"output_format": output_format}, headers=RAW)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "output_format")
    assert "holds no transparency; write it as png" in error["message"]


def test_cmyk_palette_one_bit_and_gray_images_are_restored(client, engine):
    colour = Image.fromarray(PICTURE)
    for image, format, mode in (
        (colour.convert("CMYK"), "JPEG", "RGB"),
        (colour.quantize(16), "PNG", "RGB"),
        (colour.convert("1"), "PNG", "L"),
        (colour.convert("L"), "PNG", "L"),
    ):
        data = file_of(image, format)
        expected = denoise(
            engine, np.asarray(opened(data).convert(mode)).reshape(21, 34, -1), sigma=10.0
        )
        answer = denoised(client, data, sigma=10, output_format="png")
        assert opened(answer.content).mode == mode
        np.testing.assert_array_equal(array(answer.content), expected)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_turned_photograph_comes_back_upright_and_turned_once(client, format):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    corner = np.zeros((32, 48, 3), np.uint8)
    corner[:16, :16] = 255
    data = file_of(Image.fromarray(corner), format, exif=exif)
    result = opened(denoised(client, data, strength=0).content)
    assert result.size == (32, 48)
    assert result.getexif().get(0x0112, 1) == 1
    assert np.abs(np.array(result).astype(int) - np.rot90(corner, 3)).mean() < 5


def test_large_images_are_tiled_as_asked(client, engine):
    image = pixels(90, 600, 3)
    data = file_of(image)
    whole = denoise(engine, image, sigma=25.0, tile=0).astype(int)
    for tile in ("auto", "0", "2", "144"):
        result = array(denoised(client, data, sigma=25, tile=tile).content)
        assert np.abs(result - whole).max() <= 1


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(
    "way",
    [
        ["-F", "image=@a.png"],
        ["-F", "file=@a.png", "-F", "sigma=25", "-F", "model=denoiser"],
        ["--data-binary", "@a.png", "-H", "Content-Type: image/png"],
        ["--data-binary", "@a.png"],
        ["-T", "a.png", "-X", "POST"],
        ["-T", "-", "-X", "POST"],  # chunked
    ],
)
def test_curl_denoises(server, tmp_path, way):
    (tmp_path / "a.png").write_bytes(PNG)
    subprocess.run(
        ["curl", "-sS", "--fail-with-body", *way, f"{server}{ROUTE}", "-o", "b.png"],
        check=True,
        cwd=tmp_path,
        input=PNG,
        timeout=60,
    )
    result = Image.open(tmp_path / "b.png")
    assert (result.format, result.size) == ("PNG", (34, 21))
