"""Every parameter of OpenAI's client does what it says, or is refused by its name."""

import base64
import inspect
import json

import httpx
import numpy as np
import openai
import pytest
from live_server import file_of, opened, pixels
from openai.resources.images import Images

from genimg.operations import OPERATIONS
from genimg.pixels import on_white
from serving.openai_schemas import Edits, Generations, Variations

IMAGE = pixels(20, 24, 3)
PNG = file_of(IMAGE)


@pytest.fixture(scope="module")
def ai(asking):
    with openai.OpenAI(base_url=f"{asking.base_url}/v1", api_key="any", max_retries=0) as client:
        yield client


def shown(answer) -> list[np.ndarray]:
    return [np.asarray(opened(base64.b64decode(each.b64_json))) for each in answer.data]


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def test_all_that_the_client_can_say_is_known():
    """A parameter that the next client has is found here."""
    ways = {"generate": Generations, "edit": Edits, "create_variation": Variations}
    files = {"image", "mask", "markup"}
    for method, schema in ways.items():
        said = {
            name
            for name in inspect.signature(getattr(Images, method)).parameters
            if not name.startswith("extra_") and name not in ("self", "timeout")
        }
        assert said - files <= schema.model_fields.keys()


def test_the_client_may_say_all_of_it_at_once(ai):
    common = {
        "n": 1, "background": "opaque", "output_format": "webp", "output_compression": 90,
        "quality": "low", "response_format": "b64_json", "safety_identifier": "hash",
        "size": "auto", "user": "someone", "stream": False, "partial_images": 0,
    }  # fmt: skip
    (drawn,) = shown(ai.images.generate(prompt="", model="dcgan", moderation="low", **common))
    assert drawn.shape == (16, 16, 3)
    (edited,) = shown(
        ai.images.edit(prompt="", model="ffdnet", image=PNG, input_fidelity="high", **common)
    )
    assert edited.shape == IMAGE.shape


def test_null_is_as_good_as_absent(asking, engines):
    nothing = dict.fromkeys(Generations.model_fields.keys() - {"later", "seed", "model"})
    body = nothing | {"async": None, "seed": 4, "model": "dcgan"}
    (image,) = asking.post("/v1/images/generations", json=body).json()["data"]
    expected = engines["dcgan"](OPERATIONS["sample"](seed=4)).images[0]
    assert np.array_equal(np.asarray(opened(base64.b64decode(image["b64_json"]))), expected)
    nothing = dict.fromkeys(Edits.model_fields.keys() - {"later", "model"})
    body = nothing | {"model": "ffdnet", "mask": None, "markup": None, "images": None}
    body |= {"image": base64.b64encode(PNG).decode()}
    assert asking.post("/v1/images/edits", json=body).status_code == 200
    form = {key: "null" for key in body if key != "image"} | {"model": "ffdnet"}
    assert asking.post("/v1/images/edits", data=form, files={"image": PNG}).status_code == 200


@pytest.mark.parametrize(
    ("quality", "steps"),
    [("low", 0.5), ("medium", 1), ("standard", 1), ("auto", 1), ("high", 2), ("hd", 2),
     ("xhigh", 3), ("max", 4)],
)  # fmt: skip
def test_quality_is_steps_of_models_that_draw_in_steps(ai, engines, quality, steps):
    engine = engines["flow"]
    own = engine.abilities["sample"].steps
    made = ai.images.generate(model="flow", prompt="", quality=quality, extra_body={"seed": 2})
    sample = OPERATIONS["sample"](seed=2, steps=max(1, round(steps * own)))
    assert np.array_equal(shown(made)[0], engine(sample).images[0])
    three = {"seed": 2, "steps": 3}
    told = ai.images.generate(model="flow", prompt="", quality=quality, extra_body=three)
    assert np.array_equal(shown(told)[0], engine(OPERATIONS["sample"](**three)).images[0])


def test_quality_is_an_ensemble_of_models_that_restore(ai, engines):
    for quality, more, ensemble in (
        ("medium", {}, False), ("high", {}, True), ("max", {"ensemble": False}, False),
    ):  # fmt: skip
        made = ai.images.edit(
            model="ffdnet", image=PNG, prompt="", quality=quality, extra_body=more
        )
        expected = engines["ffdnet"](OPERATIONS["denoise"](ensemble=ensemble), image=IMAGE).only()
        assert np.array_equal(shown(made)[0], expected), quality


