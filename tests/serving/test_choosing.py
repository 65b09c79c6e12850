"""Which of several served models answers: the first that can, whichever of them are ready."""

import asyncio

import pytest

from genimg.operations.exploring import Vary
from serving.backend import choose, made_for, wanted_of
from serving.errors import ApiError
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


def test_a_scale_that_none_enlarges_by_is_told_with_those_there_are():
    infos = [ready("x2", "upscale", scale=2), ready("x4", "upscale", scale=4)]
    assert choose(infos, None, "upscale", 4).id == "x4"
    with pytest.raises(ApiError, match="scale=3: the served models enlarge by 2 and 4") as caught:
        choose(infos, None, "upscale", 3)
    assert caught.value.status == 400
