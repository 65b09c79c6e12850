"""The app behind keys: who is let in, to what, how much of it, and what is told of whom."""

import asyncio
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from live_server import file_of, made_key, pixels, running, served, until
from prometheus_client.metrics import MetricWrapperBase
from test_app import Told, form_of

from cluster import keys as stored
from cluster.keys import KeyFile
from genimg.errors import InputError
from genimg.operations.restoring import Denoise
from serving.app import create_app
from serving.errors import ApiError
from serving.host import Host
from serving.keyed import FREE
from serving.keys import Keys, keys_of
from serving.model_settings import ModelSettings
from serving.page import PATHS
from serving.passes import UNFINISHED
from serving.requests import Answer, Caller, Request, Timings
from serving.settings import Settings

SAMPLE = "/v1/images/sample"
DENOISE = "/v1/images/denoise"
ANSWER = Answer((b"x",), "png", "1x1", (1,), "m", 3, Timings(1, 2, 3), "float32")
POLL_S = 0.05


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def alice(file: Path) -> str:
    """A key that may do everything."""
    return made_key(file, "alice")


@pytest.fixture(scope="module")
def locked(trained: Path, file: Path, alice: str) -> Iterator[str]:
    """The URL of a server of two models that asks for keys."""
    models = [{"ref": "figures@production", "max_batch_size": 1}, {"ref": "denoiser"}]
    settings = {"registry": str(trained), "models": models, "keys_file": str(file)}
    settings |= {"jobs": {"storage": str(file.parent / "jobs")}, "poll_s": POLL_S}
    with served(Settings.validated(settings)) as url:
        yield url


@pytest.fixture
def client(locked: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=locked, timeout=60) as client:
        yield client


def accepted(client: httpx.Client, text: str) -> bool:
    answer = client.get("/v1/models", headers=bearer(text))
    assert answer.status_code in (200, 401)
    return answer.status_code == 200


def added(client: httpx.Client, file: Path, name: str, **may: object) -> str:
    """A new key, once the server knows it."""
    text = made_key(file, name, **may)
    until(lambda: accepted(client, text))
    return text


def test_without_a_key_nothing_is_answered_but_what_is_free(client, alice):
    paths = client.get("/openapi.json").json()["paths"]
    routes = {(method.upper(), path) for path, of in paths.items() for method in of}
    routes |= {
        ("GET", path) for path in (*PATHS, "/nowhere", "/metrics/", "/%6Detrics", "/v1/models/x")
    }
    assert {path for _, path in routes} > FREE - {"/docs", "/openapi.json"}
    assert ("GET", "/metrics") in routes
    for method, path in routes:
        answer = client.request(method, path)
        assert (answer.status_code == 401) == (path not in FREE), path
        if answer.status_code == 401:
            assert answer.headers["www-authenticate"] == "Bearer"
            error = form_of(answer)
            assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
            assert "Authorization: Bearer" in error["message"]
        assert client.request(method, path, headers=bearer(alice)).status_code != 401
        wrong = client.request(method, path, headers=bearer(f"{alice}x"))
        assert wrong.status_code == answer.status_code
    shown = client.get("/metrics", headers=bearer(alice)).text
    told = set(re.findall(r'http_requests_total{model="",route="(.*?)",status="401"}', shown))
    mine = {path for path in paths if path not in FREE and path != "/v1/models/{id}"}
    assert told == mine | {"/v1/models/{id:path}", "none"}


