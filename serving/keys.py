"""Who may ask, as a file of keys says now, and how much each has asked for in the last minute."""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable

from cluster import keys as stored
from cluster.keys import Key
from cluster.storage import NotFound, StorageError
from genimg.errors import InputError
from serving.errors import ApiError
from serving.metrics import Meters
from serving.rates import Window
from serving.settings import Settings

logger = logging.getLogger(__name__)

HOW = "give one as `Authorization: Bearer KEY`, or as `X-API-Key: KEY`"


class Keys:
    """The keys of a server, and what their holders do.

    Limits of a minute are split evenly among the replicas that take requests, who are asked in
    turn. A key has at most as many requests under way at a time as there are places free (dynamic
    thresholds, Choudhury & Hahne 1998): one alone may take half of them, and leaves the others.
    """

    def __init__(
        self,
        read: Callable[[], Iterable[Key]],
        poll_s: float = 2.0,
        places: int = 1000,
        meters: Meters | None = None,
        replicas: Callable[[], int] = lambda: 1,
    ) -> None:
        """read: called now, and every `poll_s` seconds in a thread; so is `replicas`.

        places: requests that are taken at a time. Raises what `read` raises. Later, keys that are
        gone are no keys any more; what cannot be read, or is damaged, changes nothing.
        """
        self.read, self.poll_s, self.places = read, poll_s, places
        self.replicas_now = replicas
        self.replicas = max(1, replicas())
        self.meters = meters or Meters()
        self.busy: Counter[str] = Counter()  # requests under way, by the names of keys
        self._requests: dict[str, Window] = defaultdict(Window)
        self._pixels: dict[str, Window] = defaultdict(Window)
        self._readable = True
        self._by_id: dict[str, Key] = {}
        self._by_name: dict[str, Key] = {}
        self._keep(read())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch keys", daemon=True)
        self._thread.start()

    def holder(self, text: str | None) -> Key:
        """The key that was sent. Raises ApiError 401."""
        if not text:
            raise unauthorized(f"this server asks for a key: {HOW}")
        key = stored.find(self._by_id, text)
        if key is None:
            raise unauthorized("this is no key of this server, or one that was revoked")
        if key.expired:
            raise unauthorized(f"the key {key.name!r} expired on {key.expires:%Y-%m-%d}")
        return key

    def named(self, name: str) -> Key | None:
        """The key of a name, if there still is one."""
        return self._by_name.get(name)

    def take_place(self, key: Key) -> None:
        """Count a request as under way, until `give_place`. Raises ApiError 429."""
        free = self.places - self.busy.total()
        if self.busy[key.name] >= free:
            message = f"{self.busy[key.name]} requests of this key are under way, as many as may be"
            raise ApiError(429, "queue_full", f"{message}; try again", headers={"Retry-After": "1"})
        self.busy[key.name] += 1

    def give_place(self, key: Key) -> None:
        """A request is no longer under way."""
        self.busy[key.name] -= 1
        if not self.busy[key.name]:
            del self.busy[key.name]

    def take_request(self, key: Key) -> None:
        """Count a request against the limit of a minute. Raises ApiError 429."""
        if key.requests_per_minute is None:
            return
        window, share = self._requests[key.name], self._share(key.requests_per_minute)
        if window.used() >= share:
            raise limited(window.wait(share), f"{key.requests_per_minute} requests a minute")
        window.take(1)

    def take_pixels(self, key: Key, pixels: int) -> None:
        """Likewise for pixels, of which the last request may be beyond the limit."""
        if key.megapixels_per_minute is None:
            return
        window = self._pixels[key.name]
        share = key.megapixels_per_minute * 1e6 / self.replicas
        if window.used() >= share:
            raise limited(window.wait(share), f"{key.megapixels_per_minute:g} megapixels a minute")
        window.take(pixels)

    def told(self, key: Key) -> dict[str, str]:
        """Headers, as OpenAI has them, on what is left of a minute's requests; if all replicas are
        asked as much as this one."""
        if key.requests_per_minute is None:
            return {}
        window, share = self._requests[key.name], self._share(key.requests_per_minute)
        left = min(key.requests_per_minute, (share - window.used()) * self.replicas)
        return {
            "x-ratelimit-limit-requests": str(key.requests_per_minute),
            "x-ratelimit-remaining-requests": str(max(0, left)),
            "x-ratelimit-reset-requests": f"{math.ceil(window.wait(1))}s",
        }

    def close(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _share(self, limit: int) -> int:
        return max(1, limit // self.replicas)

    def _keep(self, keys: Iterable[Key]) -> None:
        before = self._by_name
        keys = tuple(keys)
        self._by_id = {key.id: key for key in keys}
        self._by_name = {key.name: key for key in keys}
        self.meters.keys.set(len(keys))
        if gone := before.keys() - self._by_name.keys():
            self._forget(gone)

    def _forget(self, names: Collection[str]) -> None:
        """Nothing stays of keys that are gone: they may change every hour."""
        for name in names:
            self._requests.pop(name, None)
            self._pixels.pop(name, None)
        self.meters.drop_keys(names)

    def _watch(self) -> None:
        while not self._stop.wait(self.poll_s):
            self._look()

    def _look(self) -> None:
        try:
            self.replicas = max(1, self.replicas_now())
            self._keep(self.read())
        except NotFound:
            self._keep(())
        except Exception as error:  # whatever it is, those who may ask today still may
            self.meters.keys_failures.inc()
            if self._readable:  # said once, not at every look
                logger.warning("keys cannot be read (%s); those read before go on", error)
            self._readable = False
            return
        self._readable = True


def keys_of(
    settings: Settings, meters: Meters | None = None, replicas: Callable[[], int] = lambda: 1
) -> Keys | None:
    """The keys that a server asks for; None where anybody may ask. Raises InputError."""
    try:
        read = stored.reader(settings.keys_file, settings.open)
        return read and Keys(read, settings.poll_s, settings.places(), meters, replicas)
    except NotFound as error:
        raise InputError(f"keys: {error}; make one with `genimg keys add NAME`") from None
    except StorageError as error:
        raise InputError(f"keys: {error}") from None


def unauthorized(message: str) -> ApiError:
    return ApiError(401, "invalid_api_key", message, headers={"WWW-Authenticate": "Bearer"})


def limited(wait: float, limit: str) -> ApiError:
    """429 for what will be taken in `wait` seconds."""
    seconds = max(1, math.ceil(wait))
    message = f"this key may have {limit}; try again in {seconds} s"
    return ApiError(429, "rate_limit_exceeded", message, headers={"Retry-After": str(seconds)})
