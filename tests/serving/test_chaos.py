"""Mixed load by clients that never ask again, while what serves them is killed and changed."""

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest
import yaml
from crowd import going
from live_server import file_of, made_key, pixels, until
from ray_server import RayServer, living, ray_server, without_ray

from cluster.keys import KeyFile
from cluster.places import open_storage
from cluster.promotion import promote, rollback
from cluster.registry import Registry

SECONDS = float(os.environ.get("GENIMG_CHAOS_S", "600"))
PATIENCE = 180.0
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(SECONDS + 900)]

PRODUCTION = "figures@production"
SMALL = file_of(pixels(64, 64, 3))
LARGER = file_of(pixels(180, 180, 3))  # what HAProxy cannot hold is not given to another


@dataclass
class Load:
    """Clients of a server, and what they get."""

    server: RayServer
    key: str
    proxy_is_down: bool = False
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    lost_with_proxy: int = 0
    enough: threading.Event = field(default_factory=threading.Event)

    def wait_for(self, count: int) -> None:
        """Until so many more are answered."""
        before = self.answers.total()
        until(lambda: self.answers.total() >= before + count, PATIENCE)

    @contextmanager
    def going(self, clients: int) -> Iterator[None]:
        with going([partial(self._ask, number) for number in range(clients)], self.enough):
            yield

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=self.server.url, timeout=90) as client:
            for each in itertools.count(number):
                if self.enough.is_set():
                    return
                name, ask = ASKS[each % len(ASKS)]
                client.headers["Authorization"] = f"Bearer {self.key}"
                down = self.proxy_is_down
                answer = None
                try:
                    answer = ask(client, each)
                except httpx.TransportError as error:
                    failure = repr(error)
                else:
                    self.answers[name, answer.status_code] += 1
                    failure = answer.text[:200] if answer.status_code != 200 else ""
                lost = answer is None or answer.status_code == 503
                if failure and lost and (down or self.proxy_is_down):
                    self.lost_with_proxy += 1
                    time.sleep(0.1)
                elif failure:
                    self.failures.append(f"{time.strftime('%X')} {name}: {failure}")


Ask = Callable[[httpx.Client, int], httpx.Response]


def sampled(client: httpx.Client, seed: int) -> httpx.Response:
    asked = {"model": PRODUCTION, "n": 1 + seed % 4, "seed": seed}
    return client.post("/v1/images/sample", json=asked)


def generated(client: httpx.Client, seed: int) -> httpx.Response:
    asked = {"model": PRODUCTION, "prompt": "", "n": 2, "seed": seed}
    return client.post("/v1/images/generations", json=asked)


def denoised(client: httpx.Client, seed: int) -> httpx.Response:
    return client.post("/v1/images/denoise", content=(SMALL, LARGER)[seed % 2])


def edited(client: httpx.Client, seed: int) -> httpx.Response:
    form = {"model": "denoiser", "prompt": ""}
    return client.post("/v1/images/edits", data=form, files={"image": SMALL})


def listed(client: httpx.Client, seed: int) -> httpx.Response:
    return client.get("/v1/models")


ASKS: list[tuple[str, Ask]] = [
    (each.__name__, each) for each in (sampled, generated, denoised, edited, listed)
]


class Faults:
    """What is done to a server; each ends once it is whole again."""

    def __init__(self, server: RayServer, load: Load, models: Registry) -> None:
        self.server, self.load, self.models = server, load, models
        self.keys = KeyFile(str(server.registry.parent / "keys.json"))
        self.names = itertools.count()
        self.key_name = "client"

    def replica_of_the_ingress(self) -> None:
        self._kill_one_of_two("ingress")

    def replica_of_a_model(self) -> None:
        self._kill_one_of_two("denoiser")

    def controller(self) -> None:
        self._kill("ray::ServeController")

    def fallback_proxy(self) -> None:
        self._kill("ray::ProxyActor")

    def proxy(self) -> None:
        self.load.proxy_is_down = True
        self._kill("ray::HAProxyManager")
        until(self._answers, PATIENCE)
        time.sleep(0.5)  # until clients have found out
        self.load.proxy_is_down = False

    def promotion(self) -> None:
        promote(self.models, "figures@2", "production")
        self._wait_for_version("2")

    def return_to_the_version_before(self) -> None:
        promote(self.models, "figures@1", "production")
        promote(self.models, "figures@2", "production")
        rollback(self.models, "figures", "production")
        self._wait_for_version("1")

    def key(self) -> None:
        name, old = f"client-{next(self.names)}", self.key_name
        key = made_key(Path(self.keys.address), name)
        time.sleep(1.5)  # replicas look for keys every poll_s
        self.load.key, self.key_name = key, name
        self.load.wait_for(30)  # those with the old one are answered
        self.keys.revoke(old)

    def config(self) -> None:
        path = self.server.registry.parent / "serve.yaml"
        tree = yaml.safe_load(path.read_text())
        args = tree["applications"][0]["args"]
        args["limits"] = {"max_images": 65 + next(self.names)}
        said = len(self.server.log.read_text())
        path.write_text(yaml.safe_dump(tree))
        until(lambda: "without a restart" in self.server.log.read_text()[said:], PATIENCE)

    def _kill_one_of_two(self, deployment: str) -> None:
        before = set(self.server.replicas(deployment))
        killed = random.choice(sorted(before))
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(set(self.server.replicas(deployment)) - {killed}) == 2, PATIENCE)
        self.load.wait_for(50)
        until(self._answers, PATIENCE)

    def _kill(self, title: str) -> None:
        (killed,) = self.server.processes(title)
        os.kill(killed, signal.SIGKILL)
        until(lambda: set(self.server.processes(title)) - {killed}, PATIENCE)

    def _wait_for_version(self, version: str) -> None:
        with self.server.client() as client:
            client.headers["Authorization"] = f"Bearer {self.load.key}"

            def versions() -> set[str]:
                asked = [client.post("/v1/images/sample") for _ in range(8)]
                return {answer.headers.get("x-model-version", "") for answer in asked}

            until(lambda: versions() == {version}, PATIENCE)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.server.url}/health", timeout=10).status_code == 200
        except httpx.TransportError:
            return False


