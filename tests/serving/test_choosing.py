"""Which of several served models answers: the first that can, whichever of them are ready."""

import asyncio
from dataclasses import replace

import pytest

from genimg.operations.drawing import Sample
from genimg.operations.exploring import Vary
from serving.backend import choose, made_for, wanted_of
from serving.errors import ApiError
from serving.openai_requests import drawings
from serving.openai_schemas import Generations
from serving.requests import ModelInfo, Request


def ready(name: str, *capabilities: str, scale: int = 1) -> ModelInfo:
    return ModelInfo(name, name, "ready", 1, capabilities, scale=scale)


def loading(name: str) -> ModelInfo:
    return ModelInfo(name, name)


class Served:
    def __init__(self, *infos: ModelInfo) -> None:
        self.infos = infos

    async def models(self) -> list[ModelInfo]:
        return list(self.infos)


def restoring(*infos: ModelInfo, asked: str | None = None) -> str:
    return asyncio.run(made_for(Served(*infos), asked)).name


def test_one_that_loads_and_may_be_the_first_that_can_is_waited_for():
    with pytest.raises(ApiError) as caught:
        choose([loading("a"), ready("b", "denoise")], None, "denoise")
    assert (caught.value.status, caught.value.code) == (503, "model_loading")
    chosen = choose([ready("b", "denoise"), loading("a")], None, "denoise")
    assert chosen.id == "b"
    with pytest.raises(ApiError, match="being loaded"):
        choose([ready("b", "upscale", scale=2), loading("a")], None, "upscale", 4)


def test_what_restores_any_damage_comes_before_what_restores_some():
    both = ready("deblock", "deblock"), ready("restore", "restore")
    assert restoring(*both) == "restore"
    assert restoring(*both, loading("c")) == "restore"
    assert restoring(*both[:1]) == "deblock"
    for infos in ([both[0], loading("restore")], [loading("restore"), both[0]]):
        with pytest.raises(ApiError) as caught:
            restoring(*infos)
        assert caught.value.status == 503
    assert restoring(both[0], loading("restore"), asked="deblock") == "deblock"


def test_a_model_that_does_not_read_what_is_given_is_told_with_what_to_give_it():
    drawing = ready("digits", "sample", "vary", "decode", "invert")
    reading, other = ready("vae", "vary", "encode"), ready("denoiser", "denoise")
    wanted = wanted_of(Request(Vary(), {"image": b""}))
    every = [other, drawing, reading]
    assert choose(every, None, *wanted).id == "vae"
    assert choose(every, "digits", *wanted_of(Request(Vary(of=3)))).id == "digits"
    for infos, asked, param, told in (
        (every, "digits", "image", "image: model='digits' reads none; name vae, which does, or give"
         " latents that `invert` has found of it, or the seed of one of the model's own (of=7)"),
        ([drawing], "digits", "image", "image: model='digits' reads none; give latents that"),
        ([drawing], None, "image", "image: none of the served models reads one; give latents that"),
        (every, "denoiser", "model", "model='denoiser': it cannot vary; it can: denoise"),
        ([other], None, "model", "none of the served models can vary: denoiser"),
    ):  # fmt: skip
        with pytest.raises(ApiError) as caught:
            choose(infos, asked, *wanted)
        assert (caught.value.status, caught.value.param) == (400, param)
        assert caught.value.message.startswith(told)


def test_what_only_some_models_honour_is_done_by_one_of_them():
    digits = replace(ready("digits", "sample"), honours={"sample": ("label",)}, classes=("1", "2"))
    painter = replace(ready("painter", "sample"), honours={"sample": ("steps", "text")})
    every = [digits, painter]

    def chosen(infos: list[ModelInfo], model: str | None = None, **options: object) -> str:
        return choose(infos, model, *wanted_of(Request(Sample(**options)))).id

    assert chosen(every, text="a red star") == "painter"
    assert chosen(every, text="a red star", model="digits") == "digits"  # which refuses it
    assert chosen(every, label="2", steps=4) == "digits"  # likewise: none honours both
    assert chosen(every) == "digits"

    def drawn(**wanted: object) -> Sample:
        return asyncio.run(drawings(Served(*every), Generations(**wanted)))[0].operation

    assert drawn(prompt="a red star").text == "a red star"
    assert drawn(prompt="2").label == "2"
    assert drawn(prompt="1=3,2=1").label == "1=3,2=1"
    assert drawn(prompt="3", model="digits").label == "3"  # which says what classes there are


def test_a_scale_that_none_enlarges_by_is_told_with_those_there_are():
    infos = [ready("x2", "upscale", scale=2), ready("x4", "upscale", scale=4)]
    assert choose(infos, None, "upscale", 4).id == "x4"
    with pytest.raises(ApiError, match="scale=3: the served models enlarge by 2 and 4") as caught:
        choose(infos, None, "upscale", 3)
    assert caught.value.status == 400
