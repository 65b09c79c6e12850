"""Jobs that are asked for again by the same `Idempotency-Key`: the first one is given, no second.

    jobs/keys/DIGEST    of a key and whose it is: which job was accepted by it, and for what

It is claimed by a conditional write before the job is there, so that of many who ask at once one
makes it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property

from pydantic import ValidationError

from cluster.storage import AlreadyExists, Changed, NotFound, Storage
from genimg.section import Section
from serving.errors import ApiError, bad_value
from serving.jobs.job import Job, is_id, time_of

HEADER = "Idempotency-Key"
LONGEST = 255  # characters
KEYS = "jobs/keys"
COMING_S = 60.0  # seconds that a job may take to be accepted; without one a key is free again


class Claim(Section):
    """Of a key, what its object says."""

    id: str
    asked: str  # digest of what was asked for


class Once:
    """A key that came with a request for a job."""

    def __init__(self, owner: str, key: str, asked: Mapping[str, bytes]) -> None:
        """asked: all that makes the job what it is, perhaps large. Raises ApiError."""
        if not 0 < len(key) <= LONGEST:
            raise bad_value(HEADER, key, f"give 1 to {LONGEST} characters")
        self.place = f"{KEYS}/{digest({'owner': owner.encode(), 'key': key.encode()})}"
        self._of = asked

    @cached_property
    def asked(self) -> str:
        return digest(self._of)

    def first(self, storage: Storage, id: str, load: Callable[[str], Job]) -> Job | None:
        """The job that was accepted by this key; None: the key is that of job `id` from now on.

        Raises ApiError: 400 where it was used for something else, 409 where its job is only
        coming.
        """
        mine = Claim(id=id, asked=self.asked).model_dump_json().encode()
        while True:
            with suppress(AlreadyExists):
                storage.create(self.place, mine)
                return None
            with suppress(NotFound, Changed):
                data, etag = storage.read(self.place)
                claim = claim_of(data)
                if job := self._known(claim, load):
                    return job
                storage.replace(self.place, mine, etag)
                return None

    def release(self, storage: Storage) -> None:
        """The job did not come."""
        storage.delete(self.place)

    def _known(self, claim: Claim | None, load: Callable[[str], Job]) -> Job | None:
        if claim is None:
            return None
        try:
            job = load(claim.id)
        except NotFound:
            if time.time() - time_of(claim.id) > COMING_S:
                return None
            message = "the first request with this key is still being accepted; try again"
            headers = {"Retry-After": "1"}
            raise ApiError(409, "job_coming", message, HEADER, headers) from None
        if claim.asked != self.asked:
            reason = "was given for something else; give another"
            raise ApiError(400, "idempotency_key_reused", f"{HEADER} {reason}", HEADER)
        return job


def sweep(storage: Storage, seen: dict[str, str], there: frozenset[str]) -> dict[str, str]:
    """Delete keys whose jobs are gone, and are not coming. seen: the last result, {key: id}."""
    left: dict[str, str] = {}
    seen = dict(seen)
    for key in storage.children(KEYS):
        if seen.get(key) not in there:
            with suppress(NotFound):
                claim = claim_of(storage.read(f"{KEYS}/{key}")[0])
                seen[key] = claim.id if claim else ""
        if (id := seen.get(key, "")) in there or time.time() - time_of(id) <= COMING_S:
            left[key] = id
        else:
            storage.delete(f"{KEYS}/{key}")
    return left


def claim_of(data: bytes) -> Claim | None:
    """None where it is damaged."""
    try:
        claim = Claim.model_validate_json(data)
    except ValidationError:
        return None
    return claim if is_id(claim.id) else None


def digest(of: Mapping[str, bytes]) -> str:
    whole = hashlib.sha256()
    for name, data in sorted(of.items()):
        whole.update(b"%s %d " % (name.encode(), len(data)))
        whole.update(data)
    return whole.hexdigest()