def test_quality_is_nothing_to_a_model_that_has_one(ai):
    options = {"model": "dcgan", "prompt": "", "extra_body": {"seed": 5}}
    made = [shown(ai.images.generate(**options, quality=each))[0] for each in ("low", "max")]
    assert np.array_equal(*made)


def test_backgrounds(ai, engines):
    veiled = pixels(20, 24, 4)
    denoised = engines["ffdnet"](OPERATIONS["denoise"](), image=veiled).only()
    ask = {"model": "ffdnet", "image": file_of(veiled), "prompt": ""}
    for background, expected in (
        ("auto", denoised), ("transparent", denoised), ("opaque", on_white(denoised)),
    ):  # fmt: skip
        assert np.array_equal(shown(ai.images.edit(**ask, background=background))[0], expected)
    jpeg = ai.images.edit(**ask, background="opaque", output_format="jpeg")
    assert shown(jpeg)[0].shape == (20, 24, 3)
    with pytest.raises(openai.BadRequestError) as refused:
        ai.images.edit(**ask | {"image": PNG}, background="transparent")
    assert refused.value.param == "background"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_on_white_is_composited_as_floats_are(dtype):
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (300, 5, 4), dtype)
    peak = np.iinfo(dtype).max
    alpha = image[..., 3:] / peak
    expected = np.floor(image[..., :3] * alpha + peak * (1 - alpha) + 0.5)
    assert np.abs(on_white(image).astype(float) - expected).max() <= 1
    assert np.array_equal(on_white(image[..., :3]), image[..., :3])


def test_several_images_are_answered_in_their_order(asking, ai, engines):
    images = [pixels(20, 24, 3, seed=i) for i in range(3)] + [pixels(9, 30, 3)]
    files = [file_of(image) for image in images]
    expected = [engines["ffdnet"](OPERATIONS["denoise"](), image=each).only() for each in images]
    by_client = ai.images.edit(model="ffdnet", image=files, prompt="")
    body = {"model": "ffdnet", "images": [{"image_url": data_url(each)} for each in files]}
    by_json = asking.post("/v1/images/edits", json=body)
    for answer in (by_client, openai.types.ImagesResponse.model_validate(by_json.json())):
        made = shown(answer)
        assert len(made) == 4
        assert all(np.array_equal(*both) for both in zip(made, expected, strict=True))
    sixteen = ai.images.edit(model="ffdnet", image=files * 4, prompt="")
    assert len(sixteen.data) == 16


def hole() -> np.ndarray:
    there = np.zeros((20, 24), bool)
    there[5:12, 6:15] = True
    return there


def test_what_is_painted_on_a_markup_is_filled(asking, ai, engines):
    holes = hole()
    mask = np.dstack([np.zeros((20, 24, 3), np.uint8), np.where(holes, 0, 255).astype(np.uint8)])
    markup = np.dstack([np.full((20, 24, 3), (200, 9, 9), np.uint8), 255 - mask[..., 3]])
    operation = OPERATIONS["inpaint"]()
    expected = engines["inpainter"](operation, image=IMAGE, mask=mask).only()
    assert not np.array_equal(expected[holes], IMAGE[holes])
    assert np.array_equal(expected[~holes], IMAGE[~holes])
    for way in ({"mask": file_of(mask)}, {"markup": file_of(markup)}):
        for model in ({"model": "inpainter"}, {}):  # without one, the first that fills
            (made,) = shown(ai.images.edit(**model, image=PNG, prompt="", **way))
            assert np.array_equal(made, expected)
    body = {
        "images": [{"image_url": data_url(PNG)}],
        "mask": {"image_url": data_url(file_of(mask))},
    }
    answer = asking.post("/v1/images/edits", json=body | {"model": "inpainter"}).json()
    (made,) = shown(openai.types.ImagesResponse.model_validate(answer))
    assert np.array_equal(made, expected)


def test_a_mask_is_that_of_the_first_image(ai, engines):
    holes, inpaint = hole(), OPERATIONS["inpaint"]()
    mask = np.where(holes, 255, 0).astype(np.uint8)
    pierced = np.dstack([pixels(20, 24, 3, seed=7), 255 - mask])
    made = shown(
        ai.images.edit(
            model="inpainter", image=[PNG, file_of(pierced)], mask=file_of(mask), prompt=""
        )
    )
    inpainter = engines["inpainter"]
    assert np.array_equal(made[0], inpainter(inpaint, image=IMAGE, mask=mask[..., None]).only())
    assert np.array_equal(made[1], inpainter(inpaint, image=pierced).only())


