"""What answers where a replica cannot: HAProxy, as Ray configures it, and Ray by itself."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import uvicorn
from crowd import going
from live_server import made_key, until
from local_s3 import free_port
from sockets import listening
from starlette.responses import JSONResponse

from genimg.errors import InputError
from jobs.server.ray_privates import FLAGS, haproxy, script
from serving.errors import ApiError
from serving.gathered import GatheringProtocol
from serving.metrics import Meters
from serving.proxies import InOurForm
from serving.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.serve._private.config")

# Of eight clients that ask without a pause. Clients send a body behind its head: what of a request
# was still on its way when a server was killed cannot be given to another.
LOST_ON_THEIR_WAY = 1
LOST = ApiError(503, "replica_lost", "nobody answers; try again").body()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def process(*command: object, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen]:
    running = subprocess.Popen([*map(str, command)], env=os.environ | (env or {}))
    try:
        yield running
    finally:
        running.kill()
        running.wait()


@dataclass
class Balanced:
    """HAProxy before some servers."""

    url: str
    servers: list[subprocess.Popen]
    folder: Path
    pid: int  # of HAProxy
    seen: list[httpx.Response | str] = field(default_factory=list)

    def kill(self, server: int) -> None:
        os.kill(self.servers[server].pid, signal.SIGKILL)

    @contextmanager
    def asked(self, clients: int, body: bytes) -> Iterator[None]:
        """Clients ask without a pause during the block, each on one connection that it keeps."""
        enough = threading.Event()

        def ask() -> None:
            with httpx.Client(timeout=30) as client:
                while not enough.is_set():
                    try:
                        self.seen.append(client.post(self.url, content=body))
                    except httpx.TransportError as error:
                        self.seen.append(type(error).__name__)

        with going([ask] * clients, enough):
            yield

    def wait_for(self, more: int) -> None:
        before = len(self.seen)
        until(lambda: len(self.seen) >= before + more, patience=30)

    @property
    def statuses(self) -> Counter[int | str]:
        return Counter(each if isinstance(each, str) else each.status_code for each in self.seen)


@contextmanager
def balanced(
    count: int, fallback: bool = False, env: dict[str, str] | None = None
) -> Iterator[Balanced]:
    """As many servers behind HAProxy, configured by Ray and started as `genimg serve` starts it.

    fallback: one more, in the place of Ray's own proxy, which waits for a replica; env: more of
    HAProxy's environment.
    """
    from ray.serve._private.haproxy import (
        BackendConfig,
        HAProxyApi,
        HAProxyConfig,
        HTTPOptions,
        ServerConfig,
    )  # fmt: skip

    # Not in tmp_path, which is long: the paths of HAProxy's sockets may have 97 characters.
    with tempfile.TemporaryDirectory(prefix="gh", dir="/tmp") as name, ExitStack() as stack:
        folder = Path(name)
        ports = [free_port() for _ in range(count + fallback)]
        slow = Path(__file__).with_name("slow_answers.py")
        servers = [stack.enter_context(process(sys.executable, slow, port)) for port in ports]
        port = free_port()
        HAProxyApi(
            HAProxyConfig(
                http_options=HTTPOptions(host="127.0.0.1", port=port),
                has_received_routes=True,
                has_received_servers=True,
                socket_path=f"{folder}/admin.sock",
                metrics_socket_path=f"{folder}/metrics.sock",
                server_state_base=name,
                server_state_file=f"{folder}/state",
                stats_port=free_port(),
                metrics_port=free_port(),
                retry_on=FLAGS["RAY_SERVE_HAPROXY_RETRY_ON"],
                retries=int(FLAGS["RAY_SERVE_HAPROXY_RETRIES"]),
                bufsize=int(FLAGS["RAY_SERVE_HAPROXY_TUNE_BUFSIZE"]),
                observe_error_limit=int(FLAGS["RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT"]),
            ),
            {
                "app": BackendConfig(
                    name="app",
                    path_prefix="/",
                    app_name="app",
                    servers=[ServerConfig(f"s{each}", "127.0.0.1", each) for each in ports[:count]],
                    fallback_server=(
                        ServerConfig("proxy", "127.0.0.1", ports[-1]) if fallback else None
                    ),
                )
            }
            if count
            else {},
            f"{folder}/haproxy.cfg",
        )._generate_config_file_internal()
        (folder / "state").touch()
        start = folder / "haproxy"
        start.write_text(script(haproxy()))
        start.chmod(0o700)
        for each in ports:
            until(lambda each=each: answers(each))
        arguments = ["-db", "-f", folder / "haproxy.cfg"]
        environment = {"GENIMG_UPLOAD_S": "1"} | (env or {})
        started = stack.enter_context(process(start, *arguments, env=environment))
        until(lambda: answers(port))
        url = f"http://127.0.0.1:{port}/v1/images/sample"
        yield Balanced(url, servers, folder, started.pid)


@pytest.mark.parametrize("size", [10, 100_000])
def test_what_a_killed_server_held_is_answered_by_another(size):
    with balanced(2) as front, front.asked(clients=8, body=b"x" * size):
        front.wait_for(50)
        front.kill(0)
        front.wait_for(100)
    assert front.statuses.total() - front.statuses[200] <= LOST_ON_THEIR_WAY, front.statuses


def test_an_answer_of_which_only_the_head_was_written_is_given_by_another():
    with balanced(2) as front:
        dying = str(front.servers[0].args[-1])
        answers = [httpx.post(front.url, headers={"x-ends": dying}) for _ in range(4)]
        assert front.servers[0].wait(10) == -signal.SIGKILL
    assert [answer.status_code for answer in answers] == [200] * 4
    assert dying not in {answer.headers["x-from"] for answer in answers}


def test_with_no_other_it_is_503_in_our_form():
    with balanced(1) as front, front.asked(clients=8, body=b"x" * 10):
        health = httpx.URL(front.url).copy_with(path="/-/healthz")
        front.wait_for(50)
        assert httpx.get(health).status_code == 200
        front.kill(0)
        front.wait_for(50)
        assert httpx.get(health).status_code == 503
    assert front.statuses[503] > 0
    told = front.statuses[200] + front.statuses[503]
    assert front.statuses.total() - told <= LOST_ON_THEIR_WAY, front.statuses
    for answer in front.seen:
        if isinstance(answer, httpx.Response) and answer.status_code == 503:
            assert answer.json() == LOST
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["content-type"] == "application/json"


def test_before_it_knows_of_any_server_it_is_503_in_our_form():
    with balanced(0) as front:
        answer = httpx.post(front.url)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json() == LOST


def test_with_no_other_rays_own_proxy_is_asked_first():
    with balanced(1, fallback=True) as front, front.asked(clients=8, body=b"x" * 10):
        front.wait_for(50)
        front.kill(0)
        front.wait_for(50)
    assert front.statuses.total() - front.statuses[200] <= LOST_ON_THEIR_WAY, front.statuses


@pytest.mark.parametrize("host", ["", "0.0.0.0", "127.0.0.5"])
def test_its_statistics_listen_on_this_machine_alone_whoever_may_ask(host):
    with balanced(1, env={"GENIMG_HOST": host}) as front:
        assert httpx.post(front.url).status_code == 200
        found = listening([front.pid])
    port = httpx.URL(front.url).port
    assert len({number for _, number in found}) == 3  # with those of statistics and metrics
    asked = {"": {"127.0.0.1"}, "127.0.0.5": {"127.0.0.1", "127.0.0.5"}}.get(host, {host})
    assert {address for address, number in found if number == port} == asked
    assert {address for address, number in found if number != port} == {"127.0.0.1"}


def test_half_a_request_is_given_up_in_our_form():
    with balanced(1) as front:
        port = httpx.URL(front.url).port
        with socket.create_connection(("127.0.0.1", port), timeout=30) as slow:
            slow.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
            head, _, body = b"".join(iter(lambda: slow.recv(9999), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"x-should-retry: false" in head
    assert json.loads(body)["error"]["code"] == "request_timeout"


def test_without_more_said_it_is_the_haproxy_that_comes_with_ray():
    start = "from serving.proxies import haproxy; haproxy()"
    said = subprocess.run([sys.executable, "-c", start, "-v"], capture_output=True, text=True)
    assert said.stdout.startswith("HAProxy version 2.8")
    scripts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert scripts["scripts"]["genimg-haproxy"] == "serving.proxies:haproxy"


@pytest.mark.parametrize(
    ("host", "more", "starts"),
    [
        ("127.0.0.1", {}, True),
        ("0.0.0.0", {}, False),
        ("192.0.2.1", {}, False),
        ("0.0.0.0", {"open": True}, True),
        ("0.0.0.0", {"keys_file": "keys.json"}, True),
    ],
)
def test_a_replica_that_others_reach_does_not_start_without_keys(
    host, more, starts, tmp_path, monkeypatch
):
    from serving.deployments import guard

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENIMG_HOST", host)
    made_key(tmp_path / "keys.json", "alice")
    settings = Settings.validated({"models": [{"ref": "a"}]} | more)
    if not starts:
        with pytest.raises(InputError, match=r"genimg keys add NAME.*--keys FILE.*--open"):
            guard(settings, Meters())
        return
    keys = guard(settings, Meters())
    assert (keys is not None) == ("keys_file" in more)
    if keys:
        keys.close()


def plain(status: int, text: str, *headers: tuple[bytes, bytes]):
    """An app that answers as Ray does for itself."""

    async def app(scope, receive, send):
        kind = (b"Content-Type", b"text/plain; charset=utf-8")
        await send({"type": "http.response.start", "status": status, "headers": [kind, *headers]})
        await send({"type": "http.response.body", "body": text.encode()})

    return app


async def nothing(scope, receive, send):
    """As Ray's proxy, where the replica it had asked is lost."""


