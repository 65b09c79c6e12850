"""What is asked for in OpenAI's dialect, as requests to a model: one, or one for each image."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from genimg.operations import Operation, Tiling
from genimg.operations.drawing import MOST_STEPS, Interpolate, Sample, drawn_seed
from genimg.operations.exploring import Vary
from genimg.operations.moving import Animate
from genimg.operations.reading import Encode
from genimg.operations.restoring import Inpaint
from serving.backend import Backend, choose, find, made_for, wanted_of
from serving.errors import ApiError, bad_value
from serving.openai_schemas import (
    ENSEMBLES,
    STEPS,
    Edits,
    Generations,
    OpenAI,
    Prompted,
    Quality,
    Variations,
)
from serving.requests import ModelInfo, Output, Request
from serving.uploads import Received

_ONLY_GIF = "only with output_format=gif; leave it out"
_NOT_GIF = "not with output_format=gif; leave it out"


async def drawings(backend: Backend, wanted: Generations) -> list[Request]:
    """Images of seeds; of gif, each on its way to the next: from a seed to the one after it.

    Raises ApiError, as all of these do.
    """
    refuse_stream(wanted)
    refuse(wanted, () if wanted.moves else ("frame_count", "frame_duration_ms"), _ONLY_GIF)
    if wanted.background == "transparent":
        raise bad_value("background", wanted.background, "no model draws transparent images")
    kind: type[Operation] = Interpolate if wanted.moves else Sample
    prompt = wanted.prompt.strip()
    taken = kind.model_fields.keys() & Generations.model_fields.keys()
    options: dict[str, Any] = {name: getattr(wanted, name) for name in taken}
    if prompt:
        options["text" if wanted.label else await _said_by(prompt, backend, wanted, kind)] = prompt
    info = None
    if wanted.moves or wanted.quality in STEPS:
        info = await able(backend, wanted, kind, kind.model_validate(options).told())
    if info and wanted.quality in STEPS and wanted.steps is None and _in_steps(info):
        options["steps"] = steps_of(wanted.quality, info)
    if not (wanted.moves or wanted.stream):
        return [Request(kind.model_validate(options), output=output_of(wanted))]
    options |= {"frames": wanted.frame_count} if wanted.moves else {"n": 1}
    one = kind.model_validate(options)
    return [Request(_of_seed(one, seed), output=output_of(wanted)) for seed in seeds_of(wanted)]


async def _said_by(
    prompt: str, backend: Backend, wanted: Generations, operation: type[Operation]
) -> str:
    """The option that a prompt is: `label`, of models that draw by class, or `text`. Where no model
    is named it is that of the first that has such a class, or takes texts."""
    first = await able(backend, wanted, operation)
    parts = {prompt, *(part.partition("=")[0].strip() for part in prompt.split(","))}
    for each in await backend.models() if wanted.model is None else ():
        if each.can(operation.name) and not parts.isdisjoint(each.classes):
            return "label"
        if each.honours_all(operation.name, ["text"]):
            return "text"
    return "label" if first.classes else "text"


def sketches(request: Request, info: ModelInfo, count: int) -> list[Request]:
    """Earlier guesses of an image that is drawn, the roughest first: of models that draw in steps
    from the same noise in ever more of them (in one: what is expected of noise alone), of others
    from ever longer latents, the first of them zero: the typical image. Of other images none."""
    one = request.operation
    if not isinstance(one, Sample):
        return []
    updates: list[dict[str, Any]] = []
    if _in_steps(info):
        steps = one.steps or info.steps
        fewer = {steps >> times for times in range(1, count + 1)} - {0}
        updates = [{"steps": each} for each in sorted(fewer)]
    elif one.truncation:
        updates = [{"truncation": one.truncation * i / count} for i in range(count)]
    return [replace(request, operation=one.model_copy(update=each)) for each in updates]


async def answering(backend: Backend, wanted: Prompted, request: Request) -> ModelInfo:
    """The model whose images are streamed."""
    return choose(await backend.models(), wanted.model, *wanted_of(request))


def refuse_stream(wanted: Prompted) -> None:
    """ApiError for what no stream has, or nothing but a stream."""
    if not wanted.stream:
        if wanted.partial_images:
            raise bad_value("partial_images", wanted.partial_images, "only with stream=true")
    elif wanted.moves:
        raise bad_value("stream", True, "moving pictures come whole; leave it out")
    elif wanted.later:
        raise bad_value("stream", True, "a job has a result instead; leave it out")
    elif wanted.response_format == "url":
        raise bad_value("response_format", "url", "a stream has base64; leave it out")


async def restorations(backend: Backend, wanted: Edits, came: Received) -> list[Request]:
    """Images given back better; of gif, what follows on them. What goes with an image goes with the
    first of several, the others are done by themselves."""
    refuse_stream(wanted)
    for name in came.beside if wanted.moves else ():
        raise ApiError(400, "invalid_value", f"{name}: {_NOT_GIF}", name)
    if len(came.beside) > 1:
        reason = "a mask says already what is to be filled; leave one of them out"
        raise ApiError(400, "invalid_value", f"markup: {reason}", "markup")
    if wanted.moves:
        return await animations(backend, wanted, came)
    refuse(wanted, ("frame_count", "frame_duration_ms", "seed"), _ONLY_GIF)
    if wanted.n != 1:
        raise bad_value("n", wanted.n, "what models restore does not vary; leave it out")
    operation = await _restoring(backend, wanted, came)
    for name in came.beside if "mask" not in operation.takes else ():
        reason = f"this model can {operation.name}, which takes none; leave it out"
        raise ApiError(400, "invalid_value", f"{name}: {reason}", name)
    options = {name: getattr(wanted, name) for name in Tiling.model_fields}
    if "ensemble" not in wanted.model_fields_set:
        options["ensemble"] = wanted.quality in ENSEMBLES
    restoring = operation.model_validate(options)
    files: list[dict[str, bytes]] = [{"image": image} for image in _images(came)]
    files[0] |= came.beside
    return [Request(restoring, each, output_of(wanted)) for each in files]


async def variations_of(backend: Backend, wanted: Variations, came: Received) -> list[Request]:
    """Images near one; of gif, what may follow on it."""
    if wanted.moves:
        return await animations(backend, wanted, came)
    refuse(wanted, ("frame_count", "frame_duration_ms"), _ONLY_GIF)
    await able(backend, wanted, Encode)  # no latents, nor a seed, can be given in its place here
    options = {name: getattr(wanted, name) for name in ("n", "seed", "strength")}
    files = {"image": _images(came)[0]}
    return [Request(Vary.model_validate(options), files, output_of(wanted))]


async def animations(backend: Backend, wanted: Edits | Variations, came: Received) -> list[Request]:
    """Images that move: the image, or the last of a clip, and the frames that follow; several are
    futures of it, of models that draw them."""
    info = await able(backend, wanted, Animate)
    refuse(wanted, Tiling.model_fields, _NOT_GIF)
    draws = "seed" in info.honours.get(Animate.name, ())
    if not draws and wanted.n > 1:
        raise bad_value("n", wanted.n, "this model knows one future; leave it out")
    if not draws and wanted.seed >= 0:
        raise bad_value("seed", wanted.seed, "this model draws nothing; leave it out")
    if getattr(wanted, "background", "") == "transparent":
        raise bad_value("background", "transparent", "what moves is opaque; leave it out")
    moving, several = Animate(frames=wanted.frame_count - 1), _images(came)
    if wanted.n > 1 and len(several) > 1:
        raise bad_value("n", wanted.n, "several images are given; leave it out")
    seeds = seeds_of(wanted, len(several))
    return [
        Request(_of_seed(moving, seed if draws else None), {"image": image}, output_of(wanted))
        for seed, image in zip(seeds, several * wanted.n, strict=True)
    ]


def steps_of(quality: Quality, info: ModelInfo) -> int:
    """From noise to image, of a model that draws in steps."""
    return min(max(round(STEPS.get(quality, 1) * info.steps), 1), MOST_STEPS)


def _in_steps(info: ModelInfo) -> bool:
    return "steps" in info.honours.get(Sample.name, ())


def seeds_of(wanted: Generations | Edits | Variations, images: int = 1) -> range:
    """Of each image, where each is a request of its own; images: that came."""
    first = wanted.seed if wanted.seed >= 0 else drawn_seed()
    return range(first, first + wanted.n * images)


def _images(came: Received) -> list[bytes]:
    assert came.file is not None, "it is needed"
    return [came.file, *came.more]


def _of_seed(operation: Operation, seed: int | None) -> Operation:
    return operation.model_copy(update={"seed": seed})


def output_of(wanted: OpenAI) -> Output:
    return Output(
        wanted.output_format,
        wanted.output_compression,
        size=None if wanted.size == "auto" else wanted.size,
        background=getattr(wanted, "background", "auto"),
        partials=getattr(wanted, "partial_images", 0),
        frames=wanted.frame_count if wanted.moves else None,
        frame_ms=wanted.frame_duration_ms if wanted.moves else None,
    )


async def able(
    backend: Backend, wanted: OpenAI, operation: type[Operation], told: Collection[str] = ()
) -> ModelInfo:
    """The model that answers, which can do an operation. Of gif its format is to blame where none
    can. told: options that it should honour"""
    try:
        models = await backend.models()
        return choose(models, wanted.model, operation.name, operation=operation, told=told)
    except ApiError as error:
        if wanted.moves and error.status == 400:
            raise bad_value("output_format", wanted.output_format, error.message) from None
        raise


async def _restoring(backend: Backend, wanted: Edits, came: Received) -> type[Operation]:
    """What the model does that answers; where none is named, to an image with a mask, one that
    fills."""
    try:
        if wanted.model is None and came.beside:
            choose(await backend.models(), None, Inpaint.name)
            return Inpaint
        return await made_for(backend, wanted.model)
    except ApiError as error:
        if error.status != 400:
            raise
        for name in came.beside if wanted.model is None else ():
            raise ApiError(400, "invalid_value", f"{name}: {error.message}", name) from None
        if wanted.model and find(await backend.models(), wanted.model).can(Animate.name):
            reason = "this model makes moving pictures; give gif"
            raise bad_value("output_format", wanted.output_format, reason) from None
        raise


def refuse(wanted: OpenAI, names: Iterable[str], reason: str) -> None:
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
