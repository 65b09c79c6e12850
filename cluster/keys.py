"""API keys: who may ask a server for what. Hashed, in one file, which is replaced as a whole.

A key reads `genimg_ID_SECRET`. The secret is 256 random bits, of which SHA-256 is kept: nobody can
try out so many, so that a slow hash, as passwords need, would cost nobody but the server.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from cluster.places import everywhere, open_storage, split
from cluster.storage import AlreadyExists, Changed, NotFound, StorageError

VARIABLE = "GENIMG_KEYS"  # of the environment: the keys themselves, as a file has them
PREFIX = "genimg"
_NOBODY = "0" * 64  # what no secret is hashed to
_TRIES = 20


class KeysError(StorageError):
    """Keys that cannot be read, or not be changed as was asked."""


class Key(BaseModel):
    """What is known of a key: not the secret, which only its holder has."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")  # in metrics and logs
    id: str = Field(pattern=r"^[0-9a-f]{8}$")  # which every one of its uses shows
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")  # of the secret
    created: AwareDatetime
    expires: AwareDatetime | None = None
    models: tuple[str, ...] = ()  # references as they are served, or names of models; none: all
    requests_per_minute: int | None = Field(None, ge=1)
    megapixels_per_minute: float | None = Field(None, gt=0)

    @property
    def expired(self) -> bool:
        return self.expires is not None and datetime.now(UTC) >= self.expires


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: tuple[Key, ...]

    @model_validator(mode="after")
    def each_once(self) -> Self:
        for what in ("name", "id"):
            given = Counter(getattr(key, what) for key in self.keys)  # there may be thousands
            if twice := sorted(each for each, times in given.items() if times > 1):
                raise ValueError(f"the {what} {', '.join(twice)} is given twice")
        return self


class KeyFile:
    """Keys in a file of this machine, which only its owner may read, or of S3."""

    def __init__(self, address: str) -> None:
        self.address = address
        place, self._name = split(everywhere(address))
        self._storage = open_storage(place)

    def read(self) -> tuple[Key, ...]:
        """Raises NotFound, or StorageError where they cannot be read."""
        return parse(self._storage.read(self._name)[0], self.address)

    def add(self, key: Key) -> None:
        """Keep a key. Raises KeysError where its name is taken."""

        def with_it(keys: tuple[Key, ...]) -> Iterable[Key]:
            if any(each.name == key.name for each in keys):
                reason = f"has a key {key.name!r} already; revoke it, or name another"
                raise KeysError(f"{self.address} {reason}")
            if any(each.id == key.id for each in keys):  # of thousands two may have drawn the same
                raise KeysError(f"{self.address} has a key that begins alike; make another")
            return (*keys, key)

        self._change(with_it)

    def revoke(self, name: str) -> None:
        """Take a key out. Raises KeysError where there is none of this name."""

        def without_it(keys: tuple[Key, ...]) -> Iterable[Key]:
            left = [key for key in keys if key.name != name]
            if len(left) == len(keys):
                known = ", ".join(key.name for key in keys) or "none"
                raise KeysError(f"{self.address} has no key {name!r}; it has {known}")
            return left

        self._change(without_it)

    def _change(self, changed: Callable[[tuple[Key, ...]], Iterable[Key]]) -> None:
        for _ in range(_TRIES):
            etag = None
            keys: tuple[Key, ...] = ()
            try:
                data, etag = self._storage.read(self._name)
                keys = parse(data, self.address)
            except NotFound:
                pass
            after = [key.model_dump(mode="json", exclude_defaults=True) for key in changed(keys)]
            content = json.dumps({"keys": after}, indent=2).encode() + b"\n"
            try:
                with _private():
                    if etag is None:
                        self._storage.create(self._name, content)
                    else:
                        self._storage.replace(self._name, content, etag)
            except (AlreadyExists, Changed):  # by somebody else meanwhile
                continue
            return
        raise KeysError(f"{self.address}: others change it all the time; try again")


def new(name: str, **may: object) -> tuple[Key, str]:
    """(a key, which may do what is said; the text that its holder sends). Raises KeysError."""
    secret = secrets.token_urlsafe(32)
    of = {"id": secrets.token_hex(4), "sha256": _hashed(secret), "created": datetime.now(UTC)}
    try:
        key = Key.model_validate({"name": name} | of | may)
    except ValidationError as error:
        raise KeysError(_problem(error)) from None
    return key, f"{PREFIX}_{key.id}_{secret}"


def find(keys: Mapping[str, Key], text: str) -> Key | None:
    """The key whose text this is, by the keys' ids. Takes as long whether or not there is one.

    May be expired.
    """
    prefix, _, rest = text.partition("_")
    id, _, secret = rest.partition("_")
    key = keys.get(id)
    right = hmac.compare_digest(key.sha256 if key else _NOBODY, _hashed(secret))
    return key if key and right and prefix == PREFIX else None


def parse(data: bytes | str, source: str) -> tuple[Key, ...]:
    """The keys of a file's content. Raises KeysError."""
    try:
        return _File.model_validate_json(data).keys
    except ValidationError as error:
        raise KeysError(f"{source}: not keys: {_problem(error)}") from None


def reader(file: str | None, open: bool) -> Callable[[], tuple[Key, ...]] | None:
    """What reads the keys that a server asks for: of a file, or else of the environment.

    None where it asks for none. KeysError where it is to be open, and has some.
    """
    text = os.environ.get(VARIABLE)
    if open:
        if file or text:
            told = VARIABLE if text else "keys_file (--keys)"
            raise KeysError(f"open (--open) and {told} are both given; leave one of them out")
        return None
    if file:
        return KeyFile(file).read
    return (lambda: parse(text, VARIABLE)) if text else None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def remedy(host: str) -> str:
    """What to do where a host is not loopback, and nobody is asked for a key."""
    return (
        f"--host {host}: everybody who reaches it could use it; make a key with "
        "`genimg keys add NAME` and give --keys FILE, or say --open"
    )


@contextmanager
def _private() -> Iterator[None]:
    """Files that are made within can be read by nobody else. For the whole process."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def _problem(error: ValidationError) -> str:
    """The first of what is wrong, in a line; without the values, among which hashes are."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    reason = first["msg"].removeprefix("Value error, ")
    return f"{key}: {reason}" if key else reason
