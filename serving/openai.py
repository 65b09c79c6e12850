"""OpenAI's Images API and list of models, so that its official client works unchanged."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from genimg.operations import Operation, Tiling
from genimg.operations.drawing import Sample
from genimg.operations.exploring import Vary
from serving.answers import asked, in_form
from serving.backend import Backend, choose, find, made_for
from serving.documentation import answer, errors, parameters, refusals
from serving.errors import ApiError, bad_value
from serving.jobs.desk import Jobs, accepted, is_later
from serving.requests import ModelInfo, Output
from serving.requests import Request as Wanted
from serving.schemas import Edits, Generations, OpenAI, Variations, parsed
from serving.settings import Limits
from serving.uploads import IMAGE_KEYS, beside_of, received

MASK = ("mask",)
EDITED_KEYS = (*IMAGE_KEYS, "image[]")  # as the client calls several


def router(backend: Backend, limits: Limits, jobs: Jobs | None = None) -> APIRouter:
    routes = APIRouter(tags=["OpenAI"])

    @routes.post(
        "/v1/images/generations",
        responses=answer() | refusals(),
        openapi_extra=parameters(Generations, limits, forms=False),
    )
    async def generations(http: Request) -> Response:
        """Draw images of what the prompt says; of models that have classes, it names one. `seed` of
        each image is in `data[].seed`, its class in `data[].label`."""
        wanted = parsed(Generations, await received(http, limits), limits)
        prompt = wanted.prompt.strip()
        by_class = prompt and not wanted.label and await has_classes(backend, wanted.model)
        as_prompt = "label" if by_class else "text"
        options = {name: getattr(wanted, name) for name in Sample.model_fields if name != "text"}
        operation = Sample.model_validate(options | ({as_prompt: prompt} if prompt else {}))
        try:
            return await answered(http, wanted, operation, {})
        except ApiError as error:
            if prompt and error.param == as_prompt:  # as this dialect calls it
                reason = error.message.removeprefix(f"{as_prompt}={prompt!r}: ")
                reason = reason.replace("text; leave it out", "prompt; leave it empty")
                raise bad_value("prompt", wanted.prompt, reason) from None
            raise

    @routes.post(
        "/v1/images/edits",
        responses=answer() | refusals(),
        openapi_extra=parameters(Edits, limits, keys=EDITED_KEYS, beside=MASK),
    )
    async def edits(http: Request) -> Response:
        """Restore an image as the model was made to. `mask`, for models that fill what is missing:
        transparent, or white where it has no transparency, is what is to be filled."""
        came = await received(http, limits, EDITED_KEYS, MASK)
        wanted = parsed(Edits, came, limits, also_known=(*EDITED_KEYS, *MASK))
        operation = await made_for(backend, wanted.model)
        if came.beside and not beside_of(operation):
            reason = f"this model can {operation.name}, which takes none; leave it out"
            raise ApiError(400, "invalid_value", f"mask: {reason}", "mask")
        options = {name: getattr(wanted, name) for name in Tiling.model_fields}
        files = {"image": came.file, **came.beside}
        return await answered(http, wanted, operation.model_validate(options), files)

    @routes.post(
        "/v1/images/variations",
        responses=answer() | refusals(),
        openapi_extra=parameters(Variations, limits, keys=IMAGE_KEYS),
    )
    async def variations(http: Request) -> Response:
        """Draw images that are near one. `seed` of each image is in `data[].seed`."""
        came = await received(http, limits, IMAGE_KEYS)
        wanted = parsed(Variations, came, limits, also_known=IMAGE_KEYS)
        options = {name: getattr(wanted, name) for name in ("n", "seed", "strength")}
        return await answered(http, wanted, Vary.model_validate(options), {"image": came.file})

    async def answered(
        http: Request, wanted: OpenAI, operation: Operation, files: Mapping[str, bytes | None]
    ) -> Response:
        request = Wanted(
            operation,
            {name: data for name, data in files.items() if data is not None},
            Output(
                getattr(wanted, "output_format", "png"),
                getattr(wanted, "output_compression", None),
                size=None if wanted.size == "auto" else wanted.size,
            ),
        )
        if is_later(wanted):
            return await accepted(http, backend, jobs, wanted, request, wanted.response_format)
        made = await asked(http, backend, wanted.model, request, limits.timeout_s)
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


async def has_classes(backend: Backend, model: str | None) -> bool:
    """Whether the model that draws can be told a class. Raises ApiError."""
    return bool(choose(await backend.models(), model, Sample.name).classes)


def described(info: ModelInfo) -> dict[str, Any]:
    """A model as OpenAI's clients read it, with more keys of our own."""
    values = dataclasses.asdict(info)
    values["created"] = int(datetime.fromisoformat(info.created).timestamp()) if info.created else 0
    values["metrics"] = {  # JSON has no NaN
        name: value if math.isfinite(value) else None
        for name, value in (info.metrics or {}).items()
    }
    return values | {"object": "model", "owned_by": "genimg"}
