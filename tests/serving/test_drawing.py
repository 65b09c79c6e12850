"""Drawing over HTTP, in OpenAI's dialect by its own client and in ours."""

import base64
import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest
from engine_calls import sample
from live_server import opened
from typer.testing import CliRunner

from cluster.places import open_storage
from cluster.registry import Registry
from genimg.engine import Engine
from genimg.operations.drawing import LAST_SEED
from jobs.cli import app as verbs


@pytest.fixture(scope="module")
def ai(server):
    return openai.OpenAI(base_url=f"{server}/v1", api_key="any", max_retries=0)


@pytest.fixture(scope="module")
def engine(trained):
    registry = Registry(open_storage(str(trained)))
    return Engine.load(registry.fetch(registry.resolve("figures@production")), "cpu")


def array(data: bytes) -> np.ndarray:
    return np.array(opened(data))


def from_base64(text: str) -> np.ndarray:
    return array(base64.b64decode(text))


def sampled(client, **body) -> np.ndarray:
    """Images [N, H, W, C] that the native route gives."""
    answer = client.post("/v1/images/sample", json=body | {"response_format": "b64_json"})
    assert answer.status_code == 200, answer.text
    return np.stack([from_base64(entry["b64_json"]) for entry in answer.json()["data"]])


def test_openais_client_draws_the_engines_own_images(ai, engine):
    answer = ai.images.generate(prompt="", model="figures", n=3, extra_body={"seed": 7})
    expected = sample(engine, 3, seed=7)
    for i, image in enumerate(answer.data):
        assert image.seed == 7 + i
        np.testing.assert_array_equal(from_base64(image.b64_json), expected[i])
    assert answer.model == "figures@production"
    assert answer.version == 1
    assert answer.size == "16x16"
    assert answer.output_format == "png"


def test_openais_client_may_say_all_that_it_can_say(ai, engine):
    answer = ai.images.generate(
        prompt="",
        model="figures@production",
        n=1,
        size="16x16",
        quality="standard",
        response_format="url",
        output_format="webp",
        output_compression=80,
        background="opaque",
        moderation="low",
        user="someone",
        stream=False,
        partial_images=0,
        extra_body={"style": None, "seed": 3, "truncation": 0.5, "label": None},
    )
    head, text = answer.data[0].url.split(",")
    assert head == "data:image/webp;base64"
    near = sample(engine, 1, seed=3, truncation=0.5)[0].astype(int)
    assert np.abs(from_base64(text) - near).mean() < 20


def test_a_seed_that_is_not_given_is_drawn_and_told(ai, engine, client):
    seen = set()
    for extra in ({}, {"seed": -1}, {"seed": None}):
        image = ai.images.generate(prompt="", extra_body=extra).data[0]
        seen.add(image.seed)
        np.testing.assert_array_equal(
            from_base64(image.b64_json), sample(engine, 1, seed=image.seed)[0]
        )
    answer = client.post("/v1/images/sample", headers={"content-type": "application/json"})
    seed = int(answer.headers["x-seed"])
    np.testing.assert_array_equal(array(answer.content), sample(engine, 1, seed=seed)[0])
    assert len(seen | {seed}) == 4


def test_the_command_line_the_engine_and_http_draw_the_same_pixels(
    client, engine, trained, tmp_path
):
    command = ["sample", "figures@production", "--registry", str(trained)]
    command += ["-n", "6", "--seed", "40", "-o", str(tmp_path / "grid.png")]
    assert CliRunner().invoke(verbs, command, catch_exceptions=False).exit_code == 0
    grid = client.post("/v1/images/sample", params={"n": 6, "seed": 40}).content
    assert grid == (tmp_path / "grid.png").read_bytes()
    singly = sampled(client, n=6, seed=40)
    np.testing.assert_array_equal(singly, sample(engine, 6, seed=40))
    for i, image in enumerate(singly):
        top, left = (2 + 18 * place for place in divmod(i, 3))
        np.testing.assert_array_equal(array(grid)[top : top + 16, left : left + 16], image)


def test_whatever_batch_a_request_rides_in_its_images_are_the_same(client, engine):
    wanted = [
        (n, seed, truncation)
        for (n, seed), truncation in zip(
            itertools.product((1, 2, 5, 17), range(0, 60, 6)),
            itertools.cycle((1.0, 0.7, 0.3)),
            strict=False,
        )
    ]
    with ThreadPoolExecutor(6) as threads:
        got = list(
            threads.map(
                lambda asked: sampled(client, n=asked[0], seed=asked[1], truncation=asked[2]),
                wanted,
            )
        )
    for (n, seed, truncation), images in zip(wanted, got, strict=True):
        np.testing.assert_array_equal(images, sample(engine, n, seed=seed, truncation=truncation))


def test_the_last_seed_that_there_is_can_be_drawn(client, engine):
    drawn = sampled(client, seed=LAST_SEED, n=2)
    np.testing.assert_array_equal(drawn, sample(engine, 2, seed=LAST_SEED))
    after = client.post("/v1/images/sample", json={"seed": LAST_SEED + 1})
    assert after.status_code == 400
    assert after.json()["error"]["param"] == "seed"


