"""Answers of operations in every form, OpenAI's dialect of them, and what is refused."""

import base64
import io
import json

import numpy as np
import openai
import pytest
from live_server import file_of, opened, pixels
from operation_inputs import sent

from genimg.operations import OPERATIONS, Kind


def test_boxes_come_as_json_or_drawn_on_the_image(asking, engines):
    engine, image = engines["detector"], pixels(30, 20, 3)
    options = {"model": "detector", "threshold": 0}
    files = {"image": file_of(image)}
    told = asking.post("/v1/images/detect", params=options, files=files).json()["data"]
    expected = engine(OPERATIONS["detect"](threshold=0), image=image)
    assert told == expected.values
    for form in ("image", "b64_json"):
        shown = options | {"response_format": form, "output_format": "png"}
        response = asking.post("/v1/images/detect", params=shown, files=files)
        data = response.content
        if form == "b64_json":
            data = base64.b64decode(response.json()["data"][0]["b64_json"])
        assert np.array_equal(np.asarray(opened(data)), expected.only())


def test_latents_go_there_and_back_as_json_and_as_arrays(asking, engines):
    files = {"image": file_of(pixels(16, 16, 3))}
    told = asking.post("/v1/images/encode", params={"model": "conv-vae"}, files=files).json()
    asked = {"model": "conv-vae", "response_format": "npy"}
    answer = asking.post("/v1/images/encode", params=asked, files=files)
    assert answer.headers["content-type"] == "application/x-npy"
    array = np.load(io.BytesIO(answer.content))
    assert array.dtype == np.float32
    assert array.tolist() == told["data"]

    one = {"model": "conv-vae", "output_format": "png"}
    ways = [
        {"json": one | {"latents": told["data"]}},
        {"params": one, "files": {"latents": answer.content}},
        {"params": one, "data": {"latents": json.dumps(told["data"])}},
        {"params": one, "content": answer.content},
    ]
    made = [asking.post("/v1/images/decode", **way) for way in ways]
    assert [each.status_code for each in made] == [200] * 4, made[0].text
    assert len({each.content for each in made}) == 1
    expected = engines["conv-vae"](OPERATIONS["decode"](), latents=array).images[0]
    assert np.array_equal(np.asarray(opened(made[0].content)), expected)

    for latents, reason in (
        ([1, 2], "rows of numbers"), ([[True, 0]], "rows of numbers"),
        ([["a"]], "rows of numbers"), ([[1], [2, 3]], "rows of numbers"),
        ([[1.0]], "this model takes [N, 8]"), ([[0.0] * 8] * 100, "at most 64"),
        ({"a": 1}, "rows of numbers"),
    ):  # fmt: skip
        refused = asking.post("/v1/images/decode", json={"latents": latents, "model": "conv-vae"})
        assert refused.status_code == 400, latents
        assert refused.json()["error"]["param"] == "latents", latents
        assert reason in refused.json()["error"]["message"], latents


def test_frames_come_one_by_one_where_they_are_asked_for(asking, engines):
    asked = {"model": "dcgan", "seeds": "3,14,15", "frames": 5, "response_format": "frames"}
    answer = asking.post("/v1/images/interpolate", json=asked | {"output_format": "png"})
    told = answer.json()
    made = [np.asarray(opened(base64.b64decode(each["b64_json"]))) for each in told["data"]]
    interpolate = OPERATIONS["interpolate"](seeds="3,14,15", frames=5)
    assert np.array_equal(np.stack(made), np.squeeze(engines["dcgan"](interpolate).images))
    assert not any("seed" in each for each in told["data"])
    assert answer.headers["x-seed"] == "3"
    moves = asking.post("/v1/images/interpolate", json=asked | {"output_format": "gif"})
    assert moves.json()["error"]["param"] == "output_format"


def test_openais_client_restores_and_varies(asking, engines):
    image = pixels(20, 24, 3)
    with openai.OpenAI(base_url=f"{asking.base_url}/v1", api_key="any", max_retries=0) as ai:

        def shown(answer) -> list[np.ndarray]:
            return [np.asarray(opened(base64.b64decode(each.b64_json))) for each in answer.data]

        given = file_of(image)
        (restored,) = shown(ai.images.edit(model="ffdnet", image=given, prompt=""))
        assert np.array_equal(
            restored, engines["ffdnet"](OPERATIONS["denoise"](), image=image).only()
        )
        half = {"strength": 0.5, "tile": 0}
        (lessened,) = shown(
            ai.images.edit(model="ffdnet", image=[given], prompt="", extra_body=half)
        )
        denoise = OPERATIONS["denoise"](**half)
        assert np.array_equal(lessened, engines["ffdnet"](denoise, image=image).only())

        near = ai.images.create_variation(
            model="conv-vae", image=given, n=3, extra_body={"seed": 5, "strength": 0.25}
        )
        vary = OPERATIONS["vary"](n=3, seed=5, strength=0.25)
        expected = engines["conv-vae"](vary, image=image).images
        assert np.array_equal(np.stack(shown(near)), expected)
        assert [each.seed for each in near.data] == [5, 6, 7]

        for options, param in (
            ({"mask": given}, "mask"), ({"prompt": "a cat"}, "prompt"), ({"n": 2}, "n"),
            ({"size": "64x64"}, "size"), ({"model": "dcgan"}, "model"),
        ):  # fmt: skip
            wrong = {"model": "ffdnet", "image": given, "prompt": ""} | options
            with pytest.raises(openai.BadRequestError) as refused:
                ai.images.edit(**wrong)
            assert refused.value.param == param
        with pytest.raises(openai.BadRequestError, match="it cannot encode"):
            ai.images.create_variation(model="dcgan", image=given)