def test_a_job_is_that_of_its_key_alone_and_of_models_that_it_may_use(client, file, alice):
    few = added(client, file, "denoises", models=("denoiser",))
    asked = {"model": "figures", "seed": 3, "output_format": "png"}
    refused = client.post(SAMPLE, json=asked | {"async": True}, headers=bearer(few))
    assert refused.status_code == 404
    made = client.post(SAMPLE, json=asked | {"async": True}, headers=bearer(alice))
    assert made.status_code == 202
    place = made.headers["location"]
    until(lambda: client.get(place, headers=bearer(alice)).json()["state"] == "done")
    result = client.get(f"{place}/result", headers=bearer(alice))
    assert result.content == client.post(SAMPLE, json=asked, headers=bearer(alice)).content
    assert client.get("/v1/jobs", headers=bearer(few)).json()["data"] == []
    for method, path in (("GET", place), ("GET", f"{place}/result"), ("DELETE", place)):
        assert client.request(method, path, headers=bearer(few)).status_code == 404
    assert client.delete(place, headers=bearer(alice)).status_code == 204


def test_probes_without_a_key_are_told_no_model(client, alice):
    assert client.get("/health").json() == {"status": "ready", "models": {}}
    told = client.get("/health", headers=bearer(alice)).json()
    assert told["models"] == {"figures@production": 1, "denoiser": 1}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer {}"}, 200),
        ({"authorization": "bearer   {}"}, 200),
        ({"X-API-Key": "{}"}, 200),
        ({"Authorization": "Basic abc", "X-API-Key": "{}"}, 200),
        ({"Authorization": "{}"}, 401),
        ({"Authorization": "Basic {}"}, 401),
        ({"Authorization": "Bearer wrong", "X-API-Key": "{}"}, 401),
        ({"Authorization": "Bearer {}\xff"}, 401),
        ({"Cookie": "key={}"}, 401),
        ({}, 401),
    ],
)
def test_a_key_is_sent_as_openai_does_or_in_a_header_of_its_own(client, alice, headers, status):
    sent = {name: text.format(alice).encode("latin-1") for name, text in headers.items()}
    assert client.get("/v1/models", headers=sent).status_code == status
    assert client.get("/v1/models", params={"key": alice}).status_code == 401


