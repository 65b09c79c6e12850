"""The app around its routes: readiness, errors, timeouts, metrics, documentation, imports."""

import asyncio
import pickle
import socket
import subprocess
import sys
import threading

import httpx
import openai
import pytest
from live_server import file_of, pixels, running, until
from test_passes import Gate, Queue, Rows

from genimg.operations.drawing import Sample
from genimg.operations.restoring import Denoise
from serving.answers import EXPOSED
from serving.app import create_app
from serving.backend import LocalBackend
from serving.errors import ApiError
from serving.requests import Answer, ModelInfo, Output, Request, Timings
from serving.settings import Limits, Settings


def settings_of(registry, *refs: str, **more) -> Settings:
    return Settings.validated(
        {"registry": str(registry), "models": [{"ref": ref} for ref in refs]} | more
    )


@pytest.fixture
def loaded(trained):
    """Make loaded backends, which are closed afterwards."""
    backends = []

    def one(*refs: str, **more) -> LocalBackend:
        backends.append(LocalBackend(settings_of(trained, *refs, **more)))
        backends[-1].load()
        return backends[-1]

    yield one
    for backend in backends:
        backend.close()


def form_of(answer: httpx.Response) -> dict[str, object]:
    body = answer.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    return body["error"]


def test_until_the_models_are_loaded_all_is_told_to_wait(trained):
    settings = settings_of(trained, "figures", "denoiser")
    backend = LocalBackend(settings)
    with running(create_app(backend, settings.limits)) as url, httpx.Client(base_url=url) as client:
        for path in ("/health", "/readyz"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
            assert form_of(answer)["code"] == "model_loading"
        assert client.get("/livez").status_code == 200
        for body in ({}, {"model": "figures"}):
            answer = client.post("/v1/images/sample", json=body)
            assert (answer.status_code, form_of(answer)["code"]) == (503, "model_loading")
            assert answer.headers["retry-after"] == "1"
        assert client.post("/v1/images/sample", json={"model": "nil"}).status_code == 404
        states = [model["state"] for model in client.get("/v1/models").json()["data"]]
        assert states == ["loading", "loading"]
        thread = threading.Thread(target=backend.load)
        thread.start()
        until(lambda: client.get("/health").status_code == 200)
        assert client.get("/readyz").json()["models"] == {"figures": 2, "denoiser": 1}
        assert client.post("/v1/images/sample", json={}).status_code == 200
        thread.join()
    backend.close()


def test_a_model_is_found_by_its_id_by_an_unambiguous_name_or_by_what_it_can(loaded):
    backend = loaded("denoiser", "figures@1", "figures@production")
    with running(create_app(backend)) as url, httpx.Client(base_url=url) as client:
        for asked, answers in (
            ({}, "figures@1"),
            ({"model": "figures@1"}, "figures@1"),
            ({"model": "figures@production"}, "figures@production"),
        ):
            answer = client.post("/v1/images/sample", json=asked)
            assert answer.headers["x-model-id"] == answers
        answer = client.post("/v1/images/sample", json={"model": "figures"})
        assert answer.status_code == 404
        assert form_of(answer)["message"] == (
            "model='figures': several are served; valid: denoiser, figures@1, figures@production"
        )
        answer = client.post("/v1/images/sample", json={"model": "deniosr"})
        assert "served; did you mean 'denoiser'? valid: den" in form_of(answer)["message"]


def test_what_no_served_model_can_do_is_refused(loaded):
    with running(create_app(loaded("figures"))) as url:
        answer = httpx.post(f"{url}/v1/images/denoise", content=file_of(pixels(8, 8)))
        assert answer.status_code == 400
        assert form_of(answer)["message"] == "none of the served models can denoise: figures"


def test_an_answer_that_takes_too_long_is_given_up_and_not_asked_for_again(loaded):
    limits = Limits(timeout_s=1e-6)
    with running(create_app(loaded("figures"), limits)) as url:
        answer = httpx.post(f"{url}/v1/images/sample")
        assert (answer.status_code, form_of(answer)["code"]) == (504, "timeout")
        assert answer.headers["x-should-retry"] == "false"
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=2)
        with pytest.raises(openai.APIStatusError) as caught:
            client.images.generate(prompt="")
        assert caught.value.status_code == 504
        text = httpx.get(f"{url}/metrics").text
        asked = 'model="",route="/v1/images/generations",status="504"'
        assert f"genimg_http_requests_total{{{asked}}} 1.0" in text


