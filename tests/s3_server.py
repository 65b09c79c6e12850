"""An S3 on this machine for the tests: moto behind a lock, with faults on demand.

    python tests/s3_server.py PORT [--fail-every N] [--stall-every N SECONDS]
                                    [--check-rights-after N]

moto enforces conditions on writes, but looks and writes in two steps; the lock makes them one, as
S3 does. Of the calls that fail, every second one is carried out and only its answer is lost.
"""

import argparse
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from moto import backends, settings
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, run_simple

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
FAULT = b"<Error><Code>InternalError</Code><Message>a fault on demand</Message></Error>"


class Faulty:
    """Carries out one call at a time; fails or stalls as told."""

    def __init__(self, app: Application, fail_every: int, stall: tuple[int, float]) -> None:
        self.app = app
        self.fail_every = fail_every
        self.stall_every, self.stall_s = stall
        self.lock = threading.Lock()
        self.calls = itertools.count(1)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        call = next(self.calls)
        if self.stall_every and call % self.stall_every == 0:
            time.sleep(self.stall_s)
        fail = self.fail_every and call % self.fail_every == 0
        if fail and call % (2 * self.fail_every):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            return self.fault(start)
        with self.lock:
            answer = list(self.app(environ, (lambda *_: None) if fail else start))
        return self.fault(start) if fail else answer

    def fault(self, start: Callable[..., Any]) -> Iterable[bytes]:
        start("500 Internal Server Error", [("Content-Length", str(len(FAULT)))])
        return [FAULT]


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept, as by S3

    def log(self, *_: Any) -> None:
        pass


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--fail-every", type=int, default=0)
    parser.add_argument("--stall-every", type=float, nargs=2, default=(0, 0.0))
    parser.add_argument("--check-rights-after", type=int, default=None)
    options = parser.parse_args()
    if options.check_rights_after is not None:
        settings.INITIAL_NO_AUTH_ACTION_COUNT = float(options.check_rights_after)
    modules = list(backends.list_of_moto_modules())  # which it looks for at each request, twice
    backends.list_of_moto_modules = lambda: modules
    every, seconds = options.stall_every
    app = Faulty(
        DomainDispatcherApplication(create_backend_app), options.fail_every, (int(every), seconds)
    )
    run_simple("127.0.0.1", options.port, app, threaded=True, request_handler=Quiet)
