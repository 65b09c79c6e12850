"""Jobs as clients meet them: asked for, looked at, fetched, cancelled, deleted."""

import asyncio
import base64
import http.server
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from job_runners import Computing
from live_server import file_of, pixels, served, until

from serving.app import create_app
from serving.jobs.desk import Jobs
from serving.jobs.job import new_id
from serving.jobs.webhooks import SECRET
from serving.settings import Settings

SAMPLE = "/v1/images/sample"
DENOISE = "/v1/images/denoise"
PNG = file_of(pixels(21, 34, 3))
KEY = "whsec_" + base64.b64encode(b"a secret of the receiver").decode()


class Receiver:
    """Another server, which notes what it is told; the first time it fails."""

    def __init__(self) -> None:
        self.came: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.came.append((dict(self.headers), body))
                self.send_response(500 if len(receiver.came) == 1 else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"

    @contextmanager
    def listening(self) -> Iterator[None]:
        thread = threading.Thread(target=self.server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    with receiver.listening():
        yield receiver


@pytest.fixture(scope="module")
def client(
    trained: Path, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    settings = Settings.validated(
        {
            "registry": str(trained),
            "models": [{"ref": "figures@production"}, {"ref": "denoiser"}],
            "limits": {"max_images": 4096},
            "jobs": {
                "storage": str(tmp_path_factory.mktemp("jobs")),
                "max_queued": 3,
                "lease_s": 2,
                "webhook_hosts": [receiver.host],
            },
            "poll_s": 0.2,
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SECRET, KEY)
        with served(settings) as url, httpx.Client(base_url=url, timeout=60) as client:
            yield client


def asked(client: httpx.Client, path: str = SAMPLE, **content) -> dict:
    answer = client.post(path, params={"async": "true"}, **content)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    return job


def job_of(client: httpx.Client, job: dict) -> dict:
    return client.get(f"/v1/jobs/{job['id']}").json()


def ended(client: httpx.Client, job: dict, state: str = "done") -> dict:
    until(lambda: job_of(client, job)["ended"])
    job = job_of(client, job)
    assert job["state"] == state, job
    return job


@contextmanager
def busy(client: httpx.Client) -> Iterator[dict]:
    """While a job runs that takes long; it is cancelled in the end."""
    job = asked(client, DENOISE, content=file_of(pixels(2000, 4000, 3), "BMP"))
    until(lambda: job_of(client, job)["state"] == "running")
    yield job
    client.post(f"/v1/jobs/{job['id']}/cancel")


WAYS = {
    "a grid": (SAMPLE, {"json": {"n": 5, "seed": 7}}),
    "base64": (SAMPLE, {"json": {"n": 2, "seed": 7, "response_format": "b64_json"}}),
    "a photo": (DENOISE, {"content": PNG}),
    "a form": (
        DENOISE,
        {"files": {"image": PNG}, "data": {"sigma": "30", "output_format": "jpeg"}},
    ),
    "latents": ("/v1/images/decode", {"json": {"latents": np.eye(3, 8).tolist()}}),
    "a film": ("/v1/images/interpolate", {"json": {"seed": 3, "frames": 4}}),
    "OpenAI's": ("/v1/images/edits", {"files": {"image": PNG}, "data": {"model": "denoiser"}}),
    "values": ("/v1/images/invert", {"content": PNG, "headers": {"content-type": "image/png"}}),
}


@pytest.mark.parametrize("way", WAYS)
def test_its_result_is_what_would_have_been_answered(client, way):
    path, content = WAYS[way]
    at_once = client.post(path, **content)
    assert at_once.status_code == 200, at_once.text
    job = ended(client, asked(client, path, **content))
    assert job["progress"] == 1
    assert (job["model"], str(job["version"])) == (
        at_once.headers["x-model-id"],
        at_once.headers["x-model-version"],
    )
    later = client.get(f"/v1/jobs/{job['id']}/result")
    assert later.status_code == 200
    times = ("date", "server-timing")
    assert {k: v for k, v in later.headers.items() if k not in times} == {
        k: v for k, v in at_once.headers.items() if k not in times
    }
    if path == "/v1/images/edits":
        assert later.json() | {"created": 0} == at_once.json() | {"created": 0}
    elif "json" in at_once.headers["content-type"]:
        assert later.json().keys() == at_once.json().keys()
        assert later.json()["data"] == at_once.json()["data"]
    else:
        assert later.content == at_once.content


def test_a_random_seed_is_drawn_when_the_job_is_accepted(client):
    job = asked(client, json={"n": 3})
    seed = job["parameters"]["seed"]
    assert seed >= 0
    ended(client, job)
    result = client.get(f"/v1/jobs/{job['id']}/result")
    assert result.headers["x-seed"] == str(seed)
    assert result.content == client.post(SAMPLE, json={"n": 3, "seed": seed}).content


def test_what_is_wrong_is_refused_before_it_is_a_job(client):
    before = client.get("/v1/jobs").json()["first_id"]
    for content, status, param in (
        ({"json": {"n": 0}}, 400, "n"),
        ({"json": {"model": "nil"}}, 404, "model"),
        ({"json": {"model": "denoiser"}}, 400, "model"),
        ({"json": {"async": "yes"}}, 400, "async"),
        ({"json": {"later": True}}, 400, "later"),
        ({"json": {"webhook": "https://example.org/"}}, 400, "webhook"),
    ):
        answer = client.post(SAMPLE, params={"async": "true"}, **content)
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]["param"] == param
    answer = client.post(SAMPLE, params={"webhook": "http://127.0.0.1/"})
    assert "only with async=true" in answer.json()["error"]["message"]
    assert client.get("/v1/jobs").json()["first_id"] == before


def test_what_is_found_wrong_later_is_told_as_the_route_would_have(client):
    broken = PNG[:100]
    job = ended(client, asked(client, DENOISE, content=broken), "failed")
    at_once = client.post(DENOISE, content=broken)
    later = client.get(f"/v1/jobs/{job['id']}/result")
    assert later.status_code == at_once.status_code == 400
    assert later.json() == at_once.json() == {"error": job["error"]}
    assert job["result"] is None


def test_it_tells_its_place_and_its_progress_and_ends_when_it_is_cancelled(client):
    with busy(client) as running:
        waiting = [asked(client, json={"seed": i}) for i in range(3)]
        assert [job["position"] for job in waiting] == [1, 2, 3]
        full = client.post(SAMPLE, params={"async": "true"})
        assert (full.status_code, full.headers["retry-after"]) == (429, "10")
        assert full.json()["error"]["code"] == "queue_full"
        assert client.post(SAMPLE, json={"seed": 1}).status_code == 200  # the others do not wait
        early = client.get(f"/v1/jobs/{waiting[0]['id']}/result")
        assert (early.status_code, early.json()["error"]["code"]) == (409, "job_not_done")
        cancelled = client.post(f"/v1/jobs/{waiting[1]['id']}/cancel").json()
        assert (cancelled["state"], cancelled["started"]) == ("cancelled", None)
        assert job_of(client, waiting[2])["position"] == 2
        until(lambda: 0 < job_of(client, running)["progress"] < 1)
        stopped = client.post(f"/v1/jobs/{running['id']}/cancel").json()
        assert stopped["state"] == "cancelled"
    ended(client, waiting[0])
    ended(client, waiting[2])
    assert job_of(client, running)["state"] == "cancelled"
    gone = client.get(f"/v1/jobs/{running['id']}/result")
    assert (gone.status_code, gone.json()["error"]["code"]) == (409, "job_cancelled")
    text = client.get("/metrics").text
    assert 'genimg_queue_images{model="denoiser"} 0.0' in text


def test_they_are_listed_newest_first_a_page_at_a_time(client):
    jobs = [ended(client, asked(client, json={"seed": i})) for i in range(3)]
    first = client.get("/v1/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in first["data"]] == [jobs[2]["id"], jobs[1]["id"]]
    assert first["has_more"]
    rest = client.get("/v1/jobs", params={"after": first["last_id"], "limit": 100}).json()
    assert rest["data"][0]["id"] == jobs[0]["id"]
    assert not rest["has_more"]
    ids = [job["id"] for job in rest["data"]]
    assert ids == sorted(ids, reverse=True)
    assert client.get("/v1/jobs", params={"limit": 101}).json()["error"]["param"] == "limit"


def test_a_key_that_comes_again_gives_the_job_that_it_gave_before(client):
    def posted(key: str, n: int) -> httpx.Response:
        query = {"async": "true", "n": n}
        return client.post(SAMPLE, params=query, headers={"Idempotency-Key": key})

    with busy(client), ThreadPoolExecutor(6) as threads:  # with place for two that wait
        answers = list(threads.map(lambda _: posted("one", 2), range(6)))
        coming = {each.json()["error"]["code"] for each in answers if each.status_code == 409}
        assert coming <= {"job_coming"}
        answers = [posted("one", 2) if each.status_code == 409 else each for each in answers]
        assert {each.status_code for each in answers} == {202}
        assert len({each.json()["id"] for each in answers}) == 1
        assert len({each.headers["location"] for each in answers}) == 1
        assert posted("other", 2).json()["id"] != answers[0].json()["id"]
    job = ended(client, answers[0].json())
    assert posted("one", 2).json() == job
    other = posted("one", 3)
    assert (other.status_code, other.json()["error"]["code"]) == (400, "idempotency_key_reused")
    assert posted("x" * 256, 2).json()["error"]["param"] == "Idempotency-Key"
    at_once = client.post(SAMPLE, headers={"Idempotency-Key": "one"})
    assert at_once.status_code == 200  # of no effect


def test_a_storage_that_hangs_holds_up_nothing_else(tmp_path, monkeypatch):
    backend = Computing()
    settings = Settings.validated(
        {"models": [{"ref": "m@1"}], "jobs": {"storage": str(tmp_path)}, "limits": {"timeout_s": 1}}
    )
    jobs, goes_on = Jobs(settings, backend), threading.Event()
    monkeypatch.setattr(jobs.store, "load", lambda id: goes_on.wait(60))
    job = f"/v1/jobs/{new_id('')}"

    async def scenario() -> None:
        transport = httpx.ASGITransport(app=create_app(backend, settings.limits, jobs=jobs))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            asking = [asyncio.create_task(client.get(job)) for _ in range(100)]
            await asyncio.sleep(0.1)
            async with asyncio.timeout(20):
                await asyncio.to_thread(int)
                answers = await asyncio.gather(*asking)
        assert {each.status_code for each in answers} == {503}
        assert answers[0].json()["error"]["code"] == "jobs_unavailable"

    try:
        asyncio.run(scenario())
    finally:
        goes_on.set()


def test_what_is_deleted_or_unknown_is_404(client):
    job = ended(client, asked(client))
    path = f"/v1/jobs/{job['id']}"
    assert client.put(path).headers["allow"] == "DELETE, GET"
    assert client.delete(path).status_code == 204
    guess = f"/v1/jobs/{job['id'][:-1]}{'0' if job['id'][-1] != '0' else '1'}"
    for each in (path, guess, "/v1/jobs/..%2F..", "/v1/jobs/queue"):
        for answer in (client.get(each), client.delete(each), client.post(f"{each}/cancel")):
            assert answer.status_code == 404, (each, answer.text)
        assert client.get(f"{each}/result").status_code == 404


def test_a_webhook_is_told_until_it_takes_it_and_can_see_who_sent_it(client, receiver):
    url = f"http://{receiver.host}/ended"
    job = asked(client, json={"seed": 4, "webhook": url})
    assert job["webhook"] == {"url": url, "state": "none"}
    ended(client, job)
    until(lambda: job_of(client, job)["webhook"]["state"] == "told")
    assert len(receiver.came) == 2
    for headers, body in receiver.came:
        told = json.loads(body)
        assert (told["type"], told["data"]["id"]) == ("job.done", job["id"])
        assert told["data"]["result"] == f"/v1/jobs/{job['id']}/result"
        with openai.OpenAI(api_key="any", webhook_secret=KEY) as official:
            official.webhooks.verify_signature(body, headers)
            with pytest.raises(openai.InvalidWebhookSignatureError):
                official.webhooks.verify_signature(body + b" ", headers)


@pytest.mark.parametrize(
    "url", ["http://example.org/", "ftp://{}/", "http://me@{}/", "http://{}:1/", "http://[/", "x"]
)
def test_no_other_host_is_told(client, receiver, url):
    body = {"webhook": url.format(receiver.host)}
    answer = client.post(SAMPLE, params={"async": "true"}, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "webhook"