def test_the_time_limit_also_ends_what_has_left_the_queue():
    """It is answered while its pass runs, and has no other one."""
    gate = Gate()
    queue = Queue(gate)

    class Computing(Told):
        async def call(self, model, request, tell=None, show=None):
            work = Rows(0, 100)
            return await queue.submit(lambda: work, work.count)

    with running(create_app(Computing(ValueError()), Limits(timeout_s=0.3))) as url:
        answer = httpx.post(f"{url}/v1/images/sample")
        assert gate.passes == [[(0, 0, 4)]]
        assert queue.waiting == 0
    assert (answer.status_code, form_of(answer)["code"]) == (504, "timeout")
    assert answer.headers["x-should-retry"] == "false"
    gate.open.set()
    queue.close()
    assert gate.passes == [[(0, 0, 4)]]


def test_pixels_of_images_that_are_drawn_are_limited_too(loaded):
    with running(create_app(loaded("figures", limits={"max_pixels": 1000}))) as url:
        assert httpx.post(f"{url}/v1/images/sample", json={"n": 3}).status_code == 200
        for path, key in (("sample", "n"), ("interpolate", "frames")):
            answer = httpx.post(f"{url}/v1/images/{path}", json={key: 4})
            error = form_of(answer)
            assert (error["code"], error["param"]) == ("image_too_large", key)
            assert "4 images of 16x16 would come of it, and 1,000 pixels are" in error["message"]


def test_a_body_that_does_not_come_is_not_waited_for(loaded):
    with running(create_app(loaded("figures"), Limits(upload_s=0.2))) as address:
        url = httpx.URL(address)
        with socket.create_connection((url.host, url.port), timeout=60) as connection:
            connection.sendall(
                b"POST /v1/images/sample HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\n{"
            )
            answer = b""
            while piece := connection.recv(4096):  # until the server closes the connection
                answer += piece
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"request_timeout" in answer


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health"])
def test_probes_may_ask_for_heads(loaded, path):
    with running(create_app(loaded("figures"))) as url:
        answer = httpx.head(f"{url}{path}")
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_full_queue_turns_away_at_once_and_says_when_to_come_again(trained):
    own = {"models": [{"ref": "denoiser", "max_queue": 1}]}
    backend = LocalBackend(settings_of(trained, "denoiser", **own))
    backend.load()
    large = file_of(pixels(1000, 1500, 3))

    async def all_at_once(url: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            calls = [
                client.post("/v1/images/denoise", content=large, params={"sigma": 25})
                for _ in range(8)
            ]
            return await asyncio.gather(*calls)

    with running(create_app(backend)) as url:
        answers = asyncio.run(all_at_once(url))
    backend.close()
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 1 <= len(refused) < 8
    for answer in refused:
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert (form_of(answer)["code"], form_of(answer)["type"]) == (
            "queue_full",
            "rate_limit_error",
        )


class Told:
    """A backend that does as it is told, without an engine."""

    def __init__(self, answer: Answer | Exception) -> None:
        self.answer = answer
        self.cancelled = asyncio.Event()

    async def call(self, model, request, tell=None, show=None):
        if isinstance(self.answer, asyncio.CancelledError):
            try:
                await asyncio.sleep(60)
            finally:
                self.cancelled.set()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo("m", "m")]

    def ready(self) -> bool:
        return True


def test_a_fault_of_ours_is_a_500_that_shows_nothing_of_the_inside():
    with running(create_app(Told(ZeroDivisionError("secret path /etc")))) as url:
        answer = httpx.post(f"{url}/v1/images/sample")
    assert answer.status_code == 500
    assert form_of(answer)["type"] == "server_error"
    assert "secret" not in answer.text
    assert "Error" not in answer.text


def test_what_nobody_waits_for_any_more_is_cancelled():
    backend = Told(asyncio.CancelledError())  # never answers
    with running(create_app(backend)) as url:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/images/sample", timeout=0.3)
        until(backend.cancelled.is_set)
        gone = 'route="/v1/images/sample",status="499"'
        until(lambda: gone in httpx.get(f"{url}/metrics").text)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/", 405, "method_not_allowed"),
        ("POST", "/v1/images/uploads", 404, "not_found"),
        ("GET", "/v1/images/sample", 405, "method_not_allowed"),
        ("PUT", "/v1/images/denoise", 405, "method_not_allowed"),
        ("DELETE", "/v1/images/generations", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("GET", "/v1/models/nil", 404, "model_not_found"),
        ("GET", "/v1/models/", 404, "model_not_found"),
    ],
)
def test_wrong_paths_and_methods_are_refused_in_the_one_form(client, method, path, status, code):
    answer = client.request(method, path)
    assert (answer.status_code, form_of(answer)["code"]) == (status, code)
    if status == 405:
        assert answer.headers["allow"]
        assert answer.headers["allow"] in form_of(answer)["message"]


