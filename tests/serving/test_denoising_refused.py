"""What cannot be denoised is refused by name: images, requests, parameters, too large bodies."""

import itertools
import shutil
import socket
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pytest
from denoise_calls import PNG, RAW, ROUTE, denoised, in_base64
from image_files import png_of
from live_server import file_of, opened, pixels
from PIL import Image


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises many pixels."""
    return png_of(width, height, 8, 2, b"")


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
        ({"files": {"imge": PNG}}, 400, "unknown_parameter", "imge"),
        ({"files": {"image": b""}}, 400, "missing_image", "image"),
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
        ({"output_format": "gif"}, "output_format", "output_format='gif'"),
        ({"output_compression": "101", "output_format": "jpeg"}, "output_compression", "100"),
        ({"response_format": "url"}, "response_format", "'image' or 'b64_json'"),
        ({"sigm": "1"}, "sigm", "unknown parameter 'sigm'; did you mean 'sigma'?"),
        ({"sigm": ""}, "sigm", "unknown parameter 'sigm'; did you mean 'sigma'?"),
        ({"sigm": "null"}, "sigm", "unknown parameter 'sigm'; did you mean 'sigma'?"),
        ({"sigma[0]": ""}, "sigma", "sigma has no parts here; leave it out"),
        ({"imag": "1"}, "imag", "unknown parameter 'imag'; did you mean 'image'?"),
        ({"seed": "1"}, "seed", "unknown parameter 'seed'"),
        ({"model": "figures"}, "model", "it cannot denoise; it can: sample"),
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
