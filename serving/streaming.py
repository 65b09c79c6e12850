"""Images while they come about: server-sent events, as OpenAI's client reads them."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi.responses import Response, StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.types import Receive, Scope, Send

from serving.answers import waited
from serving.backend import Backend
from serving.errors import ApiError, failed
from serving.lots import of_one_lot
from serving.openai_requests import answering, sketches
from serving.openai_schemas import Edits, Prompted
from serving.requests import Answer, ModelInfo, Partial, Request

logger = logging.getLogger(__name__)

_AS_EVENTS_SAY = {"standard": "medium", "hd": "high"}  # qualities that they have no more
_NOTHING_COUNTED = {
    "input_tokens": 0, "output_tokens": 0, "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}  # fmt: skip

Events = AsyncGenerator[bytes, None]


async def streamed(
    http: HttpRequest,
    backend: Backend,
    wanted: Prompted,
    requests: Sequence[Request],
    timeout_s: float,
) -> Response:
    """Events: of each image the partial ones, and it. Raises ApiError for what goes wrong before
    the first of them; what does later is an event."""
    info = await answering(backend, wanted, requests[0])
    events = _in_time(http, _events(backend, info, wanted, of_one_lot(requests)), timeout_s)
    first = await anext(events)
    http.state.model = info.id
    headers = {
        "X-Model-Id": info.id,
        "Cache-Control": "no-cache",
        "Access-Control-Expose-Headers": "X-Model-Id",
    }
    return _Stream(_with_errors(first, events), headers=headers)


class _Stream(StreamingResponse):
    """Ends where its events do, which find out by themselves that the client has gone."""

    media_type = "text/event-stream"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.stream_response(send)
        except ClientDisconnect:
            pass
        finally:
            assert isinstance(self.body_iterator, AsyncGenerator)
            await self.body_iterator.aclose()


async def _with_errors(first: bytes, events: Events) -> Events:
    try:
        yield first
        async for event in events:
            yield event
    except ApiError as error:
        yield _event("error", error.body())
    except ClientDisconnect:
        raise
    except Exception:
        logger.exception("a stream is cut off")
        yield _event("error", failed().body())
    finally:
        await events.aclose()


async def _in_time(http: HttpRequest, events: Events, timeout_s: float) -> Events:
    """For as long as the client listens, and no longer than `timeout_s` in all."""
    began = asyncio.get_running_loop().time()
    try:
        while event := await waited(http, anext(events, b""), timeout_s, began):
            yield event
    finally:
        await events.aclose()


async def _events(
    backend: Backend, info: ModelInfo, wanted: Prompted, requests: Sequence[Request]
) -> Events:
    kind = "image_edit" if isinstance(wanted, Edits) else "image_generation"
    for request in requests:
        index = 0
        async with aclosing(_pieces(backend, info, request, wanted.partial_images)) as pieces:
            async for made in pieces:
                about = _about(made, wanted)
                if isinstance(made, Partial):
                    yield _event(f"{kind}.partial_image", about | {"partial_image_index": index})
                    index += 1
                else:
                    yield _event(f"{kind}.completed", about)


def _about(made: Partial | Answer, wanted: Prompted) -> dict[str, Any]:
    """What an event says of an image; of one that is done with keys of our own."""
    image = made.image if isinstance(made, Partial) else made.images[0]
    about: dict[str, Any] = {
        "b64_json": base64.b64encode(image).decode(),
        "created_at": int(time.time()),
        "size": made.size,
        "quality": _AS_EVENTS_SAY.get(wanted.quality, wanted.quality),
        "background": wanted.background,
        "output_format": made.format,
    }
    if isinstance(made, Answer):
        about |= {"usage": _NOTHING_COUNTED, "model": made.model, "version": made.version}
        about |= {"seed": made.seeds[0]} if made.seeds else {}
        about |= {"label": made.labels[0]} if made.labels else {}
    return about


async def _pieces(
    backend: Backend, info: ModelInfo, request: Request, partials: int
) -> AsyncGenerator[Partial | Answer, None]:
    """An image, after partial ones of it: sketches of what is drawn, or what is done of others."""
    rough = sketches(request, info, partials)
    for sketch in rough:
        made = await backend.call(info.id, sketch)
        yield Partial(made.images[0], made.format, made.size)
    if rough or not partials:
        yield await backend.call(info.id, request)
        return
    loop, coming = asyncio.get_running_loop(), asyncio.Queue[Partial | None]()

    def show(partial: Partial) -> None:  # in any thread
        loop.call_soon_threadsafe(coming.put_nowait, partial)

    call = asyncio.create_task(backend.call(info.id, request, show=show))
    call.add_done_callback(lambda _: coming.put_nowait(None))
    try:
        shown = 0
        while partial := await coming.get():
            if shown < partials:  # or a lost replica's are shown anew
                yield partial
                shown += 1
        yield await call
    finally:
        call.cancel()


def _event(kind: str, content: dict[str, Any]) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **content})}\n\n".encode()