def test_a_path_that_was_mistyped_is_answered_with_the_nearest(client):
    near = form_of(client.post("/v1/images/denoize"))["message"]
    assert "did you mean '/v1/images/denoise'?" in near
    assert "see /docs" in form_of(client.post("/v1/chat/completions"))["message"]


def test_what_the_framework_finds_wrong_is_a_400_with_the_parameter():
    app = create_app(Told(ZeroDivisionError()))

    @app.get("/later")
    async def later(n: int) -> int:
        return n

    with running(app) as url:
        answer = httpx.get(f"{url}/later", params={"n": "two"})
    assert answer.status_code == 400
    assert form_of(answer)["param"] == "n"


def test_metrics_count_what_was_done_and_keep_their_labels_few(loaded):
    backend = loaded("figures")
    app = create_app(backend, meters=backend.meters)
    with running(app) as url, httpx.Client(base_url=url) as client:
        client.post("/v1/images/sample", json={"n": 3})
        client.post("/v1/images/sample", json={"model": "invented"})
        for i in range(5):
            client.get(f"/scan/{i}")
            client.get(f"/v1/models/{i}")
        text = client.get("/metrics").text
    for line in (
        'genimg_http_requests_total{model="figures",route="/v1/images/sample",status="200"} 1.0',
        'genimg_http_requests_total{model="",route="/v1/images/sample",status="404"} 1.0',
        'genimg_http_requests_total{model="",route="none",status="404"} 5.0',
        'genimg_http_requests_total{model="",route="/v1/models/{id:path}",status="404"} 5.0',
        'genimg_http_request_seconds_count{route="/v1/images/sample"} 2.0',
        'genimg_batch_images_sum{model="figures"} 3.0',
        'genimg_queue_images{model="figures"} 0.0',
        'genimg_served_version{model="figures"} 2.0',
        'genimg_swaps_total{model="figures"} 0.0',
        'genimg_swaps_refused_total{model="figures"} 0.0',
    ):
        assert line in text.splitlines()
    assert "invented" not in text
    assert "scan" not in text


def test_the_documentation_tells_of_bodies_and_errors(client):
    assert client.get("/docs").status_code == 200
    described = client.get("/openapi.json").json()
    denoise = described["paths"]["/v1/images/denoise"]["post"]
    form = denoise["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert [each["required"] for each in form["oneOf"]] == [["image"], ["file"]]
    assert "0 to 255" in form["oneOf"][0]["properties"]["sigma"]["description"]
    assert list(described["paths"]["/metrics"]["get"]["responses"]["200"]["content"]) == [
        "text/plain"
    ]
    assert "image/png" in denoise["requestBody"]["content"]
    assert {"400", "404", "413", "415", "429", "503", "504"} <= denoise["responses"].keys()
    generations = described["paths"]["/v1/images/generations"]["post"]
    assert list(generations["requestBody"]["content"]) == ["application/json"]
    documented = [route["responses"]["200"]["headers"] for route in (denoise, generations)]
    assert all(set(EXPOSED) == headers.keys() for headers in documented)
    for routes in described["paths"].values():
        for route in routes.values():
            assert "422" not in route["responses"]


def test_scripts_of_other_sites_may_call_only_where_their_origin_is_named():
    site = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    answer = Answer((b"x",), "png", "1x1", (1,), "m", 3, Timings(1, 2, 3), "float32")
    for origins in ((), ("https://example.org",)):
        with running(create_app(Told(answer), origins=origins)) as url:
            path = f"{url}/v1/images/sample"
            drawn = httpx.post(path, headers=site)
            named = drawn.headers.get("access-control-allow-origin") == "https://example.org"
            assert named == bool(origins)
            assert "X-Seed" in drawn.headers["access-control-expose-headers"]
            assert httpx.options(path, headers=site).is_success == bool(origins)


@pytest.mark.parametrize(
    "value",
    [
        ApiError(429, "queue_full", "full", "n", {"Retry-After": "1"}),
        Request(Sample(n=2, seed=1, truncation=0.5), output=Output("webp", 80)),
        Request(Denoise(sigma=5.0, tile=0), {"image": b"image"}),
        Answer((b"x",), "png", "1x1", (1,), "m", 3, Timings(1, 2, 3), "float32"),
        ModelInfo("m", "m"),
    ],
)
def test_what_crosses_between_processes_can_be_pickled(value):
    copy = pickle.loads(pickle.dumps(value))
    if isinstance(value, ApiError):
        assert vars(copy) == vars(value)
        assert copy.body() == value.body()
    else:
        assert copy == value


def test_the_app_brings_neither_torch_nor_ray_with_it():
    code = "import sys, serving.app; print(*{'torch', 'ray', 'numpy', 'PIL'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
