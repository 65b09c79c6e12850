"""Streams of OpenAI's dialect: partial images that say something, and how a stream may end."""

import asyncio
import base64
import gc
import json
import weakref

import httpx
import numpy as np
import openai
import pytest
from live_server import file_of, opened, pixels, running, until

from genimg.operations import OPERATIONS
from serving.app import create_app
from serving.errors import ApiError
from serving.partials import watched
from serving.requests import Answer, ModelInfo, Partial, Timings
from serving.settings import Limits

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"


@pytest.fixture(scope="module")
def ai(asking):
    with openai.OpenAI(base_url=f"{asking.base_url}/v1", api_key="any", max_retries=0) as client:
        yield client


def image_of(event) -> np.ndarray:
    return np.asarray(opened(base64.b64decode(event.b64_json)))


def ends(events, kind: str) -> list[str]:
    """Types of events without what they are of."""
    assert all(event.type.startswith(f"{kind}.") for event in events)
    return [event.type.removeprefix(f"{kind}.") for event in events]


def test_what_is_drawn_comes_by_ever_longer_latents(ai, engines):
    events = [
        *ai.images.generate(
            model="dcgan", prompt="", n=2, stream=True, partial_images=3, quality="hd",
            output_format="webp", extra_body={"seed": 7, "truncation": 0.9},
        )
    ]  # fmt: skip
    assert ends(events, "image_generation") == (["partial_image"] * 3 + ["completed"]) * 2
    assert [getattr(event, "partial_image_index", None) for event in events] == [0, 1, 2, None] * 2
    sample, engine = OPERATIONS["sample"], engines["dcgan"]
    for i, event in enumerate(events):
        shown = sample(seed=7 + i // 4, truncation=0.9 * (i % 4) / 3)
        assert np.array_equal(image_of(event), engine(shown).images[0])
        assert (event.size, event.output_format) == ("16x16", "webp")
        assert (event.quality, event.background) == ("high", "auto")
    done = events[3::4]
    assert [event.seed for event in done] == [7, 8]
    assert all(event.usage.total_tokens == 0 for event in done)
    assert {event.model for event in done} == {"dcgan"}


@pytest.mark.parametrize(("partials", "steps"), [(0, []), (1, [4]), (2, [2, 4]), (3, [1, 2, 4])])
def test_what_is_drawn_in_steps_comes_by_ever_more_of_them(ai, engines, partials, steps):
    ask = {"model": "flow", "prompt": "", "extra_body": {"seed": 7, "steps": 8}}
    events = [*ai.images.generate(**ask, stream=True, partial_images=partials)]
    assert ends(events, "image_generation") == ["partial_image"] * len(steps) + ["completed"]
    for event, each in zip(events, [*steps, 8], strict=True):
        made = engines["flow"](OPERATIONS["sample"](seed=7, steps=each)).images[0]
        assert np.array_equal(image_of(event), made)


def test_an_image_that_was_shown_meanwhile_does_not_wait_for_garbage(ai, monkeypatch):
    plans = []

    def seen(work, *how):
        plans.append(weakref.ref(work.plan))
        return watched(work, *how)

    monkeypatch.setattr("serving.host.watched", seen)
    ask = {"model": "upscaler", "image": file_of(pixels(100, 100, 3)), "prompt": ""}
    gc.disable()
    try:
        for _ in range(2):
            ask |= {"stream": True, "partial_images": 2, "extra_body": {"tile": 64}}
            assert [*ai.images.edit(**ask)][-1].type == "image_edit.completed"
        until(lambda: len(plans) == 2 and not any(plan() for plan in plans), patience=10)
    finally:
        gc.enable()


def test_of_fewer_steps_than_partials_each_comes_once(ai):
    ask = {"model": "flow", "prompt": "", "extra_body": {"seed": 7, "steps": 2}}
    events = [*ai.images.generate(**ask, stream=True, partial_images=3)]
    assert ends(events, "image_generation") == ["partial_image", "completed"]


@pytest.mark.parametrize(
    ("shape", "options"), [((400, 500, 4), {}), ((120, 150, 3), {"ensemble": True})]
)
def test_what_is_restored_comes_tile_by_tile(ai, engines, shape, options):
    image, options = pixels(*shape), {"tile": 64} | options
    ask = {"model": "upscaler", "image": file_of(image), "prompt": "", "extra_body": options}
    events = [*ai.images.edit(**ask, stream=True, partial_images=3)]
    *partials, final = map(image_of, events)
    assert len(partials) in (2, 3)  # the image does not wait for one that is being encoded
    assert ends(events, "image_edit") == ["partial_image"] * len(partials) + ["completed"]
    assert [event.partial_image_index for event in events[:-1]] == [*range(len(partials))]
    made = engines["upscaler"](OPERATIONS["upscale"](**options), image=image).only()
    assert np.array_equal(final, made)
    scale = len(made) // len(image)
    image = image.repeat(scale, 0).repeat(scale, 1)
    image[..., 3:] = made[..., 3:]  # alpha is enlarged at once
    shares = [(partial == made).all(axis=2).mean() for partial in partials]
    assert 0.1 < shares[0] < shares[1] < 0.95
    for partial in partials:
        done, left = (partial == made).all(axis=2), (partial == image).all(axis=2)
        assert (done | left).all()


def test_of_several_images_one_comes_after_the_other(ai, engines):
    images = [pixels(20, 24, 3, seed=seed) for seed in range(3)]
    files = [file_of(image) for image in images]
    events = ai.images.edit(model="ffdnet", image=files, prompt="", stream=True, partial_images=2)
    for event, image in zip(events, images, strict=True):  # of one tile, which is done at once
        made = engines["ffdnet"](OPERATIONS["denoise"](), image=image).only()
        assert event.type == "image_edit.completed"
        assert np.array_equal(image_of(event), made)


def test_events_are_lines_as_the_standard_has_them(asking):
    body = {"model": "dcgan", "stream": True, "partial_images": 1}
    answer = asking.post(GENERATIONS, json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-model-id"] == "dcgan"
    assert "content-length" not in answer.headers
    first, second, rest = answer.text.split("\n\n")
    assert rest == ""
    for block, kind in ((first, "partial_image"), (second, "completed")):
        event, data = block.split("\n")
        assert event == f"event: image_generation.{kind}"
        assert json.loads(data.removeprefix("data: "))["type"] == f"image_generation.{kind}"


def test_without_a_stream_the_answer_is_json(asking):
    for stream in ({"stream": False}, {"stream": None, "partial_images": None}, {}):
        answer = asking.post(GENERATIONS, json={"model": "dcgan"} | stream)
        assert answer.headers["content-type"] == "application/json"
    form = {"model": "ffdnet", "stream": "false", "partial_images": "0"}
    files = {"image": file_of(pixels(16, 16, 3))}
    assert asking.post(EDITS, data=form, files=files).json()["data"]
    streamed = asking.post(EDITS, data=form | {"stream": "true"}, files=files)
    assert streamed.text.startswith("event: image_edit.completed\n")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"partial_images": 1}, "partial_images"),
        ({"stream": True, "partial_images": 4}, "partial_images"),
        ({"stream": True, "output_format": "gif"}, "stream"),
        ({"stream": True, "async": True}, "stream"),
        ({"stream": True, "response_format": "url"}, "response_format"),
        ({"stream": True, "model": "ffdnet"}, "model"),
        ({"stream": True, "prompt": "a cat", "partial_images": 2}, "prompt"),
        ({"stream": True, "size": "99x99"}, "size"),
    ],
)
def test_what_is_wrong_before_the_first_event_is_an_error_like_any_other(asking, body, param):
    answer = asking.post(GENERATIONS, json={"model": "dcgan"} | body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


class Scripted:
    """A backend whose first answer comes at once, and the second as it is told."""

    def __init__(self, second) -> None:
        self.second = second
        self.calls = 0
        self.cancelled = asyncio.Event()

    async def call(self, model, request, tell=None, show=None) -> Answer:
        self.calls += 1
        if show:
            show(Partial(b"partial", "png", "1x1"))
        if self.calls > 1 or show:
            try:
                await self.second()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return Answer((b"x",), "png", "1x1", (1,), "m", 3, Timings(1, 2, 3), "float32")

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo("m", "m", "ready", capabilities=("sample", "denoise"))]

    def ready(self) -> bool:
        return True