@pytest.mark.parametrize(
    ("format", "name"),
    [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP"), ("bmp", "BMP"), ("tiff", "TIFF")],
)
def test_an_image_comes_in_the_format_asked_for(client, engine, format, name):
    answer = client.post("/v1/images/sample", json={"seed": 1, "output_format": format})
    assert answer.headers["content-type"] == f"image/{format}"
    assert opened(answer.content).format == name
    if format != "jpeg":
        np.testing.assert_array_equal(array(answer.content), sample(engine, 1, seed=1)[0])


def test_parameters_come_as_json_a_form_or_in_the_query_and_null_is_absent(client):
    expected = client.post("/v1/images/sample", json={"n": 2, "seed": 9}).content
    for request in (
        {"json": {"n": 2, "seed": 9, "label": None, "model": None}},
        {"data": {"n": "2", "seed": "9", "label": "", "truncation": "null"}},
        {"files": {"n": (None, "2"), "seed": (None, "9"), "label": (None, "null")}},
        {"params": {"n": "2", "seed": "9"}},
        {"params": {"n": "2"}, "json": {"seed": 9}},
        {"content": '{"n": 2, "seed": 9}'},
        {"content": ' {"n": 2, "seed": 9}', "headers": {"content-type": "text/plain"}},
        {
            "json": {"n": 2, "seed": 9, "output_compression": 7}
        },  # png is lossless, whatever is asked
        {"params": {"n": "3"}, "json": {"n": 2, "seed": 9}},  # the body's counts
        {"params": {"n": "3"}, "data": {"n": "2", "seed": "9"}},
    ):
        answer = client.post("/v1/images/sample", **request)
        assert answer.status_code == 200, answer.text
        assert answer.content == expected


def test_what_follows_a_forms_end_is_passed_over(client):
    headers = {"content-type": 'multipart/form-data; boundary="x"'}
    body = CUT + b"\r\n--x--\r\n" + bytes(100_000)
    answer = client.post(SAMPLE, content=body, headers=headers)
    assert answer.headers["x-seed"] == "5"
    assert opened(answer.content).size[0] > 16  # a grid


def test_compression_is_the_quality_of_lossy_formats(client):
    sizes = [
        len(
            client.post(
                "/v1/images/sample",
                json={"n": 16, "seed": 0, "output_format": "jpeg", "output_compression": quality},
            ).content
        )
        for quality in (0, 50, 100)
    ]
    assert sizes == sorted(set(sizes))


def test_headers_tell_who_drew_what_and_how_long_it_took(client):
    answer = client.post("/v1/images/sample", json={"seed": 5})
    assert answer.headers["x-model-id"] == "figures@production"
    assert answer.headers["x-model-version"] == "1"
    assert answer.headers["x-seed"] == "5"
    parts = [part.split(";dur=") for part in answer.headers["server-timing"].split(", ")]
    assert [name for name, _ in parts] == ["queue", "compute", "encode"]
    assert all(float(duration) >= 0 for _, duration in parts)
    assert "X-Model-Version" in answer.headers["access-control-expose-headers"]
    assert "x-request-id" not in answer.headers  # Serve sets its own


GENERATIONS, SAMPLE = "/v1/images/generations", "/v1/images/sample"
LONG = "9" * 5000


@pytest.mark.parametrize(
    ("route", "body", "param", "message"),
    [
        (GENERATIONS, {"prompt": "a cat"}, "prompt", "this dcgan takes no prompt"),
        (GENERATIONS, {"n": 11}, "n", "n=11"),
        (GENERATIONS, {"n": 0}, "n", "n=0"),
        (GENERATIONS, {"n": True}, "n", "n=True: must not be true or false"),
        (GENERATIONS, {"n": "two"}, "n", "n='two'"),
        (GENERATIONS, {"n": 1.5}, "n", "n=1.5"),
        (GENERATIONS, {"n": [1]}, "n", "n=[1]"),
        (GENERATIONS, {"size": "1024x1024"}, "size", "this model makes 16x16"),
        (GENERATIONS, {"response_format": "raw"}, "response_format", "'b64_json' or 'url'"),
        (GENERATIONS, {"output_format": "svg"}, "output_format", "'png', 'jpeg', 'webp' or 'gif'"),
        (GENERATIONS, {"n": "2"}, "n", "n='2': must not be a text"),
        (GENERATIONS, {"stream": 0}, "stream", "stream=0: must be true or false"),
        (GENERATIONS, {"stream": "false"}, "stream", "must not be a text"),
        (GENERATIONS, {"output_compression": 101}, "output_compression", "output_compression=101"),
        (GENERATIONS, {"background": "transparent"}, "background", "no model draws"),
        (GENERATIONS, {"quality": "best"}, "quality", "'auto', 'low', 'medium'"),
        (GENERATIONS, {"style": "vivid"}, "style", "there are no styles"),
        (GENERATIONS, {"moderation": "high"}, "moderation", "'auto' or 'low'"),
        (GENERATIONS, {"stream": True, "output_format": "gif"}, "stream", "come whole"),
        (GENERATIONS, {"partial_images": 2}, "partial_images", "only with stream=true"),
        (GENERATIONS, {"seed": -2}, "seed", "seed=-2"),
        (GENERATIONS, {"seed": 2**63}, "seed", "seed=9223372036854775808"),
        (GENERATIONS, {"label": "cat"}, "label", "takes no label"),
        (GENERATIONS, {"sed": 1}, "sed", "unknown parameter 'sed'; did you mean 'seed'?"),
        (GENERATIONS, {"model": "denoiser"}, "model", "it cannot sample; it can: denoise"),
        (GENERATIONS, {"model": 5}, "model", "model=5"),
        (SAMPLE, {"n": 33}, "n", "n=33: at most 32"),
        (SAMPLE, {"truncation": -0.1}, "truncation", "truncation=-0.1"),
        (SAMPLE, {"truncation": "nan"}, "truncation", "truncation='nan'"),
        (SAMPLE, {"label": "cat"}, "label", "takes no label"),
        (SAMPLE, {"output_format": "gif"}, "output_format", "output_format='gif'"),
        (SAMPLE, {"response_format": "url"}, "response_format", "'image' or 'b64_json'"),
        (SAMPLE, {"prompt": ""}, "prompt", "unknown parameter 'prompt'; known: "),
        (SAMPLE, {"image": "aGFsbG8="}, "image", "unknown parameter 'image'"),
        (SAMPLE, {"\ud800": 1}, "?", "unknown parameter '\\ud800'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_the_name_of_the_parameter(
    client, route, body, param, message
):
    answer = client.post(route, content=json.dumps(body))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"


def form(*fields: tuple[str, str]) -> bytes:
    """Parts of a form with the boundary x, without its end."""
    head = "--x\r\nContent-Disposition: form-data; name="
    return "\r\n".join(f'{head}"{name}"\r\n\r\n{value}' for name, value in fields).encode()


CUT = form(("seed", "5"), ("n", "4"))


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "invalid_json"),
        ({"content": b"[1]", "headers": {"content-type": "application/json"}}, 400, "invalid_json"),
        ({"content": b'{"seed": ' + LONG.encode() + b"}"}, 400, "invalid_json"),
        ({"content": b'{"a":' * 100_000}, 400, "invalid_json"),
        ({"content": b"{\xff}"}, 400, "invalid_json"),
        ({"content": b'{"truncation": NaN}'}, 400, "invalid_json"),
        ({"content": b"n=2", "headers": {"content-type": "text/plain"}}, 415,
         "unsupported_media_type"),
        ({"params": [("n", "1"), ("n", "2")]}, 400, "invalid_value"),
        ({"content": b'{"n": 1, "n": 2}'}, 400, "invalid_value"),
        ({"content": CUT, "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400,
         "invalid_form"),
        ({"params": {"n": "0"}, "json": {"n": 2}}, 400, "invalid_value"),
        ({"data": {"n": ["", ""]}}, 400, "invalid_value"),
        ({"data": {f"k{i}": "1" for i in range(100)}}, 400, "bad_request"),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400,
         "bad_request"),
        ({"content": b"rubbish", "headers": {"content-type": "multipart/form-data; boundary=x"}},
         400, "bad_request"),
        ({"json": {"model": "dall-e-3"}}, 404, "model_not_found"),
        ({"json": {"model": ""}}, 404, "model_not_found"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("route", [GENERATIONS, SAMPLE])
def test_bodies_that_cannot_be_read_are_refused_in_the_one_form(
    client, route, request_, status, code
):
    answer = client.post(route, **request_)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text


def test_openais_client_raises_its_own_errors(ai):
    with pytest.raises(openai.NotFoundError) as missing:
        ai.images.generate(prompt="", model="dall-e-3")
    assert missing.value.code == "model_not_found"
    assert "valid: figures@production, denoiser" in missing.value.body["message"]
    with pytest.raises(openai.BadRequestError) as refused:
        ai.images.generate(prompt="a cat")
    assert refused.value.param == "prompt"


def test_openais_client_lists_the_models(ai, client):
    models = {model.id: model for model in ai.models.list()}
    assert list(models) == ["figures@production", "denoiser"]
    figures = models["figures@production"]
    assert (figures.version, figures.capabilities, figures.recipe) == (
        1,
        ["sample", "interpolate", "traverse", "vary", "decode", "invert"],
        "dcgan",
    )
    assert (figures.size, figures.channels, figures.state) == (16, 3, "ready")
    assert figures.created > 1_700_000_000
    assert figures.metrics["swd"] > 0
    for name in ("figures@production", "figures"):
        assert ai.models.retrieve(name) == figures
    with pytest.raises(openai.NotFoundError):
        ai.models.retrieve("org/name")
    for path in ("org/name", "org%2Fname"):
        message = client.get(f"/v1/models/{path}").json()["error"]["message"]
        assert message.startswith("model='org/name': no such model")
