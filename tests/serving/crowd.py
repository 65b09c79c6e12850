"""Clients that ask a running server without a pause."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import httpx
from live_server import until
from ray_server import RayServer


class Crowd:
    """Clients that ask for the same without a pause, but for what Retry-After says, and what they
    get."""

    def __init__(self, server: RayServer, ask: Callable[[httpx.Client], httpx.Response]) -> None:
        self.server = server
        self.ask = ask
        self.statuses: Counter[int | str] = Counter()
        self.versions: Counter[str] = Counter()
        self.enough = threading.Event()

    @contextmanager
    def asking(self, clients: int = 8) -> Iterator[None]:
        with going([self._ask] * clients, self.enough):
            yield

    def wait_for(self, answers: int) -> None:
        """Until so many more have been answered well."""
        before = self.statuses[200]
        until(lambda: self.statuses[200] >= before + answers, patience=120)

    def _ask(self) -> None:
        with self.server.client() as client:
            while not self.enough.is_set():
                try:
                    answer = self.ask(client)
                except httpx.TransportError as error:
                    self.statuses[type(error).__name__] += 1
                else:
                    self.statuses[answer.status_code] += 1
                    self.versions[answer.headers.get("x-model-version", "none")] += 1
                    self.enough.wait(int(answer.headers.get("retry-after", 0)))

    @property
    def failed(self) -> int:
        return self.statuses.total() - self.statuses[200]


@contextmanager
def going(asking: Sequence[Callable[[], None]], enough: threading.Event) -> Iterator[None]:
    """Each in a thread of its own, until the end of the block, of which `enough` tells them."""
    threads = [threading.Thread(target=each) for each in asking]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        enough.set()
        for thread in threads:
            thread.join()
