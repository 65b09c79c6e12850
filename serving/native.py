"""Our own routes, one for each operation: pleasant with curl, images out as they are."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from genimg.operations import OPERATIONS, Kind, Operation, Tiling
from serving import documentation
from serving.answers import asked, in_form
from serving.backend import Backend, made_for
from serving.errors import bad_value
from serving.jobs.desk import Jobs, accepted, is_later
from serving.requests import Output
from serving.requests import Request as Wanted
from serving.schemas import parameters_of, parsed
from serving.settings import Limits
from serving.uploads import beside_of, keys_of, received


def router(backend: Backend, limits: Limits, jobs: Jobs | None = None) -> APIRouter:
    routes = APIRouter(tags=["native"])
    for operation in OPERATIONS.values():
        routes.add_api_route(
            f"/v1/images/{operation.name}",
            handler(operation, backend, limits, jobs),
            methods=["POST"],
            name=operation.name,
            summary=operation.about(),
            description=described(operation),
            response_class=Response,
            responses=documentation.given(operation)
            | documentation.accepted()
            | documentation.refusals(),
            openapi_extra=documentation.parameters(
                parameters_of(operation),
                limits,
                keys=keys_of(operation),
                beside=beside_of(operation),
                needed=operation.needs(),
                also_needed=operation.must_have(),
            ),
        )

    @routes.get("/v1/operations")
    async def operations() -> dict[str, Any]:
        """What can be done: each operation's options as JSON Schema, what it takes and gives, the
        options (`conditions`) that only some models honour, and the most of some that are taken;
        what only models read that can something else, too (`reads`), and what to do `instead`."""
        return {
            "data": [
                {
                    "name": operation.name,
                    "description": operation.about(),
                    "path": f"/v1/images/{operation.name}",
                    "takes": operation.takes,
                    "optional": sorted(operation.optional),
                    "gives": operation.gives,
                    "shows": operation.shows,
                    "reads": operation.reads,
                    "instead": operation.instead,
                    "conditions": sorted(operation.conditions),
                    "options": operation.model_json_schema(),
                    "limits": {
                        key: getattr(limits, limit)
                        for key, limit in parameters_of(operation).limited.items()
                    },
                }
                for operation in OPERATIONS.values()
            ]
        }

    return routes


def handler(
    operation: type[Operation], backend: Backend, limits: Limits, jobs: Jobs | None = None
) -> Any:
    """The function of an operation's route."""
    schema = parameters_of(operation)
    options = tuple(operation.model_fields)
    keys, beside = keys_of(operation), beside_of(operation)

    async def handle(http: Request) -> Response:
        came = await received(http, limits, keys, beside, operation.needs())
        wanted: Any = parsed(schema, came, limits, also_known=(*keys, *beside))
        form = getattr(wanted, "response_format", None)
        raw = form == "image"
        for key in ("output_format", "output_compression") if form == "json" else ():
            if (value := getattr(wanted, key, None)) is not None:
                raise bad_value(key, value, "only with response_format=image or b64_json")
        if form == "frames" and wanted.output_format == "gif":
            raise bad_value("output_format", "gif", "of frames give png, jpeg or webp")
        chosen = operation if operation is not Tiling else await made_for(backend, wanted.model)
        request = Wanted(
            chosen.model_construct(**{name: getattr(wanted, name) for name in options}),
            {**({} if came.file is None else {keys[0]: came.file}), **came.beside},
            Output(
                getattr(wanted, "output_format", None),
                getattr(wanted, "output_compression", None),
                grid=raw and operation.gives is Kind.PICTURES,
                shown=operation.shows and form != "json",
                each=form == "frames",
            ),
        )
        if is_later(wanted):
            return await accepted(http, backend, jobs, wanted, request, form)
        return in_form(await asked(http, backend, wanted.model, [request], limits.timeout_s), form)

    return handle


def described(operation: type[Operation]) -> str:
    path = f"localhost:8000/v1/images/{operation.name}"
    if operation.needs() and Kind.LATENTS in operation.takes.values():
        return f"curl -F latents=@latents.npy {path} -o image"
    if Kind.FRAMES in operation.takes.values():
        return f"curl -F image=@clip.gif {path} -o longer.webp"
    if Kind.PICTURE in operation.takes.values():
        output = " -o result.png" if operation.gives is Kind.PICTURE else ""
        beside = "".join(f" -F {name}=@{name}.png" for name in operation.must_have())
        return f"curl -F image=@photo.png{beside} {path}{output}"
    return f"curl -X POST '{path}?seed=1' -o image"