def test_no_request_fails_whatever_is_killed_or_changed(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "registry")
    key = made_key(tmp_path / "keys.json", "client")
    args = {
        "registry": "registry",
        "keys_file": "keys.json",
        "poll_s": 0.5,
        "models": [
            {"ref": PRODUCTION},
            {"ref": "denoiser", "placement": "own", "num_cpus": 0.4, "replicas": 2},
        ],
        "ingress": {"num_cpus": 0.4, "replicas": 2},
    }
    with ray_server(tmp_path, args, key=key) as server:
        load = Load(server, key)
        faults = Faults(server, load, Registry(open_storage(str(server.registry))))
        every = [
            faults.replica_of_the_ingress, faults.promotion, faults.controller, faults.key,
            faults.replica_of_a_model, faults.return_to_the_version_before, faults.fallback_proxy,
            faults.config, faults.proxy,
        ]  # fmt: skip
        done: Counter[str] = Counter()
        end = time.monotonic() + SECONDS
        with load.going(clients=6):
            load.wait_for(50)
            for fault in itertools.cycle(every):
                print(time.strftime("%X"), fault.__name__, dict(load.answers), flush=True)
                fault()
                done[fault.__name__] += 1
                load.wait_for(30)
                if time.monotonic() > end:
                    break
        print(f"{dict(done)}: {load.answers.total()} answers,")
        print(f"{load.lost_with_proxy} lost with the proxy, {len(load.failures)} failures")
        assert not load.failures
        assert len(done) == len(every) or SECONDS < 300


@contextmanager
def two_nodes() -> Iterator[tuple[str, Callable[[], None]]]:
    """(address, what loses the second, with its replica) of two pretended nodes."""
    script = Path(__file__).with_name("two_nodes.py")
    environment = without_ray(os.environ) | {"RAY_worker_niceness": "0", "TMPDIR": "/tmp"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=pipe, stdout=pipe, text=True, env=environment,
        start_new_session=True,
    ) as nodes:  # fmt: skip
        assert nodes.stdin
        assert nodes.stdout

        def lose() -> None:
            nodes.stdin.write("\n")
            nodes.stdin.flush()
            assert nodes.stdout.readline() == "lost\n"
            until(lambda: len(replicas()) == 1, PATIENCE)

        def replicas() -> list[str]:
            return [name for _, name in living(nodes.pid) if "ray::ServeReplica:genimg" in name]

        try:
            yield nodes.stdout.readline().strip(), lose
        finally:
            nodes.stdin.close()
            nodes.wait(timeout=60)
            for pid, _ in living(nodes.pid):
                os.kill(pid, signal.SIGKILL)


def test_a_lost_node_costs_no_more_than_it_held(trained: Path, tmp_path: Path) -> None:
    """There is room for one replica on each of two nodes, and the proxy is on the first."""
    shutil.copytree(trained, tmp_path / "registry")
    key = made_key(tmp_path / "keys.json", "client")
    application = {
        "name": "genimg",
        "import_path": "serving.deployments:build",
        "args": {
            "registry": "registry",
            "keys_file": "keys.json",
            "models": [{"ref": PRODUCTION}, {"ref": "denoiser"}],
            "ingress": {"num_cpus": 0.6, "replicas": 2},
        },
    }
    content = {"proxy_location": "HeadOnly", "applications": [application]}
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(content))
    options = ["--config", str(tmp_path / "serve.yaml")]
    clients = 6
    with (
        two_nodes() as (address, lose),
        ray_server(tmp_path, options, {"RAY_ADDRESS": address}, host="0.0.0.0", key=key) as server,
    ):
        load = Load(server, key)
        with load.going(clients):
            load.wait_for(100)
            lose()
            load.wait_for(200)
        print(f"{load.answers.total()} answers, {len(load.failures)} lost with the node")
        assert len(load.failures) <= clients, load.failures
        assert server.stop() == 0
