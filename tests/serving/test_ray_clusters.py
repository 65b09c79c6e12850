"""`genimg serve` starts, stops and grows: alone, beside another one, on a cluster that is up."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from live_server import file_of, pixels, until
from local_s3 import free_port
from ray_server import PATIENCE, ended, living, ray_server
from test_host import again, spoil

from cluster.places import open_storage
from cluster.registry import Registry

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

SAMPLE = "/v1/images/sample"
DENOISE = "/v1/images/denoise"
RAY = str(Path(sys.executable).with_name("ray"))


def of(trained: Path, *models: str) -> list[str]:
    return ["--registry", str(trained), *(f"--model={model}" for model in models)]


@pytest.mark.parametrize("seconds", [1, 3, 5, 7, 9])
def test_ctrl_c_while_it_starts_leaves_nothing(trained, tmp_path, seconds):
    with ray_server(tmp_path, of(trained, "figures"), wait=False) as server:
        time.sleep(seconds)
        os.killpg(server.process.pid, signal.SIGINT)  # as a terminal does
        with suppress(subprocess.TimeoutExpired):
            server.process.wait(60)
        # Python forgets one that comes in a callback of its imports; a person would press again
        if server.process.poll() is None and "Exception ignored" in server.log.read_text():
            os.killpg(server.process.pid, signal.SIGINT)
        server.process.wait(PATIENCE)
        assert ended(server) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_lets_requests_end_and_leaves_nothing(trained, tmp_path, number):
    large = file_of(pixels(2400, 2500, 3), "BMP")  # takes seconds

    def denoised(_: int) -> int:
        return server.client().post(f"{DENOISE}?sigma=25", content=large).status_code

    with ray_server(tmp_path, of(trained, "denoiser")) as server, ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(denoised, i) for i in range(3)]
        time.sleep(1)
        assert not any(each.done() for each in asked)
        os.killpg(server.process.pid, number)  # as a terminal does, or `timeout`
        assert server.process.wait(PATIENCE) == 0
        assert [each.result() for each in asked] == [200, 200, 200]
        assert ended(server) == []
        assert server.log.read_text().splitlines()[-1] == "stopping"


def test_what_is_killed_outright_takes_its_haproxy_along(trained, tmp_path):
    with ray_server(tmp_path, of(trained, "figures")) as server:
        until(lambda: len(server.processes("haproxy -db")) == 1)  # one from before may be ending
        server.stop(signal.SIGKILL)
        until(lambda: not server.processes("haproxy -db"))
        until(lambda: not server.replicas(""))


def test_jobs_go_on_where_the_whole_server_was_killed(trained, tmp_path):
    large = file_of(pixels(2000, 2000, 3), "BMP")
    options = [*of(shutil.copytree(trained, tmp_path / "registry"), "denoiser", "figures")]
    with ray_server(tmp_path, options) as server, server.client() as client:
        params = {"async": "true", "ensemble": "true"}
        jobs = [client.post(DENOISE, params=params, content=large).json()]
        jobs += [client.post(SAMPLE, params={"async": "true", "n": 4}).json() for _ in range(2)]
        until(lambda: client.get(f"/v1/jobs/{jobs[0]['id']}").json()["progress"] > 0)
    # all of its processes have been killed
    with ray_server(tmp_path, options) as server, server.client() as client:
        until(lambda: all(each["ended"] for each in client.get("/v1/jobs").json()["data"]), 120)
        listed = client.get("/v1/jobs").json()["data"]
        assert [each["id"] for each in listed] == [each["id"] for each in reversed(jobs)]
        assert [(each["state"], each["attempts"]) for each in listed] == [
            ("done", 1),
            ("done", 1),
            ("done", 2),
        ]
        for each in listed[:2]:
            seed = each["parameters"]["seed"]
            drawn = client.post(SAMPLE, params={"n": 4, "seed": seed}).content
            assert client.get(each["result"]).content == drawn


def test_two_servers_on_one_machine_do_not_meet(trained, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with (
        ray_server(tmp_path / "one", of(trained, "figures@1")) as one,
        ray_server(tmp_path / "two", of(trained, "figures@2")) as two,
    ):
        for server, version in ((one, "1"), (two, "2")):
            with server.client() as client:
                for _ in range(20):
                    answer = client.post(SAMPLE)
                    assert answer.headers["x-model-version"] == version
        assert one.stop() == 0
        assert ended(one) == []
        with two.client() as client:
            assert {client.post(SAMPLE).status_code for _ in range(20)} == {200}


def test_a_damaged_model_ends_the_command_with_the_reason(trained, tmp_path):
    registry = shutil.copytree(trained, tmp_path / "registry")
    weights = registry / "models/figures/versions/00002/weights.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with ray_server(tmp_path, of(registry, "figures"), wait=False) as server:
        assert server.process.wait(PATIENCE) == 1
        assert "weights.safetensors is altered" in server.log.read_text().splitlines()[-1]
        assert ended(server) == []


def refusal(client: httpx.Client) -> dict | None:
    return client.get("/v1/models/denoiser").json()["rejected"]


def test_replicas_follow_the_load_from_none_and_up(registry, tmp_path):
    args = {
        "registry": str(registry),
        "models": [
            {"ref": "figures"},
            {
                "ref": "denoiser",
                "placement": "own",
                "num_cpus": 0.5,
                "autoscaling": {"min_replicas": 0, "max_replicas": 1},
            },
        ],
        "ingress": {
            "num_cpus": 0.5,
            "autoscaling": {"min_replicas": 1, "max_replicas": 2, "target_megapixels": 0.002},
        },
    }
    with ray_server(tmp_path, args) as server, server.client() as client:
        assert client.get("/health").status_code == 200
        assert server.replicas("denoiser") == []
        asleep = client.get("/v1/models/denoiser").json()
        assert [asleep[key] for key in ("state", "version", "capabilities")] == [
            "asleep", 1, ["denoise"]
        ]  # fmt: skip
        assert client.post(SAMPLE).status_code == 200
        image = file_of(pixels(16, 16, 3))
        form = {"stream": "true", "partial_images": "1"}
        answer = client.post("/v1/images/edits", data=form, files={"image": image})
        assert answer.status_code == 200, answer.text
        assert "image_edit.completed" in answer.text
        assert len(server.replicas("denoiser")) == 1
        awake = client.get("/v1/models/denoiser").json()
        assert awake == asleep | {"state": "ready"}
        weights = again(Registry(open_storage(str(registry))), tmp_path, "denoiser")
        spoil(registry, "denoiser", weights)
        until(lambda: client.post(DENOISE, content=image).status_code == 200 and refusal(client))
        assert "is altered" in refusal(client)["reason"]
        assert client.post(DENOISE, content=image).status_code == 200

        statuses: Counter[int] = Counter()

        def ask(_: int) -> None:
            with server.client() as client:
                while len(server.replicas("ingress")) < 2:
                    statuses[client.post(SAMPLE, json={"n": 16}).status_code] += 1

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(8)))
        assert statuses.keys() == {200}


@pytest.mark.parametrize("proxy", ["haproxy", "ray"])
def test_with_one_replica_what_it_held_is_503_in_our_form(trained, tmp_path, proxy):
    environment = {"RAY_SERVE_ENABLE_HA_PROXY": "1" if proxy == "haproxy" else "0"}
    answers: list[httpx.Response] = []
    enough = threading.Event()
    with ray_server(tmp_path, of(trained, "figures"), environment) as server:

        def ask(_: int) -> None:
            with server.client() as client:
                while not enough.is_set():
                    answers.append(client.post(SAMPLE, json={"n": 4}))

        with ThreadPoolExecutor(8) as pool:
            asked = pool.map(ask, range(8))
            try:
                until(lambda: len(answers) > 100, PATIENCE)
                (killed,) = server.replicas("ingress")
                os.kill(killed, signal.SIGKILL)
                until(lambda: set(server.replicas("ingress")) - {killed}, PATIENCE)
                before = len(answers)
                until(lambda: len(answers) > before + 50, PATIENCE)
            finally:
                enough.set()
            assert list(asked) == [None] * 8
    assert {answer.status_code for answer in answers} <= {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            assert answer.json()["error"]["code"] == "replica_lost"
            assert answer.headers["retry-after"] == "1"
    assert answers[-1].status_code == 200


def test_a_killed_replica_of_a_model_of_its_own_costs_nothing_beside_another(trained, tmp_path):
    args = {
        "registry": str(trained),
        "models": [{"ref": "denoiser", "placement": "own", "num_cpus": 0.5, "replicas": 2}],
        "ingress": {"num_cpus": 0.5},
    }
    image = file_of(pixels(64, 64, 3))
    statuses: Counter[int] = Counter()
    with ray_server(tmp_path, args) as server:

        def ask(_: int) -> None:
            with server.client() as client:
                for _ in range(40):
                    statuses[client.post(f"{DENOISE}?sigma=25", content=image).status_code] += 1

        with ThreadPoolExecutor(4) as pool:
            asked = pool.map(ask, range(4))
            until(lambda: statuses[200] > 20)
            os.kill(server.replicas("denoiser")[0], signal.SIGKILL)
            assert list(asked) == [None] * 4
    assert statuses == {200: 160}


@dataclass(frozen=True)
class Head:
    address: str
    environment: dict[str, str]
    session: int


@pytest.fixture
def head() -> Iterator[Head]:
    """A Ray cluster of 2 CPUs that asks for a token, and knows nothing of us."""
    folder = Path(tempfile.mkdtemp(prefix="gh", dir="/tmp"))  # short, for the sockets in it
    port = free_port()
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                RAY, "start", "--head", "--block", f"--port={port}", "--num-cpus=2",
                f"--dashboard-port={free_port()}", "--object-store-memory=100000000",
                f"--temp-dir={folder}", f"--ray-client-server-port={free_port()}",
            ],
            env=os.environ | environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        until(lambda: "This command will now block" in (folder / "log").read_text(), PATIENCE)
        address = f"127.0.0.1:{port}"
        yield Head(address, environment | {"RAY_ADDRESS": address}, process.pid)
    finally:
        for pid, _ in living(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def test_on_a_cluster_that_is_up_only_the_application_ends(trained, tmp_path, head):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    answers: Counter[tuple[int, str]] = Counter()
    with ray_server(tmp_path / "one", of(trained, "figures@1"), head.environment) as one:
        with one.client() as client:
            assert client.post(SAMPLE).headers["x-model-version"] == "1"
        # Another command for the same application replaces it, and nobody is turned away.
        second = ray_server(
            tmp_path / "two", of(trained, "figures@2"), head.environment, wait=False
        )
        with second as two, one.client() as client:
            while "Ctrl-C" not in two.log.read_text():
                assert two.process.poll() is None, two.log.read_text()
                answer = client.post(SAMPLE)
                answers[answer.status_code, answer.headers.get("x-model-version", "")] += 1
            assert f"Ray Serve runs on this cluster already, and listens on {one.url[7:]}" in (
                two.log.read_text()
            )
            for _ in range(50):
                answer = client.post(SAMPLE)
                answers[answer.status_code, answer.headers.get("x-model-version", "")] += 1
            assert answers.keys() == {(200, "1"), (200, "2")}, answers
            assert two.stop() == 0
            until(lambda: client.get("/health").status_code == 404)
        one.stop()
    names = [name for _, name in living(head.session)]
    assert any("ServeController" in name for name in names)
    assert any("raylet" in name for name in names)
    assert not any("ServeReplica" in name for name in names)