def test_the_official_client_gives_its_key(locked, alice):
    with openai.OpenAI(base_url=f"{locked}/v1", api_key=alice) as client:
        assert len(client.images.generate(prompt="", n=2).data) == 2
    with (
        openai.OpenAI(base_url=f"{locked}/v1", api_key="wrong") as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.images.generate(prompt="")
    assert caught.value.code == "invalid_api_key"


def test_who_has_no_key_is_answered_before_a_body_is_read(locked):
    url = httpx.URL(locked)
    with socket.create_connection((url.host, url.port), timeout=30) as connection:
        head = f"POST {DENOISE} HTTP/1.1\r\nHost: here\r\nContent-Length: 40000000\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_keys_come_and_go_without_a_restart(client, file, alice):
    text = added(client, file, "bob")
    KeyFile(str(file)).revoke("bob")
    until(lambda: not accepted(client, text))
    content = file.read_bytes()
    file.write_bytes(b"{")  # who may ask still may, and the log says why
    time.sleep(4 * POLL_S)
    assert accepted(client, alice)
    assert not accepted(client, text)
    failures = re.compile(r"^genimg_keys_failures_total ([\d.]+)$", re.M)
    told = client.get("/metrics", headers=bearer(alice)).text
    assert float(failures.search(told)[1]) >= 1
    file.unlink()  # nobody may
    until(lambda: not accepted(client, alice))
    file.write_bytes(content)
    until(lambda: accepted(client, alice))


def test_an_expired_key_is_told_so(client, file):
    from datetime import UTC, datetime, timedelta

    soon = datetime.now(UTC) + timedelta(seconds=2)
    text = added(client, file, "brief", expires=soon)
    until(lambda: not accepted(client, text))
    answer = client.get("/v1/models", headers=bearer(text))
    assert "'brief' expired on 20" in form_of(answer)["message"]


def test_for_a_key_of_some_models_there_are_no_others(client, file, alice):
    text = added(client, file, "drawer", models=("figures",))
    client.headers = bearer(text)
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == [
        "figures@production"
    ]
    assert client.get("/v1/models/figures").status_code == 200
    assert client.post(SAMPLE).headers["x-model-id"] == "figures@production"
    image = file_of(pixels(8, 8, 3))
    for path, asked in ((DENOISE, {"model": "denoiser"}), (SAMPLE, {"model": "denoiser"})):
        answer = client.post(path, params=asked, content=image if path == DENOISE else b"")
        assert answer.status_code == 404, answer.text
        error = form_of(answer)
        assert error["code"] == "model_not_found"
        assert "valid: figures@production" in error["message"]
        assert error["message"].endswith("valid: figures@production"), "it names no other"
    assert client.get("/v1/models/denoiser").status_code == 404
    assert client.post(DENOISE, content=image).status_code == 400  # none that it has can
    assert client.get("/health").json()["models"] == {"figures@production": 1}
    assert client.post(DENOISE, content=image, headers=bearer(alice)).status_code == 200


def test_a_key_has_its_requests_of_a_minute(client, file, alice):
    client.headers = bearer(added(client, file, "slow", requests_per_minute=3))
    for left in (2, 1, 0):
        answer = client.post(SAMPLE)
        assert answer.status_code == 200
        assert answer.headers["x-ratelimit-limit-requests"] == "3"
        assert answer.headers["x-ratelimit-remaining-requests"] == str(left)
    refused = client.post(SAMPLE)
    assert refused.status_code == 429
    shown = client.get("/metrics", headers=bearer(alice)).text
    assert re.search(
        rf'http_requests_total{{model="",route="{SAMPLE}",status="429"}} [1-9]', shown
    )  # though it was turned away before its route was looked for
    assert 55 <= int(refused.headers["retry-after"]) <= 61
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    error = form_of(refused)
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert "3 requests a minute" in error["message"]
    assert client.get("/v1/models").status_code == 200  # which costs nothing
    other = client.post(SAMPLE, headers=bearer(alice))
    assert other.status_code == 200
    assert "x-ratelimit-limit-requests" not in other.headers


def test_a_key_has_its_pixels_of_a_minute(client, file):
    client.headers = bearer(added(client, file, "small", megapixels_per_minute=0.02))
    image = file_of(pixels(100, 100, 3))
    broken = {"content": b"\x89PNG\r\n\x1a\n"}
    assert client.post(DENOISE, **broken).status_code == 400  # of no pixels
    statuses = [client.post(DENOISE, content=image).status_code for _ in range(4)]
    assert statuses == [200, 200, 429, 429]
    client.headers = bearer(added(client, file, "drawn", megapixels_per_minute=0.003))
    statuses = [client.post(SAMPLE, json={"n": 6}).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]  # of 6 x 16 x 16 pixels each


def test_metrics_tell_of_keys_by_their_names_and_of_no_secret(client, file, alice):
    text = added(client, file, "counted", requests_per_minute=1)
    for _ in range(3):
        client.post(SAMPLE, headers=bearer(text))
    told = client.get("/metrics", headers=bearer(alice)).text
    lines = told.splitlines()
    assert 'genimg_key_requests_total{key="counted",status="429"} 2.0' in lines
    refused = 'genimg_key_refusals_total{code="rate_limit_exceeded",key="counted"} 2.0'
    assert refused in lines
    assert any(line.startswith('genimg_key_requests_total{key="alice",') for line in lines)
    assert any('{code="invalid_api_key",key=""}' in line for line in lines)
    assert f"genimg_keys {float(len(KeyFile(str(file)).read()))}" in lines
    for each in (text, alice):
        _, id, secret = each.split("_", 2)
        assert secret not in told
        assert id not in told


def test_the_documentation_tells_of_keys_where_they_are_asked_for(client):
    described = client.get("/openapi.json").json()
    assert set(described["components"]["securitySchemes"]) == {"bearer", "header"}
    for path, routes in described["paths"].items():
        for route in routes.values():
            assert ("security" in route) == (path not in FREE)
            assert path in FREE or "401" in route["responses"]
    plain = create_app(Told(ANSWER)).openapi()
    assert "securitySchemes" not in plain["components"]


class Held(Told):
    """A backend that answers once it may."""

    def __init__(self) -> None:
        super().__init__(ANSWER)
        self.asked: Counter[str] = Counter()
        self.may = asyncio.Event()

    async def call(self, model, request, tell=None, show=None):
        self.asked[request.caller.name] += 1
        await self.may.wait()
        return ANSWER


def test_one_key_leaves_places_for_the_others():
    """Of eight places one may have four, and the next then two, whatever it asks for."""

    async def scenario() -> None:
        texts = {}
        known = []
        for name in ("greedy", "second", "third"):
            key, texts[name] = stored.new(name)
            known.append(key)
        backend = Held()
        keys = Keys(lambda: known, places=8)
        app = create_app(backend, keys=keys)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            asked = {}
            for name, count in (("greedy", 20), ("second", 20), ("third", 1)):
                calls = [client.post(SAMPLE, headers=bearer(texts[name])) for _ in range(count)]
                asked[name] = [asyncio.ensure_future(call) for call in calls]
                await asyncio.sleep(0.2)
            assert backend.asked == {"greedy": 4, "second": 2, "third": 1}
            backend.may.set()
            answers = {name: await asyncio.gather(*calls) for name, calls in asked.items()}
        statuses = {n: Counter(each.status_code for each in of) for n, of in answers.items()}
        assert statuses == {
            "greedy": {200: 4, 429: 16}, "second": {200: 2, 429: 18}, "third": {200: 1},
        }  # fmt: skip
        assert {each.headers["retry-after"] for each in answers["greedy"] if each.is_error} == {"1"}
        assert keys.busy.total() == 0
        keys.close()

    asyncio.run(scenario())


def test_two_hundred_requests_of_one_key_do_not_starve_another(trained):
    """It is never refused, and waits for no more than one pass of the other's before each."""
    settings = ModelSettings(ref="denoiser", max_queue=32, max_batch_size=1)
    host = Host(settings, str(trained), poll_s=60)
    image = {"image": file_of(pixels(24, 24, 3))}
    outcomes: Counter[object] = Counter()

    async def ask(name: str) -> None:
        await host.call(Request(Denoise(sigma=25), image, caller=Caller(name)))

    async def flood(enough: asyncio.Event) -> None:
        while not enough.is_set():
            try:
                await ask("greedy")
                outcomes["computed"] += 1
            except ApiError as error:
                outcomes[error.code] += 1
                await asyncio.sleep(0.05)

    async def scenario() -> int:
        enough = asyncio.Event()
        floods = [asyncio.ensure_future(flood(enough)) for _ in range(200)]
        while outcomes["computed"] < 20:
            await asyncio.sleep(0.001)
        before = outcomes["computed"]
        for _ in range(20):
            await ask("other")  # raises where it is refused
        meanwhile = outcomes["computed"] - before
        enough.set()
        await asyncio.gather(*floods)
        return meanwhile

    meanwhile = asyncio.run(scenario())
    host.close()
    assert outcomes.keys() == {"computed", "queue_full"}
    # that which runs, one in turn, those that are being finished; by arrival it were 32 of each
    assert meanwhile <= 20 * (2 + UNFINISHED + 2), meanwhile


def test_limits_are_shared_out_among_replicas():
    """So that all together let through what is the limit, rounded down by replica."""
    key, text = stored.new("a", requests_per_minute=10, megapixels_per_minute=3)
    many = [Keys(lambda: [key], replicas=lambda: 3) for _ in range(3)]
    assert all(keys.holder(text) == key for keys in many)

    def let(keys: Keys) -> bool:
        try:
            keys.take_request(key)
        except Exception:
            return False
        return True

    assert sum(let(many[i % 3]) for i in range(60)) == 9
    assert many[0].told(key)["x-ratelimit-remaining-requests"] == "0"
    one, _ = stored.new("b", requests_per_minute=1)
    many[0].take_request(one)  # at least one of each replica
    for keys in many:
        keys.take_pixels(key, 2_000_000)
        with pytest.raises(Exception, match="3 megapixels a minute"):
            keys.take_pixels(key, 1)
        keys.close()


def test_nothing_stays_of_keys_that_are_gone():
    """They may be changed every hour."""
    known = [stored.new("first", requests_per_minute=9, megapixels_per_minute=9)[0]]
    keys = Keys(lambda: known, poll_s=0.01)
    shown, key = keys.meters.exposition, known[0]
    keys.take_place(key)
    keys.take_request(key)
    keys.take_pixels(key, 1)
    for name in ("first", "third"):
        keys.meters.key_requests.labels(name, 200).inc()
        keys.meters.key_requests.labels(name, 429).inc()
        keys.meters.key_refusals.labels(name, "queue_full").inc()
    keys.give_place(key)
    assert b"first" in shown()
    known[:] = [stored.new("second")[0]]
    until(lambda: b"first" not in shown())
    assert shown().count(b'key="third"') == 6
    assert [*keys.busy, *keys._requests, *keys._pixels] == []
    keys.close()


def test_many_keys_that_go_at_once_are_looked_for_in_one_go(monkeypatch):
    known = [stored.new(f"key-{i}")[0] for i in range(100)]
    keys = Keys(lambda: known)
    for key in known:
        keys.meters.key_requests.labels(key.name, 200).inc()
    looks: list[str] = []

    def counting(name: str):
        how = getattr(MetricWrapperBase, name)
        return lambda *of: (looks.append(name), how(*of))[1]

    for name in ("collect", "remove_by_labels"):
        monkeypatch.setattr(MetricWrapperBase, name, counting(name))
    known.clear()
    keys._look()
    assert len(looks) < 10
    assert b"key-" not in keys.meters.exposition()
    keys.close()


def test_the_number_of_replicas_is_looked_at_again():
    now = [1]
    keys = Keys(list, poll_s=0.01, replicas=lambda: now[0])
    now[0] = 4
    until(lambda: keys.replicas == 4)
    keys.close()


def test_a_server_does_not_start_with_keys_that_it_cannot_read(tmp_path, monkeypatch):
    def settings(**more: object) -> Settings:
        return Settings.validated({"models": [{"ref": "a"}]} | more)

    assert keys_of(settings()) is None
    assert keys_of(settings(open=True)) is None
    with pytest.raises(InputError, match=r"there is no keys\.json.*`genimg keys add NAME`"):
        keys_of(settings(keys_file=str(tmp_path / "keys.json")))
    with pytest.raises(InputError, match="both given"):
        keys_of(settings(keys_file=str(tmp_path / "keys.json"), open=True))
    text = made_key(tmp_path / "keys.json", "alice")
    monkeypatch.setenv("GENIMG_KEYS", (tmp_path / "keys.json").read_text())
    keys = keys_of(settings())
    assert keys.holder(text).name == "alice"
    keys.close()
    with pytest.raises(InputError, match="GENIMG_KEYS are both given"):
        keys_of(settings(open=True))


def test_browsers_of_named_sites_may_ask_first_whether_they_may():
    key, text = stored.new("a")
    keys = Keys(lambda: [key])
    site = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    with running(create_app(Told(ANSWER), origins=[site["Origin"]], keys=keys)) as url:
        asked = site | {"Access-Control-Request-Headers": "authorization"}
        allowed = httpx.options(f"{url}{SAMPLE}", headers=asked)
        assert allowed.status_code == 200
        assert "authorization" in allowed.headers["access-control-allow-headers"].lower()
        refused = httpx.post(f"{url}{SAMPLE}", headers=site)
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == site["Origin"]
        assert httpx.post(f"{url}{SAMPLE}", headers=site | bearer(text)).status_code == 200
    keys.close()