async def never() -> None:
    await asyncio.sleep(60)


async def refused() -> None:
    raise ApiError(429, "queue_full", "too many wait")


async def broken() -> None:
    raise ZeroDivisionError("secret")


@pytest.mark.parametrize(
    ("second", "code", "message"),
    [
        (refused, "queue_full", "too many wait"),
        (broken, "internal_error", "the server failed on this request"),
        (never, "timeout", "no answer within 0.5 s"),
    ],
)
def test_what_goes_wrong_later_is_an_event(second, code, message):
    with (
        running(create_app(Scripted(second), Limits(timeout_s=0.5))) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client,
    ):
        events = client.images.generate(prompt="", stream=True, partial_images=1)
        assert next(events).type == "image_generation.partial_image"
        with pytest.raises(openai.APIError, match=message) as raised:
            next(events)
    assert raised.value.code == code
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("route", "body"),
    [
        (GENERATIONS, {"json": {"stream": True, "partial_images": 1}}),
        (EDITS, {"data": {"stream": "true", "partial_images": "1"},
                 "files": {"image": file_of(pixels(8, 8))}}),
    ],
)  # fmt: skip
def test_a_client_that_goes_ends_the_work(route, body):
    backend = Scripted(never)
    with running(create_app(backend)) as url:
        with httpx.stream("POST", f"{url}{route}", **body) as answer:
            assert "partial_image" in next(answer.iter_text())
        until(backend.cancelled.is_set, patience=10)
        assert httpx.get(f"{url}/livez").status_code == 200


def test_what_shows_through_is_in_nobodys_way(engines):
    """A plan's result is the same whether or not it was looked at."""
    engine, image = engines["ffdnet"], pixels(40, 30, 3)
    operation = OPERATIONS["denoise"](tile=16, strength=0.5)
    plan = engine.plan(operation, image=image)
    plan.show_through()
    assert np.array_equal(plan.so_far(), image)
    list(engine.run("denoise", [plan]))
    assert np.array_equal(plan.result().only(), engine(operation, image=image).only())
