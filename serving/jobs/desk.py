"""Jobs over HTTP: accepting them, and the routes by which they are looked at and fetched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from cluster.places import open_storage
from cluster.storage import NotFound, StorageError
from serving import documentation
from serving.backend import Backend, choose, find, wanted_of
from serving.errors import ApiError, bad_value
from serving.jobs import webhooks
from serving.jobs.job import Job, belongs
from serving.jobs.once import HEADER, Once
from serving.jobs.runner import Runner
from serving.jobs.store import Full, Store
from serving.keyed import Permitted
from serving.metrics import Meters
from serving.requests import Request as Wanted
from serving.schemas import Asked, Paged, parsed
from serving.settings import Settings
from serving.uploads import received

logger = logging.getLogger(__name__)
T = TypeVar("T")

_AT_ONCE = 8  # requests that the storage is asked for
_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}


class Jobs:
    """All that an app needs for jobs: where they are kept, and who sees to them."""

    def __init__(self, settings: Settings, backend: Backend, meters: Meters | None = None) -> None:
        """Raises StorageError where the address of the storage is none."""
        self.settings = settings.jobs
        self.limits = settings.limits
        # of their own: a storage that hangs is not to hold up what else is done in threads
        self._threads = ThreadPoolExecutor(_AT_ONCE, "jobs")
        storage = open_storage(settings.jobs.storage or settings.registry)
        told = settings.jobs
        self.store = Store(storage, told.max_queued, told.keep_s, told.attempts)
        self.runner = Runner(self.store, backend, told, settings.poll_s, meters or Meters())

    @asynccontextmanager
    async def seen_to(self, app: object) -> AsyncIterator[None]:
        """An app's lifespan, in which jobs are computed."""
        task = asyncio.create_task(self.runner.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def accept(
        self, http: Request, backend: Backend, wanted: Asked, request: Wanted, form: str | None
    ) -> Response:
        """202 with a new job, whose parameters have been checked. Raises ApiError.

        backend: as the client may use it
        """
        if wanted.webhook is not None:
            webhooks.check(wanted.webhook, self.settings.webhook_hosts)
        if isinstance(backend, Permitted):
            request = await backend.admitted(wanted.model, request)
        once = once_of(http, wanted, request, form)
        job = Job.of(
            request,
            form=form,
            model=await model_of(backend, wanted.model, request),
            webhook=wanted.webhook,
        )
        try:
            job, position = await self._stored(self._accepted, job, request, once)
        except Full:
            message = f"{self.settings.max_queued} jobs wait already; try again later"
            raise ApiError(429, "queue_full", message, headers={"Retry-After": "10"}) from None
        self.runner.wake()
        place = f"{http.scope.get('root_path', '')}/v1/jobs/{job.id}"
        return JSONResponse(self._public(job, position), 202, {"Location": place})

    def _accepted(self, job: Job, request: Wanted, once: Once | None) -> tuple[Job, int | None]:
        """The job, and its place in the queue; the one before, where that had the same key."""
        if once and (known := once.first(self.store.storage, job.id, self.store.load)):
            return known, self.store.position(known)
        try:
            return job, self.store.accept(job, request.files)
        except BaseException:
            if once:
                with suppress(StorageError):
                    once.release(self.store.storage)
            raise

    async def _stored(self, function: Callable[..., T], *args: Any) -> T:
        """What a function that uses the storage gives, in a thread; ApiError where that fails, or
        says nothing for as long as a request may take."""
        call = asyncio.get_running_loop().run_in_executor(self._threads, function, *args)
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                return await call
        except NotFound:
            raise
        except (StorageError, TimeoutError) as error:
            logger.warning("jobs: %s", str(error) or "the storage does not answer")
            message = "the storage of jobs fails; the server's log says why"
            headers = {"Retry-After": "5"}
            raise ApiError(503, "jobs_unavailable", message, headers=headers) from None

    def _public(self, job: Job, position: int | None) -> dict[str, Any]:
        return job.public(position, self.settings.keep_s)

    async def _found(self, http: Request) -> Job:
        """The job that the path names, if it is one of this client's. Raises ApiError 404."""
        id = http.path_params["id"]
        if belongs(id, owner := owner_of(http)):
            with suppress(NotFound):
                job = await self._stored(self.store.load, id)
                if job.owner == owner or not job.operation:  # a damaged record names nobody
                    return job
        raise unknown(id)

    def router(self) -> APIRouter:
        routes = APIRouter(tags=["jobs"])
        by_id: dict[str, Any] = {"openapi_extra": {"parameters": [_ID]}}
        one = by_id | {"responses": documentation.errors(404, 503)}
        listed = documentation.parameters(Paged, self.limits)["parameters"]

        @routes.get(
            "/v1/jobs",
            responses=documentation.errors(400, 503),
            openapi_extra={"parameters": listed},
        )
        async def jobs(http: Request) -> dict[str, Any]:
            """Jobs, newest first, a page at a time: `last_id` is the next page's `after`."""
            page = parsed(Paged, await received(http, self.limits), self.limits)
            found, more = await self._stored(
                self.store.page, owner_of(http), page.limit, page.after
            )
            waiting = (await self._stored(self.store.open))[0] if found else []
            places = {id: place for place, id in enumerate(waiting, start=1)}
            data = [
                self._public(job, places.get(job.id, 1) if job.state == "queued" else None)
                for job in found
            ]
            ids = [job.id for job in found]
            return {
                "object": "list", "data": data, "has_more": more,
                "first_id": next(iter(ids), None), "last_id": next(reversed(ids), None),
            }  # fmt: skip

        @routes.get("/v1/jobs/{id}", **one)
        async def job(http: Request) -> dict[str, Any]:
            """A job: its state (queued, running, done, failed, cancelled), its place in the queue,
            how much of it is done (0 to 1), and what was wrong."""
            found = await self._found(http)
            return self._public(found, await self._stored(self.store.position, found))

        @routes.get(
            "/v1/jobs/{id}/result",
            response_class=Response,
            responses=documentation.images() | documentation.refusals() | documentation.errors(409),
            **by_id,
        )
        async def result(http: Request) -> Response:
            """What the synchronous route would have answered: the same bytes and headers, or the
            same error. 409 until the job has ended, and where it was cancelled."""
            found = await self._found(http)
            if found.failure is not None:
                return found.failure.as_error().response()
            if found.state != "done":
                cancelled = found.state == "cancelled"
                code = "job_cancelled" if cancelled else "job_not_done"
                message = (
                    f"{found.id} is {found.state}: it has no result{'' if cancelled else ' yet'}"
                )
                headers = {"x-should-retry": "false"} if cancelled else {"Retry-After": "1"}
                raise ApiError(409, code, message, headers=headers)
            try:
                body = await self._stored(self.store.body, found)
            except NotFound:
                raise ApiError(404, "result_gone", f"{found.id}: its result is gone") from None
            http.state.model = found.model
            return Response(body, headers=found.headers)

        @routes.post("/v1/jobs/{id}/cancel", **one)
        async def cancel(http: Request) -> dict[str, Any]:
            """Let a job end: at once where it waits, else after its present pass. One that has
            ended stays as it is."""
            found = await self._found(http)
            try:
                found = await self._stored(self.store.cancel, found.id)
            except NotFound:
                raise unknown(found.id) from None
            self.runner.wake(found.id)
            return self._public(found, None)

        @routes.delete("/v1/jobs/{id}", status_code=204, **one)
        async def delete(http: Request) -> None:
            """Delete a job with its result; one that has not ended is cancelled."""
            found = await self._found(http)
            with suppress(NotFound):
                await self._stored(self.store.remove, found.id)
            self.runner.wake(found.id)

        return routes


def is_later(wanted: Asked) -> bool:
    """Whether this is to be a job. Raises ApiError."""
    if wanted.webhook is not None and not wanted.later:
        raise bad_value("webhook", wanted.webhook, "only with async=true")
    return wanted.later


async def model_of(backend: Backend, asked: str | None, request: Wanted) -> str | None:
    """The id of the model that is to compute; None where that is not known yet."""
    models = await backend.models()
    try:
        return choose(models, asked, *wanted_of(request)).id
    except ApiError as error:
        if error.code != "model_loading":  # for which a job can wait
            raise
    return None if asked is None else find(models, asked).id


async def accepted(
    http: Request,
    backend: Backend,
    jobs: Jobs | None,
    wanted: Asked,
    request: Wanted,
    form: str | None,
) -> Response:
    """202 with a job. Raises ApiError, also where this app has none."""
    if jobs is None:
        raise bad_value("async", True, "this server takes no jobs; leave it out")
    return await jobs.accept(http, backend, wanted, request, form)


def once_of(http: Request, wanted: Asked, request: Wanted, form: str | None) -> Once | None:
    """The key that came with a request, if one did. Raises ApiError."""
    if (key := http.headers.get(HEADER)) is None:
        return None
    asked = (
        request.operation.name, request.operation.model_dump_json(), asdict(request.output),
        form, wanted.model, wanted.webhook,
    )  # fmt: skip
    files = {f"file {name}": data for name, data in request.files.items()}
    return Once(request.caller.name, key, files | {"asked": repr(asked).encode()})


def owner_of(http: Request) -> str:
    """Whose jobs a client sees: those asked for with its key; empty where there are no keys."""
    return str(getattr(http.state, "key", ""))


def unknown(id: str) -> ApiError:
    return ApiError(404, "job_not_found", f"there is no job {id!r}, or none any more", "id")
