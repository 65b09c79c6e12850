"""The short way to the POST routes answers as FastAPI's own way does, and counts alike."""

import re
from collections.abc import Iterator

import httpx
import pytest
from live_server import running
from test_app import Told

from serving.app import create_app
from serving.direct import Direct
from serving.errors import ApiError
from serving.requests import Answer, Timings

ANSWER = Answer((b"x",), "png", "1x1", (1,), "m", 3, Timings(1, 2, 3), "float32")
CUT = b'--x\r\nContent-Disposition: form-data; name="seed"\r\n\r\n5'  # a form that does not end
REQUESTS = {
    "an image": ("/v1/images/sample", {"json": {"seed": 5}}),
    "the query": ("/v1/images/sample?seed=5", {}),
    "json": ("/v1/images/generations", {"json": {"seed": 5}}),
    "a wrong value": ("/v1/images/sample", {"json": {"n": "many"}}),
    "no image": ("/v1/images/denoise", {"json": {"sigma": 5}}),
    "no json": ("/v1/images/sample", {"content": "{"}),
    "a cut form": (
        "/v1/images/sample",
        {"content": CUT, "headers": {"content-type": "multipart/form-data; boundary=x"}},
    ),
    "a form without a boundary": (
        "/v1/images/sample",
        {"content": CUT, "headers": {"content-type": "multipart/form-data"}},
    ),
    "another method": ("/v1/images/sample", {"method": "GET"}),
    "another path": ("/v1/images/samples", {}),
    "a path with a slash": ("/v1/images/sample/", {}),
}


@pytest.fixture(
    scope="module", params=[ANSWER, ApiError(429, "queue_full", "full"), ValueError("x")]
)
def ways(request) -> Iterator[list[httpx.Client]]:
    """Of a server with the short way and one without, of which all that is computed ends alike."""
    short, long = create_app(Told(request.param)), create_app(Told(request.param))
    long.user_middleware = [each for each in long.user_middleware if each.cls is not Direct]
    assert len(long.user_middleware) == len(short.user_middleware) - 1
    once = httpx.Limits(max_keepalive_connections=0)  # what raises closes its connection
    with (
        running(short) as one, running(long) as other,
        httpx.Client(base_url=one, limits=once) as mine,
        httpx.Client(base_url=other, limits=once) as its,
    ):  # fmt: skip
        yield [mine, its]


def counts(client: httpx.Client) -> dict[str, float]:
    told = re.findall(r"^(genimg_http_requests_total\S*) (.*)$", client.get("/metrics").text, re.M)
    return {series: float(value) for series, value in told}


def asked(client: httpx.Client, path: str, method: str = "POST", **body) -> tuple:
    """Status, headers, body, and what was counted."""
    before = counts(client)
    answer = client.request(method, path, **body)
    counted = {
        series: value - before.get(series, 0)
        for series, value in counts(client).items()
        if value != before.get(series)
    }
    headers = sorted(item for item in answer.headers.multi_items() if item[0] != "date")
    return answer.status_code, headers, answer.content, counted


@pytest.mark.parametrize("name", REQUESTS)
def test_the_short_way_answers_as_the_long_one(ways, name):
    path, body = REQUESTS[name]
    mine, its = (asked(client, path, **body) for client in ways)
    # what the clock says differs
    created = re.compile(rb'"created":\d+')
    assert (*mine[:2], created.sub(b"", mine[2]), mine[3]) == (
        *its[:2], created.sub(b"", its[2]), its[3],
    )  # fmt: skip
