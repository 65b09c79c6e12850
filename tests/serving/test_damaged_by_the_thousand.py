"""Thousands of damaged images, masks and bodies over all routes: none is a fault of ours."""

import base64
import json
import random
import socket
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from image_files import png_chunk
from live_server import file_of, pixels, served
from operation_inputs import sent
from PIL import Image

from genimg.operations import OPERATIONS, Kind
from serving.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
REQUESTS = 3000
MODELS = ("dcgan", "conv-vae", "ffdnet", "inpainter", "upscaler", "pix2pix", "adain", "segmenter",
          "detector", "classifier", "conv-mixer", "stylegan")  # fmt: skip
IMAGES = [
    (format, file_of(image, format))
    for image in (pixels(24, 17, 3), pixels(16, 16))
    for format in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
] + [
    ("PNG", file_of(pixels(20, 12, 4))),
    ("PNG", file_of(pixels(9, 14, dtype=np.uint16))),
    ("PNG", file_of(Image.fromarray(pixels(16, 16, 3)).quantize(7))),
    ("JPEG", file_of(Image.fromarray(pixels(16, 16, 4)).convert("CMYK"), "JPEG")),
    ("TIFF", file_of(pixels(19, 23, 3), "TIFF", compression="tiff_deflate")),
]


@pytest.fixture(scope="module")
def url(every_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings.validated(
        {
            "registry": str(every_recipe / "registry"),
            "models": [{"ref": name} for name in MODELS],
            "limits": {
                "max_bytes": 2_000_000, "max_pixels": 500_000, "max_images": 8, "upload_s": 2,
            },
            "jobs": {"storage": str(tmp_path_factory.mktemp("jobs"))},
        }
    )  # fmt: skip
    with served(settings) as url:
        yield url


def torn(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def flipped(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.choice((1, 3, 20))):
        changed[dice.randrange(len(changed))] = dice.randrange(256)
    return bytes(changed)


def flipped_at_its_head(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.choice((1, 4))):
        changed[dice.randrange(min(64, len(changed)))] = dice.choice((0, 1, 127, 128, 255))
    return bytes(changed)


def stuffed(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + dice.randbytes(dice.choice((1, 4, 4096))) + data[at:]


def doubled(data: bytes, dice: random.Random) -> bytes:
    begin = dice.randrange(len(data))
    return data[:begin] + data[begin : begin + dice.randrange(1, 600)] + data[begin:]


@cache
def zeros() -> bytes:
    """200 MB of them, compressed to 0.2."""
    return zlib.compress(bytes(200_000_000))


def bomb(data: bytes, dice: random.Random) -> bytes:
    """A small file that would become large: pixels, text, or a colour profile."""
    whole = file_of(pixels(8, 8, 3))
    if dice.random() < 0.5:
        side = struct.pack(">I", dice.choice((700, 30_000, 2**31 - 1)))
        head = png_chunk(b"IHDR", side + side + bytes((8, dice.choice((0, 2, 6)), 0, 0, 0)))
        return whole[:8] + head + png_chunk(b"IDAT", zeros()) + png_chunk(b"IEND", b"")
    kind, head = dice.choice(((b"zTXt", b"a\0\0"), (b"iCCP", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0")))
    return whole[:33] + png_chunk(kind, head + zeros()) + whole[33:]


def drawing(data: bytes, dice: random.Random) -> bytes:
    """Markup that would have a reader open files, ask hosts, or never end."""
    entity = '<!DOCTYPE svg [<!ENTITY a "&b;&b;"><!ENTITY b SYSTEM "file:///etc/passwd">]>'
    inner = dice.choice(('<image href="http://127.0.0.1:1/a.png"/>', "&a;", "<svg>" * 2000))
    return f'<?xml version="1.0"?>{entity}<svg xmlns="http://www.w3.org/2000/svg">{inner}'.encode()


def noise(data: bytes, dice: random.Random) -> bytes:
    return dice.choice((b"", data[:12], b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")) + dice.randbytes(
        dice.choice((0, 1, 300))
    )


DAMAGE = (torn, flipped, flipped, flipped_at_its_head, stuffed, doubled, drawing, noise)


def damaged(dice: random.Random) -> bytes:
    data = dice.choice(IMAGES)[1]
    return (bomb if dice.random() < 0.02 else dice.choice(DAMAGE))(data, dice)


def operation(dice: random.Random) -> tuple[str, dict]:
    """Of an operation, its inputs: one of them damaged, or all."""
    name = dice.choice(sorted(OPERATIONS))
    files = {}
    for key, kind in OPERATIONS[name].takes.items():
        if kind in (Kind.PICTURE, Kind.MASK):
            whole = dice.choice(IMAGES)[1]
        elif kind is Kind.FRAMES:
            whole = sent(kind, np.stack([pixels(16, 16, 3)] * 3))
        else:
            whole = sent(kind, np.zeros((2, 8), np.float32))
        files[key] = (f"{key}.png", whole)
    for key in files if dice.random() < 0.3 else dice.sample(sorted(files), min(1, len(files))):
        data = files[key][1]
        bad = dice.choice(DAMAGE)(data, dice) if dice.random() < 0.8 else damaged(dice)
        files[key] = (files[key][0], bad)
    return f"/v1/images/{name}", files


JUNK: tuple[Callable[[random.Random], object], ...] = (
    lambda dice: dice.choice((None, True, [], {}, "", "a" * 5000, "\ud800", "\0", "%s%n")),
    lambda dice: dice.choice((0, -1, 2**31, 2**63, 2**64, 10**400, 1e308, -0.0)),
    lambda dice: [[0.0] * dice.randrange(20)] * dice.randrange(9),
    lambda dice: {"a": {"b": [1, {"c": None}]}},
)


def parameters(dice: random.Random, name: str) -> dict:
    """Some of an operation's options, and one of nobody's, with values that are not theirs."""
    keys = [*OPERATIONS[name].model_fields, "model", "n", "size", "response_format", "latents", "x"]
    chosen = dice.sample(keys, min(len(keys), dice.randrange(1, 4)))
    return {key: dice.choice(JUNK)(dice) for key in chosen}


def request(seed: int) -> dict:
    """A request that is wrong in some way, as httpx takes it."""
    dice = random.Random(seed)
    route, files = operation(dice)
    way = dice.choice(("form", "form", "raw", "json", "body", "openai", "options"))
    if way == "raw":
        kind = dice.choice(("image/png", "image/jpeg", "application/octet-stream", "image/x-none"))
        return {"url": route, "content": damaged(dice), "headers": {"content-type": kind}}
    if way == "json":
        sent_as = base64.b64encode(damaged(dice)).decode()
        data = dice.choice((sent_as, f"data:image/png;base64,{sent_as}", sent_as[:-3] + "*~"))
        return {"url": route, "json": {"image": data, "mask": data}}
    if way == "body":
        body = json.dumps(parameters(dice, route.rpartition("/")[2])).encode()
        body = dice.choice(
            (
                flipped(body, dice), torn(body, dice), b"[" * 100_000, b'{"n":' * 20_000,
                b'{"seed": NaN}', b'{"seed": 1, "seed": 2}', b"\xff\xfe{}", b"\xef\xbb\xbf{}",
                b'{"n": ' + b"9" * 5000 + b"}",
            )
        )  # fmt: skip
        types = ("application/json", "multipart/form-data; boundary=a", "multipart/form-data",
                 "application/x-www-form-urlencoded")  # fmt: skip
        return {"url": route, "content": body, "headers": {"content-type": dice.choice(types)}}
    if way == "openai":
        route = dice.choice(("/v1/images/edits", "/v1/images/variations"))
        files = {"image": ("a.png", damaged(dice))}
        if dice.random() < 0.5:
            files["mask"] = ("b.png", damaged(dice))
        return {"url": route, "files": files, "data": {"prompt": "a", "model": dice.choice(MODELS)}}
    if way == "options":
        route = dice.choice((route, "/v1/images/generations"))
        options = parameters(dice, route.rpartition("/")[2].replace("generations", "sample"))
        return {"url": route, "content": json.dumps(options, ensure_ascii=True).encode(),
                "headers": {"content-type": "application/json"}}  # fmt: skip
    model = {"model": dice.choice(MODELS)} if dice.random() < 0.5 else {}
    return {"url": route, "files": files, "data": model} if files else {"url": route, "json": {}}


def test_none_is_a_fault_of_ours(url):
    told = Counter()
    with httpx.Client(base_url=url, timeout=120, limits=httpx.Limits(max_connections=8)) as client:
        plain = {"url": "/v1/images/sample", "json": {"model": "dcgan", "seed": 5}}
        before = client.post(**plain).content

        def ask(seed: int) -> None:
            answer = client.post(**request(seed))
            told[answer.status_code] += 1
            assert answer.status_code < 500, (seed, answer.text)
            if answer.status_code >= 400:
                error = answer.json()["error"]
                assert error["message"], seed
                assert len(answer.content) < 5000, seed

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(REQUESTS)))
        assert client.post(**plain).content == before
    print(dict(told))
    assert told[400] > REQUESTS / 4  # they are wrong
    assert told[200] > REQUESTS / 50  # and not all of them can be told to be
    assert set(told) <= {200, 400, 404, 413, 415}


def connected(url: str) -> socket.socket:
    return socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=30)


def test_a_thousand_that_say_nothing_are_in_nobodys_way(url):
    with ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(connected(url))
        for _ in range(20):
            answer = httpx.post(f"{url}/v1/images/sample", json={"model": "dcgan"}, timeout=30)
            assert answer.status_code == 200


def test_those_that_speak_slowly_are_given_up_and_in_nobodys_way(url):
    head = (b"POST /v1/images/denoise HTTP/1.1\r\nhost: a\r\ncontent-type: image/png\r\n"
            b"content-length: 1000\r\n\r\n")  # fmt: skip
    ended = []

    def drip() -> None:
        with connected(url) as line:
            line.sendall(head)
            line.settimeout(0.3)
            for _ in range(40):
                try:
                    line.sendall(b"a")
                    if not line.recv(4096):
                        return
                    ended.append(True)
                    return
                except TimeoutError:
                    continue
                except OSError:
                    ended.append(True)
                    return

    threads = [threading.Thread(target=drip) for _ in range(100)]
    for each in threads:
        each.start()
    for _ in range(20):
        answer = httpx.post(f"{url}/v1/images/sample", json={"model": "dcgan"}, timeout=30)
        assert answer.status_code == 200
    for each in threads:
        each.join()
    assert len(ended) == 100
