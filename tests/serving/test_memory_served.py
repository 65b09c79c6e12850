"""A replica that has answered ten thousand requests holds what it held after a thousand."""

import itertools
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from live_server import file_of, pixels
from ray_server import RayServer, ray_server

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

FEW, MANY = 1_000, 10_000  # requests
MORE = 1.05
CLIENTS = 8

PHOTOS = [
    file_of(pixels(*size), kind)
    for size in ((64, 64, 3), (200, 150, 3), (33, 90, 3), (400, 300, 3), (50, 50, 4))
    for kind in ("PNG", "WEBP")
]


def mixed(client: httpx.Client, number: int) -> httpx.Response:
    """One of the requests that a server gets, some of which are wrong."""
    match number % 8:
        case 0 | 1:
            return client.post("/v1/images/sample", json={"n": 1 + number % 16, "seed": number})
        case 2:
            ask = {"model": "figures", "prompt": "", "n": 1 + number % 4}
            return client.post("/v1/images/generations", json=ask)
        case 3 | 4 | 5:
            formats = ("png", "jpeg", "webp")
            asked = {"sigma": number % 50, "output_format": formats[number % 3]}
            photo = PHOTOS[number % len(PHOTOS)]
            return client.post("/v1/images/denoise", params=asked, content=photo)
        case 6:
            return client.get("/v1/models")
        case _:
            return client.post("/v1/images/denoise", content=b"\x89PNG\r\n\x1a\nbroken")


def ask(server: RayServer, requests: range) -> Counter[int]:
    def some(first: int) -> Counter[int]:
        with server.client() as client:
            each = itertools.islice(requests, first, None, CLIENTS)
            return Counter(mixed(client, number).status_code for number in each)

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(some, range(CLIENTS)), Counter())


def held(pid: int) -> int:
    """Bytes of memory that are a process's own, once it rests."""
    time.sleep(3)
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    own = [line.split() for line in lines if line.startswith("Private_")]
    return sum(int(fields[1]) for fields in own) * 1024


def test_memory_after_ten_thousand_mixed_requests(trained, tmp_path):
    options = ["--registry", str(trained), "--model=figures", "--model=denoiser"]
    with ray_server(tmp_path, options) as server:
        (replica,) = server.replicas("ingress")
        statuses = ask(server, range(FEW))
        few = held(replica)
        statuses += ask(server, range(FEW, MANY))
        many = held(replica)
        assert server.replicas("ingress") == [replica]
    print(f"{few / 1e6:.0f} MB after {FEW}, {many / 1e6:.0f} MB after {MANY}")
    assert statuses.keys() == {200, 400}, statuses
    assert statuses[200] > 0.8 * MANY
    assert many < MORE * few, (few, many)
