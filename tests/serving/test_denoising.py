"""Denoising over HTTP: every way to send an image, every kind of image, every wrong one."""

import base64
import itertools
import shutil
import socket
import struct
import subprocess
import zlib
from pathlib import Path

import httpx
import icc
import numpy as np
import pytest
from engine_calls import denoise
from live_server import file_of, opened, pixels
from PIL import Image

from cluster.places import open_storage
from cluster.registry import Registry
from genimg.engine import Engine

ROUTE = "/v1/images/denoise"
RAW = {"content-type": "application/octet-stream"}
PICTURE = pixels(21, 34, 3)
PNG = file_of(PICTURE)


@pytest.fixture(scope="module")
def engine(trained):
    registry = Registry(open_storage(str(trained)))
    return Engine.load(registry.fetch(registry.resolve("denoiser")), "cpu")


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def denoised(client: httpx.Client, data: bytes, **parameters) -> httpx.Response:
    answer = client.post(ROUTE, content=data, params=parameters, headers=RAW)
    assert answer.status_code == 200, answer.text
    return answer


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
    for tile in ("auto", "0", "144"):
        result = array(denoised(client, data, sigma=25, tile=tile).content)
        assert np.abs(result - whole).max() <= 1


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises many pixels."""
    chunks = b""
    for kind, body in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ):
        chunks += struct.pack(">I", len(body)) + kind + body
        chunks += struct.pack(">I", zlib.crc32(kind + body))
    return b"\x89PNG\r\n\x1a\n" + chunks


def animated(format: str) -> bytes:
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "lime", "blue")]
    return file_of(frames[0], format, save_all=True, append_images=frames[1:])


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
WRONG_IMAGES = {
    "empty": (b"", 400, "missing_image", "there is no image"),
    "text": (b"hello", 415, "unsupported_image_media_type", "give PNG, JPEG"),
    "pdf": (b"%PDF-1.7 \n", 415, "unsupported_image_media_type", "give PNG, JPEG"),
    "svg": (b"<svg/>", 415, "unsupported_image_media_type", "give PNG, JPEG"),
    "eps": (file_of(NOISE, "EPS"), 415, "unsupported_image_media_type", "give PNG, JPEG"),
    "head of a png": (PNG[:8], 400, "invalid_image", "damaged"),
    "head of a jpeg": (b"\xff\xd8\xff\xe0", 400, "invalid_image", "damaged"),
    "bmp of nothing": (b"BM" + bytes(60), 400, "invalid_image", "damaged"),
    "bomb": (png_claiming(50_000, 50_000), 400, "image_too_large", "pixels"),
    "a pixel row too much": (png_claiming(1000, 1001), 400, "image_too_large",
                             "1000x1001 is more than 1,000,000 pixels"),
    "promises": (png_claiming(1000, 1000), 400, "invalid_image", "damaged or truncated"),
    "gif": (animated("GIF"), 400, "invalid_image", "several frames"),
    "webp": (animated("WEBP"), 400, "invalid_image", "several frames"),
    "apng": (animated("PNG"), 400, "invalid_image", "several frames"),
    "tiff": (animated("TIFF"), 400, "invalid_image", "several frames"),
    "float tiff": (file_of(np.zeros((4, 4), np.float32), "TIFF"), 400, "invalid_image",
                   "floating-point"),
}  # fmt: skip
for _format in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"):
    _whole = file_of(NOISE, _format)
    WRONG_IMAGES[f"torn {_format}"] = (_whole[: len(_whole) // 2], 400, "invalid_image", "")


@pytest.mark.parametrize("name", WRONG_IMAGES)
@pytest.mark.parametrize("way", ["raw", "multipart", "json"])
def test_what_is_no_image_is_refused_however_it_is_sent(client, name, way):
    data, status, code, message = WRONG_IMAGES[name]
    request = {
        "raw": {"content": data, "headers": {"content-type": "image/png"}},
        "multipart": {"files": {"image": ("a.png", data, "image/png")}},
        "json": {"json": {"image": in_base64(data)}},
    }[way]
    answer = client.post(ROUTE, **request)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, "image"), error
    assert message in error["message"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("request_", "status", "code", "param"),
    [
        ({"json": {"image": "http://localhost/a.png"}}, 400, "invalid_image", "image"),
        ({"json": {"image": "file:///etc/passwd"}}, 400, "invalid_image", "image"),
        ({"json": {"image": "data:image/png,abc"}}, 400, "invalid_image", "image"),
        ({"json": {"image": "data:image/png;base64,a$b"}}, 400, "invalid_image", "image"),
        ({"json": {"image": "abc"}}, 400, "invalid_image", "image"),
        ({"json": {"image": [1, 2]}}, 400, "invalid_image", "image"),
        ({"json": {"image": "ä"}}, 400, "invalid_image", "image"),
        ({"json": {}}, 400, "missing_image", "image"),
        ({"json": {"image": None}}, 400, "missing_image", "image"),
        ({"data": {"sigma": "3"}}, 400, "missing_image", "image"),
        ({}, 400, "missing_image", "image"),
        ({"files": {"image": PNG, "file": PNG}}, 400, "invalid_value", "file"),
        ({"files": [("image", PNG), ("image", PNG)]}, 400, "invalid_value", "image"),
        ({"files": {"image": PNG, "mask": PNG}}, 400, "unknown_parameter", "mask"),
        ({"files": {"imge": PNG}}, 400, "missing_image", "image"),
        ({"files": {f"f{i}": PNG for i in range(5)}}, 400, "bad_request", None),
    ],
)
def test_a_request_without_one_image_is_refused(client, request_, status, code, param):
    answer = client.post(ROUTE, **request_)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param), error


@pytest.mark.parametrize(
    ("parameters", "param", "message"),
    [
        ({"sigma": "-1"}, "sigma", "sigma='-1'"),
        ({"sigma": "256"}, "sigma", "sigma='256'"),
        ({"sigma": "loud"}, "sigma", "sigma='loud'"),
        ({"sigma": "nan"}, "sigma", "finite"),
        ({"strength": "1.01"}, "strength", "strength='1.01'"),
        ({"strength": "inf"}, "strength", "strength='inf'"),
        ({"tile": "big"}, "tile", "give 'auto', 0 (off) or a number of pixels"),
        ({"tile": "-2"}, "tile", "give 'auto', 0 (off) or a number of pixels"),
        ({"tile": "4096"}, "tile", "at most 2048"),
        ({"tile": "2"}, "tile", "tile=2: use 0, 'auto' or a multiple of 2 from"),
        ({"output_format": "gif"}, "output_format", "output_format='gif'"),
        ({"output_compression": "101", "output_format": "jpeg"}, "output_compression", "100"),
        ({"response_format": "url"}, "response_format", "'image' or 'b64_json'"),
        ({"sigm": "1"}, "sigm", "unknown parameter 'sigm'; did you mean 'sigma'?"),
        ({"imag": "1"}, "imag", "unknown parameter 'imag'; did you mean 'image'?"),
        ({"seed": "1"}, "seed", "unknown parameter 'seed'"),
        ({"model": "shapes"}, "model", "it cannot denoise; it can: sample"),
    ],
)
def test_parameters_that_cannot_be_honoured_are_refused(client, parameters, param, message):
    for request in (
        {"content": PNG, "params": parameters, "headers": RAW},
        {"files": {"image": PNG}, "data": parameters},
    ):
        answer = client.post(ROUTE, **request)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, param), error
        assert message in error["message"]


def test_an_image_of_all_allowed_pixels_is_taken(client):
    data = file_of(np.zeros((1000, 1000), np.uint8))
    assert opened(denoised(client, data, sigma=5).content).size == (1000, 1000)


def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(server):
    url = httpx.URL(server)
    with socket.create_connection((url.host, url.port), timeout=60) as connection:
        connection.sendall(
            f"POST {ROUTE} HTTP/1.1\r\nHost: here\r\nContent-Length: 3000000\r\n\r\n".encode()
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "way",
    [
        {"content": bytes(2_000_001)},
        {"files": {"image": bytes(2_000_001)}},
        {"json": {"image": "a" * 2_000_000}},
    ],
)
def test_a_body_of_too_many_bytes_is_refused(client, way):
    answer = client.post(ROUTE, **way)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (413, "body_too_large")
    assert "2,000,000 bytes" in error["message"]


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("image/png", b""),
        ("application/json", b'{"image": "'),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n',
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n',
        ),
    ],
)
def test_a_chunked_body_is_refused_once_it_has_become_too_large(client, kind, head):
    chunks = itertools.chain([head], itertools.repeat(b"a" * 100_000, 30))
    answer = client.post(ROUTE, content=chunks, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def resident() -> int:
    """Bytes that this process, in which the server runs, has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_memory_does_not_grow_with_requests_nor_with_what_is_refused(client):
    good = file_of(pixels(400, 500, 3))
    bad = file_of(NOISE)[:-300]

    def some() -> None:
        for _ in range(12):
            denoised(client, good, sigma=25, tile=144)
            client.post(ROUTE, content=bad, headers=RAW)
            client.post(ROUTE, content=iter([bytes(1_000_000)] * 20), headers=RAW)

    some()
    before = resident()
    some()
    assert resident() - before < 30_000_000


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


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_is_told_of_a_large_file_before_it_sends_it(server, tmp_path):
    (tmp_path / "large").write_bytes(bytes(3_000_000))
    told = subprocess.run(
        [
            "curl",
            "-sS",
            "-F",
            "image=@large",
            f"{server}{ROUTE}",
            "-w",
            " %{http_code} %{size_upload}",
        ],
        check=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.split()
    assert told[-2:] == ["413", "0"]