async def ours(scope, receive, send):
    await JSONResponse({"error": "ours"}, 404)(scope, receive, send)


@pytest.mark.parametrize(
    ("app", "status", "code", "kind", "retry"),
    [
        (nothing, 503, "replica_lost", "server_error", "1"),
        (plain(503, "unavailable"), 503, "replica_lost", "server_error", "1"),
        (plain(500, "oh"), 500, "internal_error", "server_error", None),
        (plain(429, "no", (b"retry-after", b"7")), 429, "queue_full", "rate_limit_error", "7"),
        (plain(408, "slow"), 408, "request_timeout", "invalid_request_error", None),
        (plain(404, "Path '/x' not found"), 404, "not_found", "invalid_request_error", None),
    ],
)
def test_what_ray_answers_by_itself_is_put_in_our_form(app, status, code, kind, retry):
    answer = asyncio.run(got(InOurForm(app), "/x"))
    assert answer.status_code == status
    assert answer.headers.get("retry-after") == retry
    error = answer.json()["error"]
    assert error.keys() == ApiError(503, "a", "b").body()["error"].keys()
    assert (error["code"], error["type"], error["param"]) == (code, kind, None)


def test_other_answers_pass_as_they_are():
    for app, path in ((ours, "/x"), (plain(200, "x"), "/x"), (plain(503, "x"), "/-/healthz")):
        direct, through = (asyncio.run(got(each, path)) for each in (app, InOurForm(app)))
        assert (through.status_code, through.content) == (direct.status_code, direct.content)
        assert through.headers == direct.headers


def test_ray_takes_what_it_is_told_to_put_around_its_apps(monkeypatch):
    monkeypatch.setattr(uvicorn.config, "HTTP_PROTOCOLS", dict(uvicorn.config.HTTP_PROTOCOLS))
    from ray.serve._private.http_util import validate_http_proxy_callback_return
    from ray.serve._private.utils import call_function_from_import_path

    path = FLAGS["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"]
    (middleware,) = validate_http_proxy_callback_return(call_function_from_import_path(path))
    assert middleware.cls is InOurForm
    config = uvicorn.Config(ours)
    config.load()
    assert config.http_protocol_class is GatheringProtocol


async def got(app: Callable, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        return await client.get(path)
