"""What is known of a job: what was asked for, how far it is, what came of it."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from dataclasses import asdict
from typing import Any, Literal, Self

from pydantic import Field, ValidationError

from genimg.operations import OPERATIONS
from genimg.section import Section
from serving.errors import ApiError
from serving.requests import Caller, Output, Request

State = Literal["queued", "running", "done", "failed", "cancelled"]
ID = re.compile(r"job-([0-9a-f]{12})-([0-9a-f]{8})-[0-9a-f]{32}")  # milliseconds, owner, random


class Failure(Section):
    """What the synchronous route would have refused with."""

    status: int
    code: str
    message: str
    param: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)

    def as_error(self) -> ApiError:
        return ApiError(self.status, self.code, self.message, self.param, self.headers)

    @classmethod
    def of(cls, error: ApiError) -> Self:
        return cls(
            status=error.status,
            code=error.code,
            message=error.message,
            param=error.param,
            headers=error.headers,
        )


class Job(Section):
    """A record, one object in the storage, of which every change is a conditional write.

    runner, beat: who computes it (or tells its webhook), and a number that changes as long as they
        live; nobody else may change what is theirs, but for a cancellation.
    """

    id: str
    operation: str
    options: dict[str, Any]  # all of them, with the seed where there is one
    files: tuple[str, ...] = ()  # names of its inputs
    output: dict[str, Any] = Field(default_factory=dict)  # of serving.requests.Output
    form: str | None = None  # `response_format`
    model: str | None = None  # id; None: the first that can, when it is computed
    owner: str = ""  # name of the key that it was asked for with
    usable: tuple[str, ...] | None = None  # ids or names of models that the key may use; None: all
    webhook: str | None = None

    state: State = "queued"
    created: float  # seconds since 1970
    started: float | None = None
    ended: float | None = None
    attempts: int = 0
    progress: float = 0.0
    version: int | None = None  # of the model, once it is done
    failure: Failure | None = None
    result: str | None = None  # key of the answer's body
    headers: dict[str, str] = Field(default_factory=dict)  # of the answer
    telling: Literal["none", "waiting", "told", "failed"] = "none"  # of the webhook
    runner: str = ""
    beat: int = 0

    @classmethod
    def of(cls, request: Request, **more: Any) -> Self:
        """A new one, of which the seed is drawn now where it was to be."""
        operation = request.operation
        if first := getattr(operation, "first_seed", None):
            operation = operation.model_copy(update={"seed": first()})
        return cls(
            id=new_id(request.caller.name),
            operation=operation.name,
            options=operation.model_dump(mode="json"),
            files=tuple(request.files),
            output=asdict(request.output),
            owner=request.caller.name,
            usable=request.caller.models,
            created=time.time(),
            **more,
        )

    @classmethod
    def read(cls, id: str, data: bytes) -> Self:
        """A record; one that is damaged is that of a job which failed."""
        try:
            job = cls.model_validate_json(data)
            if job.id == id:
                return job
        except ValidationError:
            pass
        message = "the record of this job is damaged: ask for it again"
        failure = Failure(status=500, code="job_damaged", message=message)
        made = time_of(id)
        return cls(
            id=id, operation="", options={}, created=made, state="failed", ended=made,
            failure=failure,
        )  # fmt: skip

    @property
    def over(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

    @property
    def sign(self) -> tuple[str, int]:
        """Of life: it changes as long as somebody is at work."""
        return self.runner, self.beat

    @property
    def untold(self) -> bool:
        return self.over and self.telling == "waiting"

    def request(self, files: dict[str, bytes]) -> Request:
        """What is to be computed. Raises ApiError where another version of genimg wrote it."""
        try:
            operation = OPERATIONS[self.operation].model_validate(self.options)
            caller = Caller(self.owner, self.usable)
            return Request(operation, files, Output(**self.output), caller)
        except (KeyError, TypeError, ValidationError) as error:
            message = f"this version of genimg cannot do what was asked of another one: {error}"
            raise ApiError(500, "job_of_another_version", message) from None

    def public(self, position: int | None, keep_s: float) -> dict[str, Any]:
        """What clients are told; position: of those that wait, 1 for the next."""
        return {
            "id": self.id,
            "object": "job",
            "state": self.state,
            "position": position,
            "progress": round(self.progress, 4),
            "operation": self.operation,
            "parameters": {key: value for key, value in self.options.items() if value is not None},
            "model": self.model,
            "version": self.version,
            "attempts": self.attempts,
            "created": seconds(self.created),
            "started": seconds(self.started),
            "ended": seconds(self.ended),
            "expires": seconds(self.ended and self.ended + keep_s),
            "error": self.failure.as_error().body()["error"] if self.failure else None,
            "result": f"/v1/jobs/{self.id}/result" if self.state == "done" else None,
            "webhook": self.webhook and {"url": self.webhook, "state": self.telling},
        }


def seconds(at: float | None) -> float | None:
    return None if at is None else round(at, 3)


def new_id(owner: str) -> str:
    """One that nobody guesses, in the order of time, and of which an owner's can be told apart."""
    return f"job-{time.time_ns() // 1_000_000:012x}-{tag(owner)}-{secrets.token_hex(16)}"


def tag(owner: str) -> str:
    """What the ids of an owner's jobs have in common."""
    return hashlib.sha256(owner.encode()).hexdigest()[:8]


def is_id(text: str) -> bool:
    return bool(ID.fullmatch(text))


def belongs(id: str, owner: str) -> bool:
    found = ID.fullmatch(id)
    return found is not None and found[2] == tag(owner)


def time_of(id: str) -> float:
    """When it was accepted, seconds since 1970."""
    found = ID.fullmatch(id)
    return int(found[1], 16) / 1000 if found else 0.0
