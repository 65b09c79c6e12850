"""A genimg server, asked over connections that are kept; what goes wrong there, in a line."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential
from tenacity.nap import sleep_using_event

from genimg import __version__
from genimg.errors import InputError
from genimg.operations import Operation
from jobs.console import say

KEY = "GENIMG_API_KEY"  # in the environment
IN_FLIGHT = 8  # requests at a time
PATIENCE = 120.0  # seconds for which a server may be out of reach, or have no room
UNTOLD = 2.0  # seconds of such trouble that nobody needs to hear of
CONNECTING, ANSWERING = 10.0, 600.0  # seconds; a server has a shorter limit of its own on answers
MODELS = "/v1/models"
_BUSY = (429, 502, 503)  # has no room, or is being started anew


class Refused(InputError):
    """An answer that is no success: what the server says, and the parameter to blame."""

    def __init__(self, message: str, status: int, param: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param


class Again(InputError):
    """What may go well a while later; after: seconds that the server says, if it does."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class Server:
    """Answers what is asked of it, in any number of threads. Raises InputError, in a line."""

    models: list[dict[str, Any]]  # that it has, as GET /v1/models tells of them

    def __init__(self, url: str) -> None:
        """Nothing is asked yet. url: http(s)://HOST[:PORT], perhaps with a path."""
        refuse_url(url)
        self.url = url.rstrip("/")
        headers = {"User-Agent": f"genimg/{__version__}"}
        if key := os.environ.get(KEY):
            if not (key.isascii() and key.isprintable()):
                raise InputError(f"{KEY}: no key has such letters")
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(ANSWERING, connect=CONNECTING, pool=None),
            limits=httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT),
        )
        self._met = False
        self._heard = time.monotonic()  # when an answer came last
        self._told = ""  # the trouble that was told of last
        self._ending = threading.Event()
        self._waits = wait_random_exponential(multiplier=0.5, max=10)
        self._trying = Retrying(
            retry=retry_if_exception_type(Again),
            wait=self._wait,
            stop=self._is_enough,
            sleep=sleep_using_event(self._ending),
            reraise=True,
        )

    def __enter__(self) -> Self:
        """Meets it, or raises: whether it is there, is one of genimg's, and takes our key."""
        try:
            self.meet()
        except BaseException:
            self._client.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.give_up()
        self._client.close()

    def meet(self) -> None:
        answer = self._trying(self._once, "GET", MODELS)
        said = json_of(answer)
        ours = isinstance(said.get("data"), list) and all(
            isinstance(each, dict) and each.get("owned_by") == "genimg" for each in said["data"]
        )
        if answer.is_success and ours:
            self.models = said["data"]
            return
        if "error" in said and answer.status_code not in (404, 405):
            raise refusal(self.url, answer)
        elsewhere = answer.headers.get("location", "")
        if elsewhere and answer.is_redirect:
            raise InputError(f"--server {self.url}: sends elsewhere; name {elsewhere}")
        raise InputError(
            f"--server {self.url}: no genimg server answers there (GET {MODELS}:"
            f" {answer.status_code} {answer.reason_phrase})"
        )

    def ask(
        self,
        operation: Operation,
        files: Mapping[str, bytes] = {},
        **parameters: str | int | None,
    ) -> httpx.Response:
        """What its route for an operation answers. Raises Refused where that is no success.

        parameters: of the route beside the operation's options; None: left out
        """
        values = operation.model_dump(mode="json", exclude_defaults=True)
        values |= {key: value for key, value in parameters.items() if value is not None}
        content: dict[str, Any] = {"json": values}
        if files:
            content = {"data": values, "files": {key: (key, data) for key, data in files.items()}}
        answer = self._trying(self._once, "POST", f"/v1/images/{operation.name}", **content)
        if not answer.is_success:
            raise refusal(self.url, answer)
        return answer

    def give_up(self) -> None:
        """Nothing is tried again any more."""
        self._ending.set()

    def _once(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, f"{self.url}{path}", **content)
        except httpx.ReadTimeout:
            raise InputError(f"{self.url}: no answer within {ANSWERING:g} s") from None
        except httpx.RequestError as error:
            why = str(error) or type(error).__name__
            if "CERTIFICATE_VERIFY_FAILED" in why:
                raise InputError(
                    f"{self.url}: its certificate is not trusted ({why.partition('] ')[2]});"
                    " SSL_CERT_FILE may name a file with the one that signed it"
                ) from None
            told = f"{self.url} cannot be reached ({why})"
            raise Again(told) if self._met else InputError(f"--server {told}") from None
        self._met = True
        if answer.status_code in _BUSY:
            after = answer.headers.get("retry-after", "")
            told = f"{self.url} is busy ({message_of(answer)})"
            raise Again(told, float(after) if after.isdecimal() else None)
        self._heard, self._told = time.monotonic(), ""
        return answer

    def _wait(self, state: RetryCallState) -> float:
        trouble = trouble_of(state)
        return trouble.after or self._waits(state)

    def _is_enough(self, state: RetryCallState) -> bool:
        """Whether to let it be. If not, trouble that lasts is told of, once."""
        silent = time.monotonic() - max(self._heard, state.start_time) + state.upcoming_sleep
        if self._ending.is_set() or silent > PATIENCE:
            return True
        told = str(trouble_of(state))
        if silent > UNTOLD and told != self._told:
            self._told = told
            say(f"{told}; trying again")
        return False


def trouble_of(state: RetryCallState) -> Again:
    assert state.outcome is not None, "it was tried"
    error = state.outcome.exception()
    assert isinstance(error, Again), "nothing else is tried again"
    return error


def refuse_url(url: str) -> None:
    """InputError for what is no URL of a server."""
    if "@" in url:
        raise InputError(f"--server: a name or password is in the URL; give a key as {KEY}")
    try:
        parts = urlsplit(url)
        port = parts.port  # which is looked at only now
        httpx.URL(url).raw_host.decode().encode("idna")  # or the system's resolver raises
    except (ValueError, httpx.InvalidURL) as error:
        raise InputError(f"--server {url}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise InputError(f"--server {url}: give a URL, as http://localhost:8000")
    if parts.query or parts.fragment:
        raise InputError(f"--server {url}: give it without ? and #")


def json_of(answer: httpx.Response) -> dict[str, Any]:
    """The object that it has; empty where it has none."""
    try:
        said = answer.json()
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def refusal(url: str, answer: httpx.Response) -> Refused:
    """What the server says of an answer that is no success."""
    status, error = answer.status_code, json_of(answer).get("error")
    message = message_of(answer)
    if status in (401, 403):
        message += f" (the key is read from {KEY})"
    if status >= 500 or not isinstance(error, dict):
        message = f"{url}: {status}: {message}"
    return Refused(message, status, error.get("param") if isinstance(error, dict) else None)


def message_of(answer: httpx.Response) -> str:
    error = json_of(answer).get("error")
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return error["message"]
    return f"{answer.status_code} {answer.reason_phrase}"
