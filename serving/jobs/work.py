"""The computing of one job: what a synchronous request would be answered, kept in the storage."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from cluster.storage import NotFound
from serving.answers import in_form
from serving.backend import Backend
from serving.errors import ApiError
from serving.jobs.job import Failure, Job
from serving.jobs.store import Store
from serving.requests import Answer, Request

logger = logging.getLogger(__name__)

_PATIENCE = ("queue_full", "model_loading", "registry_unavailable")  # errors that pass
_PAUSE_S = 1.0


class Again(Exception):
    """A job is to be begun again. counted: it may have been what ended its process."""

    def __init__(self, counted: bool) -> None:
        super().__init__(counted)
        self.counted = counted


class Work:
    """A job on its way through a backend. `progress` says how far it is, 0 to 1."""

    def __init__(self, job: Job, store: Store, backend: Backend, timeout_s: float) -> None:
        self.job = job
        self.store = store
        self.backend = backend
        self.timeout_s = timeout_s
        self.progress = 0.0

    async def done(self) -> dict[str, Any]:
        """What the job's record is to say at its end.

        Raises Again, or StorageError where the result cannot be kept. Cancelled, nothing of it is
        computed any further.
        """
        limit = asyncio.timeout(self.timeout_s)
        try:
            async with limit:
                return await self._done()
        except ApiError as refused:
            error = refused
        except NotFound:
            error = ApiError(500, "job_input_lost", "its input is gone: ask for it again")
        except TimeoutError:
            if not limit.expired():
                raise
            error = ApiError(504, "timeout", f"not done within {self.timeout_s:g} s")
        if error.code in ("replica_lost", "shutting_down"):
            await asyncio.sleep(_PAUSE_S)  # for another to be there
            raise Again(counted=error.code == "replica_lost")
        return {"state": "failed", "failure": Failure.of(error)}

    async def _done(self) -> dict[str, Any]:
        files = await asyncio.to_thread(self.store.inputs, self.job)
        answer = await self._answer(self.job.request(files))
        response = in_form(answer, self.job.form)
        key = await asyncio.to_thread(self.store.keep, self.job, bytes(response.body))
        return {
            "state": "done",
            "progress": 1.0,
            "model": answer.model,
            "version": answer.version,
            "result": key,
            "headers": {name: value for name, value in response.headers.items()
                        if name != "content-length"},
        }  # fmt: skip

    async def _answer(self, request: Request) -> Answer:
        while True:
            try:
                return await self.backend.call(self.job.model, request, self._tell)
            except ApiError as error:
                if error.code not in _PATIENCE:
                    raise
            except Exception as error:
                logger.exception("%s", self.job.id)
                message = "the server failed on this job; its log says why"
                raise ApiError(500, "internal_error", message) from error
            await asyncio.sleep(_PAUSE_S)

    def _tell(self, share: float) -> None:
        self.progress = share
