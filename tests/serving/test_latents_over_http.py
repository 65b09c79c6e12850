"""Latents that go in and come out over HTTP: ways, traversals, variations, inversions."""

import base64
import gc
import io
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from live_server import file_of, opened, pixels
from operation_inputs import sent

from genimg.operations import OPERATIONS, Kind
from serving.work import latents_in

POINTS = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)


def picture_of(data: bytes) -> np.ndarray:
    return np.asarray(opened(data))


def test_a_way_goes_by_latents_however_they_come_and_is_shown_in_one_picture(asking, engines):
    options = {"frames": 9, "output_format": "png", "model": "dcgan"}
    expected = engines["dcgan"](OPERATIONS["interpolate"](frames=9), latents=POINTS).sheet()
    route, data = "/v1/images/interpolate", sent(Kind.LATENTS, POINTS)
    for way in (
        {"params": options, "files": {"latents": data}},
        {"params": options, "content": data},
        {"json": options | {"latents": POINTS.tolist()}},
    ):
        answer = asking.post(route, **way)
        assert answer.status_code == 200, answer.text
        assert np.array_equal(picture_of(answer.content), expected)
    square = options | {"seed": 5, "square": True}
    answer = asking.post(route, json=square)
    made = engines["dcgan"](OPERATIONS["interpolate"](frames=9, seed=5, square=True))
    assert np.array_equal(picture_of(answer.content), made.sheet())


def test_one_varies_an_image_a_seed_or_latents_by_a_model_that_can(asking, engines):
    image = pixels(16, 16, 3)
    options = {"n": 2, "seed": 1, "response_format": "b64_json"}
    given = {"latents": POINTS[:1]}
    for model, asked, files, inputs in (
        ("conv-vae", {}, {"image": file_of(image)}, {"image": image}),
        ("conv-vae", {}, {"latents": sent(Kind.LATENTS, POINTS[:1])}, given),
        ("dcgan", {}, {"latents": sent(Kind.LATENTS, POINTS[:1])}, given),
        ("dcgan", {"of": 7}, None, {}),
    ):
        params = options | asked | {"model": model}
        answer = asking.post("/v1/images/vary", params=params, files=files)
        expected = engines[model](OPERATIONS["vary"](n=2, seed=1, **asked), **inputs).images
        shown = [picture_of(base64.b64decode(each["b64_json"])) for each in answer.json()["data"]]
        assert np.array_equal(np.stack(shown), expected)
    answer = asking.post("/v1/images/vary", files={"image": file_of(image)})
    assert answer.headers["x-model-id"] == "conv-vae"  # the first that reads one


def test_how_near_latents_come_is_told_beside_them(asking, engines):
    files = {"image": file_of(pixels(16, 16, 3))}
    for form in ("json", "npy"):
        params = {"model": "conv-vae", "response_format": form}
        answer = asking.post("/v1/images/invert", params=params, files=files)
        found = engines["conv-vae"](OPERATIONS["invert"](), image=pixels(16, 16, 3))
        assert answer.headers["x-psnr"] == f"{found.psnr[0]:.2f}"
        if form == "json":
            assert answer.json()["psnr"] == list(found.psnr)
            assert answer.json()["plain_psnr"] == list(found.plain_psnr)
            assert np.array_equal(np.float32(answer.json()["data"]), found.array)


@pytest.mark.parametrize(
    ("name", "options", "param"),
    [
        ("traverse", {"n": 20, "frames": 20}, "n"),
        ("traverse", {"dims": "99"}, "dims"),
        ("interpolate", {"seeds": "1,2,3", "frames": 2}, "frames"),
        ("interpolate", {"latents": [[0.0] * 7]}, "latents"),
        ("vary", {}, "of"),
        ("vary", {"of": 1, "latents": [[0.0] * 8]}, "of"),
        ("sample", {"direction": "size=1"}, "direction"),
    ],
)
def test_what_cannot_be_explored_is_refused_by_name(asking, name, options, param):
    answer = asking.post(f"/v1/images/{name}", json=options | {"model": "dcgan"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"latents": [[0.0] * 8] * 9}, "latents"),  # of which 81 are made, beside themselves
        ({"seeds": "1,2,3,4,5,6,7,8,9"}, "seeds"),
        ({"n": 9}, "n"),
        ({"seeds": "1,2", "layers": "9"}, "layers"),
    ],
)
def test_what_cannot_be_mixed_or_is_too_much_is_refused_by_name(asking, options, param):
    answer = asking.post("/v1/images/mix", json=options | {"model": "stylegan"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_a_search_lets_others_in_and_ends_where_nobody_waits_for_it(asking):
    params = {"model": "dcgan", "starts": 64, "iterations": 2000}
    files = {"image": file_of(pixels(16, 16, 3))}
    route = "/v1/images/invert"
    with ThreadPoolExecutor(1) as pool:
        searching = pool.submit(asking.post, route, params=params, files=files, timeout=1.5)
        time.sleep(0.4)
        began = time.perf_counter()
        assert asking.post("/v1/images/sample", params={"model": "dcgan"}).status_code == 200
        assert time.perf_counter() - began < 1
        with pytest.raises(httpx.ReadTimeout):
            searching.result()
    began = time.perf_counter()
    assert asking.post(
        route, params=params | {"starts": 1, "iterations": 1}, files=files
    ).is_success
    assert time.perf_counter() - began < 1


class Cycle:
    """Garbage whose end lets other threads go on."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        for _ in range(30):
            pass


@pytest.fixture
def hurried():
    """Threads take turns, and garbage is collected, as often as can be."""
    before = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(20, 2, 2)
    yield
    sys.setswitchinterval(before[0])
    gc.set_threshold(*before[1])


def test_many_threads_may_read_latents_at_once(hurried):
    out = io.BytesIO()
    np.save(out, np.arange(16.0).reshape(2, 8))

    def read(_: int) -> bool:
        garbage = [Cycle() for _ in range(5)]
        del garbage
        return np.array_equal(latents_in(out.getvalue()), np.arange(16.0).reshape(2, 8))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(read, range(4000)))
