"""What is asked for in OpenAI's dialect, as requests to a model: one, or one for each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genimg.operations import Operation, Tiling
from genimg.operations.drawing import Interpolate, Sample, drawn_seed
from genimg.operations.exploring import Vary
from genimg.operations.moving import Animate
from serving.backend import Backend, choose, find, made_for
from serving.errors import ApiError, bad_value
from serving.openai_schemas import Edits, Generations, OpenAI, Variations
from serving.requests import ModelInfo, Output, Request
from serving.uploads import Received, beside_of

_ONLY_GIF = "only with output_format=gif; leave it out"
_NOT_GIF = "not with output_format=gif; leave it out"


async def drawings(backend: Backend, wanted: Generations) -> list[Request]:
    """Images of seeds; of gif, each on its way to the next: from a seed to the one after it.

    Raises ApiError, as all of these do.
    """
    refuse(wanted, () if wanted.moves else ("frame_count", "frame_duration_ms"), _ONLY_GIF)
    kind: type[Operation] = Interpolate if wanted.moves else Sample
    prompt = wanted.prompt.strip()
    info = None
    if wanted.moves or (prompt and not wanted.label):
        info = await able(backend, wanted, kind)
    taken = kind.model_fields.keys() & Generations.model_fields.keys()
    options: dict[str, Any] = {name: getattr(wanted, name) for name in taken}
    if prompt:
        options["label" if info and info.classes and not wanted.label else "text"] = prompt
    if not wanted.moves:
        return [Request(kind.model_validate(options), output=output_of(wanted))]
    options["frames"] = wanted.frame_count
    moving = kind.model_validate(options)
    return [Request(_of_seed(moving, seed), output=output_of(wanted)) for seed in seeds_of(wanted)]


async def restorations(backend: Backend, wanted: Edits, came: Received) -> list[Request]:
    """Images given back better; of gif, what follows on them."""
    if wanted.moves:
        refuse(wanted, Tiling.model_fields, _NOT_GIF)
        if came.beside:
            raise ApiError(400, "invalid_value", f"mask: {_NOT_GIF}", "mask")
        return await animations(backend, wanted, came)
    refuse(wanted, ("frame_count", "frame_duration_ms", "seed"), _ONLY_GIF)
    if wanted.n != 1:
        raise bad_value("n", wanted.n, "what models restore does not vary; leave it out")
    operation = await _restoring(backend, wanted)
    if came.beside and not beside_of(operation):
        reason = f"this model can {operation.name}, which takes none; leave it out"
        raise ApiError(400, "invalid_value", f"mask: {reason}", "mask")
    options = {name: getattr(wanted, name) for name in Tiling.model_fields}
    assert came.file is not None, "it is needed"
    files = {"image": came.file, **came.beside}
    return [Request(operation.model_validate(options), files, output_of(wanted))]


async def variations_of(backend: Backend, wanted: Variations, came: Received) -> list[Request]:
    """Images near one; of gif, what may follow on it."""
    if wanted.moves:
        refuse(wanted, ("strength",), _NOT_GIF)
        return await animations(backend, wanted, came)
    refuse(wanted, ("frame_count", "frame_duration_ms"), _ONLY_GIF)
    options = {name: getattr(wanted, name) for name in ("n", "seed", "strength")}
    assert came.file is not None, "it is needed"
    return [Request(Vary.model_validate(options), {"image": came.file}, output_of(wanted))]


async def animations(backend: Backend, wanted: Edits | Variations, came: Received) -> list[Request]:
    """Images that move: the image, or the last of a clip, and the frames that follow; several are
    futures of it, of models that draw them."""
    info = await able(backend, wanted, Animate)
    draws = "seed" in info.honours.get(Animate.name, ())
    if not draws and wanted.n > 1:
        raise bad_value("n", wanted.n, "this model knows one future; leave it out")
    if not draws and wanted.seed >= 0:
        raise bad_value("seed", wanted.seed, "this model draws nothing; leave it out")
    assert came.file is not None, "it is needed"
    moving = Animate(frames=wanted.frame_count - 1)
    return [
        Request(_of_seed(moving, seed if draws else None), {"image": came.file}, output_of(wanted))
        for seed in seeds_of(wanted)
    ]


def seeds_of(wanted: Generations | Edits | Variations) -> range:
    """Of each image, where each is a request of its own."""
    first = wanted.seed if wanted.seed >= 0 else drawn_seed()
    return range(first, first + wanted.n)


def _of_seed(operation: Operation, seed: int | None) -> Operation:
    return operation.model_copy(update={"seed": seed})


def output_of(wanted: OpenAI) -> Output:
    return Output(
        wanted.output_format,
        wanted.output_compression,
        size=None if wanted.size == "auto" else wanted.size,
        frames=wanted.frame_count if wanted.moves else None,
        frame_ms=wanted.frame_duration_ms if wanted.moves else None,
    )


async def able(backend: Backend, wanted: OpenAI, operation: type[Operation]) -> ModelInfo:
    """The model that answers, which can do an operation. Of gif its format is to blame where none
    can."""
    try:
        return choose(await backend.models(), wanted.model, operation.name)
    except ApiError as error:
        if wanted.moves and error.status == 400:
            raise bad_value("output_format", wanted.output_format, error.message) from None
        raise


async def _restoring(backend: Backend, wanted: Edits) -> type[Operation]:
    try:
        return await made_for(backend, wanted.model)
    except ApiError as error:
        if not wanted.model or error.status != 400:
            raise
        if not find(await backend.models(), wanted.model).can(Animate.name):
            raise
        reason = "this model makes moving pictures; give gif"
        raise bad_value("output_format", wanted.output_format, reason) from None


def refuse(wanted: OpenAI, names: Sequence[str] | Any, reason: str) -> None:
    """ApiError for those parameters of some names that were given."""
    for name in names:
        if name in wanted.model_fields_set:
            raise bad_value(name, getattr(wanted, name), reason)


def in_their_words(error: ApiError, wanted: OpenAI) -> ApiError:
    """An error about what a parameter has become, as one about the parameter."""
    prompt = getattr(wanted, "prompt", "")
    if error.param == "frames":
        message = error.message.removeprefix("frames=").partition(": ")[2]
        return bad_value("frame_count", wanted.frame_count, message)
    in_words = ("text",) if getattr(wanted, "label", None) else ("text", "label")
    if prompt and error.param in in_words:
        reason = error.message.removeprefix(f"{error.param}={prompt.strip()!r}: ")
        reason = reason.replace("text; leave it out", "prompt; leave it empty")
        return bad_value("prompt", prompt, reason)
    return error
