"""OpenAI's Images API and list of models, so that its official client works unchanged."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from serving.answers import asked, in_form
from serving.backend import Backend, find
from serving.documentation import answer, errors, parameters, refusals
from serving.errors import ApiError, bad_value
from serving.jobs.desk import Jobs, accepted, is_later
from serving.openai_requests import drawings, in_their_words, restorations, variations_of
from serving.openai_schemas import Edits, Generations, OpenAI, Prompted, Variations
from serving.requests import ModelInfo
from serving.requests import Request as Wanted
from serving.schemas import parsed
from serving.settings import Limits
from serving.streaming import streamed
from serving.uploads import EDITED_KEYS, IMAGE_KEYS, received

BESIDE = ("mask", "markup")


def router(backend: Backend, limits: Limits, jobs: Jobs | None = None) -> APIRouter:
    routes = APIRouter(tags=["OpenAI"])

    @routes.post(
        "/v1/images/generations",
        responses=answer(streams=True) | refusals(),
        openapi_extra=parameters(Generations, limits, forms=False),
    )
    async def generations(http: Request) -> Response:
        """Draw images of what the prompt says; of models that have classes, it names one. `seed` of
        each image is in `data[].seed`, its class in `data[].label`.

        As gif an image moves: from that of its seed to that of the next one, through those between.
        With `stream` its partial images are earlier guesses: from fewer steps, or from latents that
        are shorter.
        """
        wanted = parsed(Generations, await received(http, limits), limits)
        return await answered(http, wanted, await drawings(backend, wanted))

    @routes.post(
        "/v1/images/edits",
        responses=answer(streams=True) | refusals(),
        openapi_extra=parameters(Edits, limits, keys=EDITED_KEYS, beside=BESIDE),
    )
    async def edits(http: Request) -> Response:
        """Restore an image, or each of several, as the model was made to.

        For models that fill what is missing: `mask`, in which transparent, or white where it has no
        transparency, is what is to be filled; or `markup`, a transparent image on which that is
        painted over. Of several images both are about the first.

        As gif the image, or the last frame of a clip, moves on, by models that animate. With
        `stream` its partial images are itself, with the tiles that are done.
        """
        came = await received(http, limits, EDITED_KEYS, BESIDE)
        wanted = parsed(Edits, came, limits, also_known=(*EDITED_KEYS, *BESIDE))
        return await answered(http, wanted, await restorations(backend, wanted, came))

    @routes.post(
        "/v1/images/variations",
        responses=answer() | refusals(),
        openapi_extra=parameters(Variations, limits, keys=IMAGE_KEYS),
    )
    async def variations(http: Request) -> Response:
        """Draw images that are near one. `seed` of each image is in `data[].seed`.

        As gif, what may follow on it, by models that draw that.
        """
        came = await received(http, limits, IMAGE_KEYS)
        wanted = parsed(Variations, came, limits, also_known=IMAGE_KEYS)
        return await answered(http, wanted, await variations_of(backend, wanted, came))

    async def answered(http: Request, wanted: OpenAI, requests: Sequence[Wanted]) -> Response:
        try:
            if is_later(wanted):
                if len(requests) > 1:
                    raise bad_value("async", True, "only for one image at a time; leave it out")
                return await accepted(
                    http, backend, jobs, wanted, requests[0], wanted.response_format
                )
            if isinstance(wanted, Prompted) and wanted.stream:
                return await streamed(http, backend, wanted, requests, limits.timeout_s)
            made = await asked(http, backend, wanted.model, requests, limits.timeout_s)
        except ApiError as error:
            raise in_their_words(error, wanted) from None
        return in_form(made, wanted.response_format)

    @routes.get("/v1/models")
    async def models() -> dict[str, Any]:
        """Every served model: what it can do, and which version of it answers."""
        return {"object": "list", "data": [described(model) for model in await backend.models()]}

    @routes.get(
        "/v1/models/{id:path}",
        responses=errors(404),
        openapi_extra={
            "parameters": [
                {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
            ]
        },
    )
    async def model(http: Request) -> dict[str, Any]:
        """One served model, by its id or its NAME alone."""
        return described(find(await backend.models(), http.path_params["id"]))

    return routes


def described(info: ModelInfo) -> dict[str, Any]:
    """A model as OpenAI's clients read it, with more keys of our own."""
    values = dataclasses.asdict(info)
    values["created"] = int(datetime.fromisoformat(info.created).timestamp()) if info.created else 0
    values["metrics"] = {  # JSON has no NaN
        name: value if math.isfinite(value) else None
        for name, value in (info.metrics or {}).items()
    }
    return values | {"object": "model", "owned_by": "genimg"}