def test_variations_go_out_from_the_reconstruction(engines):
    engine, image = engines["conv-vae"], pixels(16, 16, 3)
    vary, reconstruct = OPERATIONS["vary"], OPERATIONS["reconstruct"]
    same = engine(vary(n=3, seed=1, strength=0), image=image).images
    assert all(np.array_equal(each, engine(reconstruct(), image=image).only()) for each in same)
    off = []
    for strength in (0.1, 1, 10):
        made = engine(vary(n=8, seed=1, strength=strength), image=image).images
        off.append(np.abs(made.astype(float) - same[0]).mean())
    assert off == sorted(off)
    assert off[0] < off[1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-4],
        lambda data: data[:6] + b"\xff\xff" + data[8:],
        lambda data: data.replace(b"(1, 8)", b"(10**10, 8)"[:6]),
        lambda data: data.replace(b"'<f4'", b"'<c8'"),
        lambda data: data.replace(b"{", b"((("[:1]),
        lambda data: b"PK\3\4" + data,
    ],
)
def test_damaged_arrays_are_refused(asking, damage):
    data = damage(sent(Kind.LATENTS, np.zeros((1, 8), np.float32)))
    ways = [{"content": data}, {"files": {"latents": data}}]
    for way in ways:
        answer = asking.post("/v1/images/decode", params={"model": "conv-vae"}, **way)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == "latents"


def test_a_mask_keeps_its_classes_whatever_the_image_came_in(asking, engines):
    image = pixels(20, 24, 3)
    options = {"model": "segmenter", "show": "mask"}
    jpeg = file_of(image, "JPEG")
    answer = asking.post("/v1/images/segment", params=options, files={"image": jpeg})
    assert answer.headers["content-type"] == "image/png"
    given = np.asarray(opened(jpeg))
    expected = engines["segmenter"](OPERATIONS["segment"](show="mask"), image=given).only()
    assert np.array_equal(np.asarray(opened(answer.content))[..., None], expected)
    for wrong in ({"output_format": "jpeg"}, {"output_format": "webp", "output_compression": 50}):
        answer = asking.post("/v1/images/segment", params=options | wrong, files={"image": jpeg})
        assert answer.json()["error"]["param"] == "output_format", wrong
    clear = file_of(pixels(20, 24, 4))
    shown = options | {"show": "overlay", "output_format": "jpeg"}
    answer = asking.post("/v1/images/segment", params=shown, files={"image": clear})
    assert answer.headers["content-type"] == "image/jpeg"


def test_what_is_not_honoured_with_json_is_refused(asking):
    files = {"image": file_of(pixels(20, 24, 3))}
    wrong = {"model": "detector", "output_format": "png"}
    error = asking.post("/v1/images/detect", params=wrong, files=files).json()["error"]
    assert error["param"] == "output_format"
    assert "response_format" in error["message"]


def test_what_is_wrong_with_a_mask_is_told_of_the_mask(asking):
    given, whole = file_of(pixels(16, 16, 3)), file_of(pixels(16, 16, 1)[..., 0])
    for mask, status, reason in (
        (whole[: len(whole) // 2], 400, "mask: damaged or truncated"),
        (b"no image", 415, "mask: these bytes"),
        (file_of(pixels(8, 16, 1)[..., 0]), 400, "mask of 16x8 for an image of 16x16"),
        (file_of(np.full((16, 16), 255, np.uint8)), 400, "mask: marks all of the image"),
    ):
        files = {"image": given, "mask": mask}
        answer = asking.post("/v1/images/inpaint", params={"model": "inpainter"}, files=files)
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert reason in error["message"]
        assert error["param"] == "mask"


def test_what_is_wrong_with_a_style_is_told_of_the_style(asking):
    given, veiled = file_of(pixels(16, 16, 3)), file_of(pixels(9, 9, 4) * np.uint8([1, 1, 1, 0]))
    for more, status, reason in (
        ({}, 400, "style is missing; give the image"),
        ({"style": given[: len(given) // 2]}, 400, "style: damaged or truncated"),
        ({"style": b"no image"}, 415, "style: these bytes"),
        ({"style": veiled}, 400, "style: is transparent all over"),
    ):
        files = {"image": given, **more}
        answer = asking.post("/v1/images/stylise", params={"model": "adain"}, files=files)
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert reason in error["message"]
        assert error["param"] == "style"