GREEN = file_of(np.zeros((20, 24), np.uint8))
CLEAR = file_of(np.zeros((20, 24, 4), np.uint8))


def test_where_nothing_is_painted_nothing_changes(ai):
    made = ai.images.edit(model="inpainter", image=PNG, markup=CLEAR, prompt="")
    assert np.array_equal(shown(made)[0], IMAGE)


@pytest.mark.parametrize(
    ("form", "files", "param", "message"),
    [
        ({"model": "ffdnet"}, {"markup": CLEAR}, "markup", "can denoise, which takes none"),
        ({"model": "ffdnet"}, {"mask": GREEN}, "mask", "can denoise, which takes none"),
        ({"model": "inpainter"}, {"mask": GREEN, "markup": CLEAR}, "markup", "leave one of them"),
        ({"model": "inpainter"}, {"markup": GREEN}, "markup", "marks all of the image"),
        ({"model": "inpainter"}, {"markup": file_of(pixels(8, 8, 4))}, "markup", "markup of 8x8"),
        ({"model": "conv-lstm", "output_format": "gif"}, {"markup": CLEAR}, "markup", "not with"),
        ({"model": "ffdnet", "svg[model]": "x"}, {}, "svg", "svg has no parts"),
        ({"model": "ffdnet", "svg[reasoning][effort]": "low"}, {}, "svg", "svg has no parts"),
        ({"model": "ffdnet", "complexity": "low"}, {}, "complexity", "leave it out"),
        ({"model": "ffdnet", "quality": "best"}, {}, "quality", "'auto', 'low'"),
        ({"model": "ffdnet", "input_fidelity": "mid"}, {}, "input_fidelity", "'high' or 'low'"),
        ({"model": "ffdnet", "n[x]": "2"}, {}, "n", "n has no parts"),
        ({"model": "ffdnet", "style": "vivid"}, {}, "style", "unknown parameter"),
    ],
)
def test_what_cannot_be_done_to_an_image_is_refused_by_name(asking, form, files, param, message):
    answer = asking.post("/v1/images/edits", data=form, files={"image": PNG} | files)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"svg": {"model": "x"}}, "svg"),
        ({"svg": "x"}, "svg"),
        ({"complexity": "high"}, "complexity"),
        ({"style": "natural"}, "style"),
        ({"background": "transparent"}, "background"),
        ({"quality": "best"}, "quality"),
        ({"input_fidelity": "low"}, "input_fidelity"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(asking, body, param):
    answer = asking.post("/v1/images/generations", json=body | {"model": "dcgan"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("images", "param", "message"),
    [
        ([{"image_url": "https://example.org/a.png"}], "images", "URLs are not fetched"),
        ([{"file_id": "file-1"}], "images", "as a data URL in `image_url`"),
        ([{"image_url": data_url(PNG), "file_id": "x"}], "images", "as a data URL"),
        ([], "image", "there is no image"),
        ([data_url(PNG)] * 17, "images", "17 images are given; give at most 16"),
        ([7], "images", "base64 as a string"),
        ([[data_url(PNG)]], "images", "base64 as a string"),
    ],
)
def test_lists_of_images_that_cannot_be_read(asking, images, param, message):
    answer = asking.post("/v1/images/edits", json={"model": "ffdnet", "images": images})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert message in answer.json()["error"]["message"]


def test_too_many_images_of_a_form_and_jobs_of_several(asking):
    def sent(count: int, **form: str) -> httpx.Response:
        files = [("image[]", ("upload", PNG))] * count
        return asking.post("/v1/images/edits", data={"model": "ffdnet"} | form, files=files)

    assert "give at most 16" in sent(17).json()["error"]["message"]
    assert sent(30).status_code == 400
    error = sent(2, **{"async": "true"}).json()["error"]
    assert error["param"] == "async"
    twice = {"image": base64.b64encode(PNG).decode(), "images": [data_url(PNG)]}
    answer = asking.post("/v1/images/edits", content=json.dumps(twice))
    assert "more than one image" in answer.json()["error"]["message"]
