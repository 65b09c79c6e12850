"""Asking the backend on behalf of a client, and what of its answer goes into headers and JSON."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import time
from collections.abc import Awaitable, Sequence
from itertools import chain
from typing import Any, TypeVar

from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from serving.backend import Backend
from serving.errors import ApiError
from serving.formats import ARRAY, MEDIA_TYPES
from serving.lots import LAST, of_one_lot
from serving.requests import Answer, Request, Timings

T = TypeVar("T")

_SOON_S = 0.1  # up to which nobody looks whether the client waits: most answers take no longer
EXPOSED = (  # to scripts of other sites
    "X-Model-Id", "X-Model-Version", "X-Precision", "X-Seed", "X-PSNR",
    "Server-Timing",
)  # fmt: skip


async def asked(
    http: HttpRequest,
    backend: Backend,
    model: str | None,
    requests: Sequence[Request],
    timeout_s: float,
) -> Answer:
    """The backend's answer, for as long as the client waits for it; of several requests one.

    Raises ApiError: 504 after `timeout_s`, or what the backend says. What has not started when
    time is up or the client has gone is not computed any more.
    """
    answer = await waited(http, _all(backend, model, requests), timeout_s)
    http.state.model, http.state.answer = answer.model, answer
    return answer


async def _all(backend: Backend, model: str | None, requests: Sequence[Request]) -> Answer:
    if len(requests) == 1:
        return await backend.call(model, requests[0])
    requests = of_one_lot(requests)
    while True:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(backend.call(model, request)) for request in requests]
        except* ApiError as errors:
            raise errors.exceptions[0] from None
        answers = [task.result() for task in tasks]
        if len({(answer.model, answer.version) for answer in answers}) == 1:
            return joined(answers)
        # one took over meanwhile, or a canary has failed on some of them
        requests = of_one_lot(requests, LAST)


def joined(answers: Sequence[Answer]) -> Answer:
    """One answer with the images of several."""
    sizes = {answer.size for answer in answers}
    timings = [dataclasses.astuple(answer.timings) for answer in answers]
    return dataclasses.replace(
        answers[0],
        images=tuple(chain(*(each.images for each in answers))),
        size=sizes.pop() if len(sizes) == 1 else "",
        seeds=tuple(chain(*(each.seeds[: len(each.images)] for each in answers))),
        labels=tuple(chain(*(each.labels[: len(each.images)] for each in answers))),
        timings=Timings(*map(max, zip(*timings, strict=True))),
    )


async def waited(
    http: HttpRequest, work: Awaitable[T], timeout_s: float, since: float | None = None
) -> T:
    """What comes of work, for as long as the client waits for it; else it is cancelled.

    Raises ApiError 504 after `timeout_s` since a time of the event loop (None: now), and
    ClientDisconnect.
    """
    this, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert this is not None
    began = loop.time() if since is None else since
    limit = asyncio.timeout(None)
    gone: asyncio.Future[None] | None = None
    left = False

    def leave(watching: asyncio.Future[None]) -> None:
        nonlocal left  # unless the answer came at the same time, behind which others are awaited
        if watching is gone and not watching.cancelled() and watching.exception() is None:
            left = True
            this.cancel()

    def look() -> None:
        nonlocal gone
        limit.reschedule(began + timeout_s)
        gone = asyncio.ensure_future(_gone(http))
        gone.add_done_callback(leave)

    try:
        async with limit:
            looking = loop.call_at(began + min(timeout_s, _SOON_S), look)
            try:
                return await work
            finally:
                looking.cancel()
    except TimeoutError:
        if not limit.expired():
            raise
        message = f"no answer within {timeout_s:g} s"
        raise ApiError(504, "timeout", message, headers={"x-should-retry": "false"}) from None
    except asyncio.CancelledError:
        if not left:
            raise
        this.uncancel()
        raise ClientDisconnect from None
    finally:
        if gone:
            gone.cancel()
            gone = None


async def _gone(http: HttpRequest) -> None:
    """Ends when the client closes the connection. The body must have been read."""
    while (await http.receive())["type"] != "http.disconnect":
        pass


def headers_of(answer: Answer) -> dict[str, str]:
    timings = answer.timings
    headers = {
        "X-Model-Id": answer.model,
        "X-Model-Version": str(answer.version),
        "X-Precision": answer.precision,
        "Server-Timing": ", ".join(
            f"{name};dur={getattr(timings, name):.1f}" for name in ("queue", "compute", "encode")
        ),
        "Access-Control-Expose-Headers": ", ".join(EXPOSED),
    }
    if answer.seeds:
        headers["X-Seed"] = str(answer.seeds[0])
    if answer.psnr:
        headers["X-PSNR"] = f"{answer.psnr[0]:.2f}"
    return headers


def in_form(answer: Answer, form: str | None) -> Response:
    """As `response_format` asks for it; None: as JSON, of what has no choice."""
    if answer.values is not None and not answer.images:
        return as_array(answer) if form == "npy" else as_values(answer)
    return as_image(answer) if form == "image" else as_json(answer, form or "b64_json")


def as_image(answer: Answer) -> Response:
    """The one image of an answer, as it is."""
    (image,) = answer.images
    return Response(image, media_type=MEDIA_TYPES[answer.format], headers=headers_of(answer))


def as_values(answer: Answer) -> Response:
    """JSON with what an operation says."""
    content = {"data": answer.values, "model": answer.model, "version": answer.version}
    if answer.psnr:
        content |= {"psnr": answer.psnr, "plain_psnr": answer.plain_psnr}
    return JSONResponse(content, headers=headers_of(answer))


def as_array(answer: Answer) -> Response:
    """A .npy file, float32 [N, D]."""
    import numpy as np  # which an app without engines does without

    out = io.BytesIO()
    np.save(out, np.array(answer.values, np.float32))
    return Response(out.getvalue(), media_type=ARRAY, headers=headers_of(answer))


def as_json(answer: Answer, response_format: str = "b64_json") -> Response:
    """OpenAI's JSON: each image in base64 or (`url`) as a data URL, with its seed and label if it
    has them."""
    data: list[dict[str, Any]] = []
    seeds = answer.seeds if len(answer.images) in (1, len(answer.seeds)) else ()
    for i, image in enumerate(answer.images):
        text = base64.b64encode(image).decode()
        if response_format == "url":
            entry: dict[str, Any] = {"url": f"data:{MEDIA_TYPES[answer.format]};base64,{text}"}
        else:
            entry = {"b64_json": text}
        entry |= {"seed": seeds[i]} if seeds else {}
        data.append(entry | ({"label": answer.labels[i]} if answer.labels else {}))
    content = {
        "created": int(time.time()),
        "data": data,
        "model": answer.model,
        "version": answer.version,
        "size": answer.size,
        "output_format": answer.format,
    }
    content |= {"notes": answer.notes} if answer.notes else {}
    return JSONResponse(content, headers=headers_of(answer))
