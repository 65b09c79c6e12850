"""Our own routes: pleasant with curl, images out as they are."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from serving.answers import as_image, as_json, asked, seeds_from
from serving.backend import Backend
from serving.documentation import errors, images, parameters
from serving.requests import Restore, Sample
from serving.schemas import Denoising, Samples, parsed
from serving.settings import Limits
from serving.uploads import IMAGE_KEYS, received


def router(backend: Backend, limits: Limits) -> APIRouter:
    routes = APIRouter(tags=["native"])

    @routes.post(
        "/v1/images/sample",
        response_class=Response,
        responses=images() | errors(400, 404, 408, 413, 415, 429, 503, 504),
        openapi_extra=parameters(Samples, limits),
    )
    async def sample(http: Request) -> Response:
        """Draw images. The same seed gives the same image, whatever else is asked for with it.

        curl -X POST 'localhost:8000/v1/images/sample?n=16&seed=1' -o grid.png
        """
        wanted = parsed(Samples, await received(http, limits), limits)
        raw = wanted.response_format == "image"
        request = Sample(
            seeds=seeds_from(wanted.seed, wanted.n),
            truncation=wanted.truncation,
            output_format=wanted.output_format,
            compression=wanted.output_compression,
            grid=raw and wanted.n > 1,
            label=wanted.label,
        )
        answer = await asked(http, backend, wanted.model, request, limits.timeout_s)
        return as_image(answer) if raw else as_json(answer)

    @routes.post(
        "/v1/images/denoise",
        response_class=Response,
        responses=images() | errors(400, 404, 408, 413, 415, 429, 503, 504),
        openapi_extra=parameters(Denoising, limits, image=True),
    )
    async def denoise(http: Request) -> Response:
        """Remove noise from an image of any size, mode and depth; alpha passes through.

        curl -F image=@noisy.png localhost:8000/v1/images/denoise -o clean.png
        """
        came = await received(http, limits, takes_image=True)
        wanted = parsed(Denoising, came, limits, also_known=IMAGE_KEYS)
        assert came.image is not None
        request = Restore(
            image=came.image,
            sigma=wanted.sigma,
            strength=wanted.strength,
            tile=wanted.tile,
            output_format=wanted.output_format,
            compression=wanted.output_compression,
        )
        answer = await asked(http, backend, wanted.model, request, limits.timeout_s)
        return as_image(answer) if wanted.response_format == "image" else as_json(answer)

    return routes
