"""Our own routes, one for each operation: pleasant with curl, images out as they are."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from genimg.operations import OPERATIONS, Kind, Operation, Tiling, restoring
from serving import documentation
from serving.answers import as_image, as_json, as_values, asked
from serving.backend import Backend, choose, find
from serving.errors import bad_value
from serving.requests import Output
from serving.requests import Request as Wanted
from serving.schemas import parameters_of, parsed
from serving.settings import Limits
from serving.uploads import IMAGE_KEYS, received

SERVED = {  # those whose inputs can be sent
    name: operation
    for name, operation in OPERATIONS.items()
    if set(operation.takes.values()) <= {Kind.PICTURE}
}


def router(backend: Backend, limits: Limits) -> APIRouter:
    routes = APIRouter(tags=["native"])
    every: list[type[Operation]] = [*SERVED.values(), Tiling]
    for operation in every:
        routes.add_api_route(
            f"/v1/images/{operation.name}",
            handler(operation, backend, limits),
            methods=["POST"],
            name=operation.name,
            summary=operation.about(),
            description=described(operation),
            response_class=Response,
            responses=documentation.given(operation.gives)
            | documentation.errors(400, 404, 408, 413, 415, 429, 503, 504),
            openapi_extra=documentation.parameters(
                parameters_of(operation), limits, image=bool(operation.takes)
            ),
        )

    @routes.get("/v1/operations")
    async def operations() -> dict[str, Any]:
        """What can be done: each operation's options as JSON Schema, what it takes and gives."""
        return {
            "data": [
                {
                    "name": name,
                    "description": operation.about(),
                    "path": f"/v1/images/{name}",
                    "takes": operation.takes,
                    "gives": operation.gives,
                    "options": operation.model_json_schema(),
                }
                for name, operation in SERVED.items()
            ]
        }

    return routes


def handler(operation: type[Operation], backend: Backend, limits: Limits) -> Any:
    """The function of an operation's route."""
    schema = parameters_of(operation)
    options = tuple(operation.model_fields)
    takes_image = bool(operation.takes)
    known = IMAGE_KEYS if takes_image else ()

    async def handle(http: Request) -> Response:
        came = await received(http, limits, takes_image=takes_image)
        wanted: Any = parsed(schema, came, limits, also_known=known)
        raw = getattr(wanted, "response_format", None) == "image"
        chosen = operation if operation is not Tiling else await made_for(backend, wanted.model)
        several = operation.gives is Kind.PICTURES and getattr(wanted, "n", 1) > 1
        request = Wanted(
            chosen.model_construct(**{name: getattr(wanted, name) for name in options}),
            {} if came.image is None else {"image": came.image},
            Output(
                getattr(wanted, "output_format", None),
                getattr(wanted, "output_compression", None),
                grid=raw and several,
            ),
        )
        answer = await asked(http, backend, wanted.model, request, limits.timeout_s)
        if answer.values is not None:
            return as_values(answer)
        return as_image(answer) if raw else as_json(answer)

    return handle


async def made_for(backend: Backend, asked: str | None) -> type[Operation]:
    """The one restoring operation of a model (None: of the first that has any), or ApiError."""
    models = await backend.models()
    model = find(models, asked) if asked is not None else None
    model = model or next((each for each in models if restoring(each.capabilities)), None)
    able = restoring(model.capabilities) if model else []
    if not (model and able):
        choose(models, asked, Tiling.name)  # raises: none can
        raise AssertionError("a model can restore by some operation")
    if len(able) > 1:
        reason = f"this model can {' and '.join(able)}; post to /v1/images/{able[0]}, or the other"
        raise bad_value("model", model.id, reason)
    return OPERATIONS[able[0]]


def described(operation: type[Operation]) -> str:
    path = f"localhost:8000/v1/images/{operation.name}"
    if operation.takes:
        output = " -o result.png" if operation.gives is Kind.PICTURE else ""
        return f"curl -F image=@photo.png {path}{output}"
    return f"curl -X POST '{path}?seed=1' -o image"
