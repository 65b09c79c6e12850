"""Every operation of every recipe that can do it: alike alone, in company, by verb and by HTTP."""

import base64
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from live_server import file_of, opened, pixels, running
from tiny_recipes import tiny

from cluster.places import open_storage
from cluster.registry import Registry
from genimg.engine import Engine, Stopped
from genimg.errors import InputError
from genimg.moving import FRAME_MS
from genimg.operations import OPERATIONS, Kind
from genimg.recipes import RECIPES
from genimg.results import Latents, Pictures
from genimg.training.sync import Alone
from jobs.cli import app as verbs
from jobs.runs.folder import RunFolder
from jobs.runs.worker import Job, work
from serving.app import create_app
from serving.backend import LocalBackend
from serving.settings import Settings

ABLE = [(name, recipe) for recipe in RECIPES for name in RECIPES[recipe]().can()]
PICTURES = [pixels(16, 16, 3), pixels(37, 23, 3), pixels(9, 30), pixels(20, 12, 4)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with a model of each recipe, named after it."""
    import torch

    home = tmp_path_factory.mktemp("operations")
    registry = Registry(open_storage(str(home / "registry")))
    for recipe in RECIPES:
        short = tiny(recipe, "train.images=32", "train.checkpoint_every=32")
        work(Job(short.model_dump_json(), recipe, str(home)), Alone(), torch.device("cpu"))
        run = RunFolder(str(home), recipe)
        folder = run.fetch(run.checkpoints()[-1], home)

        registry.register(recipe, folder, {}, {"recipe": recipe})

    return home


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[httpx.Client]:
    settings = Settings.validated(
        {"registry": str(home / "registry"), "models": [{"ref": name} for name in RECIPES]}
    )
    backend = LocalBackend(settings)
    backend.load()
    with running(create_app(backend, settings.limits)) as url, httpx.Client(base_url=url) as client:
        yield client
    backend.close()


@pytest.fixture(scope="module")
def engines(home: Path) -> dict[str, Engine]:
    registry = Registry(open_storage(str(home / "registry")))
    folders = {name: registry.fetch(registry.resolve(name)) for name in RECIPES}
    return {name: Engine.load(folder, "cpu") for name, folder in folders.items()}


def asked(name: str, engine: Engine, number: int) -> tuple[dict, dict]:
    """(options, inputs) of the request of a number."""
    fields = OPERATIONS[name].model_fields
    options = {"seed": 7 * number} if "seed" in fields else {}
    options |= {"n": 1 + number % 3} if "n" in fields else {}
    honoured = engine.abilities[name].conditions
    options |= {"sigma": 25.0} if "sigma" in fields and "sigma" in honoured else {}
    inputs = {}
    for key, kind in OPERATIONS[name].takes.items():
        if kind is Kind.PICTURE:
            image = PICTURES[number % len(PICTURES)]
            inputs[key] = image if image.ndim == 3 else image[..., None]
        else:
            random = np.random.default_rng(number)
            inputs[key] = random.normal(size=(2, engine.abilities[name].latent))
    return options, inputs


def sent(kind: Kind, given: np.ndarray) -> bytes:
    """An input as a file."""
    if kind is Kind.PICTURE:
        return file_of(np.squeeze(given))
    out = io.BytesIO()
    np.save(out, given)
    return out.getvalue()


def plain(made) -> np.ndarray | list:
    """What is compared of a result."""
    if isinstance(made, Pictures):
        return made.images
    return made.array if isinstance(made, Latents) else made.values


def alike(one, other) -> bool:
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


@pytest.mark.parametrize(("name", "recipe"), ABLE)
def test_a_row_has_the_same_bits_alone_and_in_company(engines, name, recipe):
    engine, operation = engines[recipe], OPERATIONS[name]
    alone, plans = [], []
    for number in range(6):
        options, inputs = asked(name, engine, number)
        alone.append(plain(engine(operation(**options), **inputs)))
        plans.append(engine.plan(operation(**options), **inputs))
    for key in {plan.key for plan in plans}:
        parts = [(plan, 0, plan.count) for plan in plans if plan.key == key]
        engine.compute(name, parts)
    for made, plan in zip(alone, plans, strict=True):
        assert alike(plain(plan.result()), made)


@pytest.mark.parametrize(("name", "recipe"), ABLE)
def test_it_ends_between_passes(engines, name, recipe):
    options, inputs = asked(name, engines[recipe], 0)
    with pytest.raises(Stopped):
        engines[recipe](OPERATIONS[name](**options), alive=lambda: False, **inputs)


@pytest.mark.parametrize(("name", "recipe"), ABLE)
def test_http_gives_what_the_engine_gives_whoever_asks_beside(client, engines, name, recipe):
    engine = engines[recipe]
    requests = [asked(name, engine, number) for number in range(8)]

    def answer(request: tuple[dict, dict]):
        options, inputs = request
        files = {key: sent(OPERATIONS[name].takes[key], given) for key, given in inputs.items()}
        json = OPERATIONS[name].gives in (Kind.LATENTS, Kind.VALUES)
        response = client.post(
            f"/v1/images/{name}",
            params=options | {"model": recipe} | ({} if json else {"response_format": "b64_json"}),
            files=files or None,
        )
        assert response.status_code == 200, response.text
        data = response.json()["data"]
        if json:
            return np.array(data, np.float32) if OPERATIONS[name].gives is Kind.LATENTS else data
        images = [opened(base64.b64decode(each["b64_json"])) for each in data]
        if OPERATIONS[name].gives is Kind.FRAMES:
            frames = []
            for frame in range(images[0].n_frames):
                images[0].seek(frame)
                array = np.asarray(images[0].convert("RGB"))
                # equal ones are one, which lasts longer; a single one lasts for ever
                shown = round(images[0].info.get("duration", 0) / FRAME_MS)
                frames += [array] * (shown or 16)
            return np.stack(frames)
        arrays = [np.asarray(image) for image in images]
        return np.stack([each if each.ndim == 3 else each[..., None] for each in arrays])

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(answer, requests))
    for (options, inputs), made in zip(requests, answers, strict=True):
        assert alike(made, plain(engine(OPERATIONS[name](**options), **inputs)))


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_verb_gives_what_the_engine_gives(home, engines, name, tmp_path, monkeypatch):
    recipe = next(recipe for each, recipe in ABLE if each == name)
    options, inputs = asked(name, engines[recipe], 0)
    monkeypatch.chdir(tmp_path)
    operation = OPERATIONS[name]
    command = [sys.executable, "-m", "jobs.cli", name, "--registry", str(home / "registry")]
    for key, value in options.items():
        command += [f"-{key}" if len(key) == 1 else f"--{key}", str(value)]
    for key, given in inputs.items():
        source = tmp_path / (f"{key}.npy" if operation.takes[key] is Kind.LATENTS else f"{key}.png")
        source.write_bytes(sent(operation.takes[key], given))
        command += [str(source), "-m", recipe]
    command += [] if inputs else [recipe]
    output = {Kind.PICTURE: "a.png", Kind.LATENTS: "a.npy", Kind.VALUES: "a.json"}
    command += ["-o", output.get(operation.gives, "folder")]
    subprocess.run(command, check=True)
    expected = plain(engines[recipe](operation(**options), **inputs))
    match operation.gives:
        case Kind.PICTURE:
            made = np.asarray(opened((tmp_path / "a.png").read_bytes()))[None]
        case Kind.LATENTS:
            made = np.load("a.npy")
        case Kind.VALUES:
            made = list(json.loads((tmp_path / "a.json").read_text()).values())
        case _:
            files = sorted((tmp_path / "folder").glob("*.png"))
            made = np.stack([np.asarray(opened(file.read_bytes())) for file in files])
    assert alike(made, expected)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_option_has_the_same_words_default_and_limits_wherever_it_is_told(client, name):
    operation = OPERATIONS[name]
    declared = operation.model_json_schema()["properties"]
    (told,) = (each for each in client.get("/v1/operations").json()["data"] if each["name"] == name)
    assert told["options"]["properties"] == declared
    route = client.get("/openapi.json").json()["paths"][f"/v1/images/{name}"]["post"]
    documented = {each["name"]: each["schema"] for each in route["parameters"]}
    command = next(each for each in verbs.registered_commands if each.name == name)
    options = {
        key: annotation.__metadata__[0]
        for key, annotation in command.callback.__annotations__.items()
        if key in declared
    }
    assert options.keys() == declared.keys()
    for key, details in declared.items():
        assert documented[key]["description"] == details["description"]
        assert documented[key].get("default") == details.get("default")
        assert details["description"] in options[key].help
        for limit in ("minimum", "maximum"):
            if limit in details:
                assert details[limit] == documented[key]["anyOf"][0][limit]


@pytest.mark.parametrize(("name", "recipe"), ABLE)
def test_what_a_model_does_not_honour_is_refused_by_name(engines, name, recipe):
    engine = engines[recipe]
    for option in OPERATIONS[name].conditions - engine.abilities[name].conditions:
        _, inputs = asked(name, engine, 0)
        value = 25.0 if option == "sigma" else "x"
        told = re.escape(f"{option}={value!r}: this {recipe} takes no {option}")
        with pytest.raises(InputError, match=told):
            engine(OPERATIONS[name](**{option: value}), **inputs)


def test_boxes_come_as_json_or_drawn_on_the_image(client, engines):
    engine, image = engines["detector"], pixels(30, 20, 3)
    options = {"model": "detector", "threshold": 0}
    files = {"image": file_of(image)}
    told = client.post("/v1/images/detect", params=options, files=files).json()["data"]
    expected = engine(OPERATIONS["detect"](threshold=0), image=image)
    assert told == expected.values
    for form in ("image", "b64_json"):
        shown = options | {"response_format": form, "output_format": "png"}
        response = client.post("/v1/images/detect", params=shown, files=files)
        data = response.content
        if form == "b64_json":
            data = base64.b64decode(response.json()["data"][0]["b64_json"])
        assert np.array_equal(np.asarray(opened(data)), expected.only())


def test_latents_go_there_and_back_as_json_and_as_arrays(client, engines):
    files = {"image": file_of(pixels(16, 16, 3))}
    told = client.post("/v1/images/encode", params={"model": "conv-vae"}, files=files).json()
    asked = {"model": "conv-vae", "response_format": "npy"}
    answer = client.post("/v1/images/encode", params=asked, files=files)
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
    made = [client.post("/v1/images/decode", **way) for way in ways]
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
        refused = client.post("/v1/images/decode", json={"latents": latents, "model": "conv-vae"})
        assert refused.status_code == 400, latents
        assert refused.json()["error"]["param"] == "latents", latents
        assert reason in refused.json()["error"]["message"], latents


def test_openais_client_restores_and_varies(client, engines):
    image = pixels(20, 24, 3)
    with openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="any", max_retries=0) as ai:

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
        with pytest.raises(openai.BadRequestError, match="cannot vary"):
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
def test_damaged_arrays_are_refused(client, damage):
    data = damage(sent(Kind.LATENTS, np.zeros((1, 8), np.float32)))
    ways = [{"content": data}, {"files": {"latents": data}}]
    for way in ways:
        answer = client.post("/v1/images/decode", params={"model": "conv-vae"}, **way)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == "latents"


def test_a_mask_keeps_its_classes_whatever_the_image_came_in(client, engines):
    image = pixels(20, 24, 3)
    options = {"model": "segmenter", "show": "mask"}
    jpeg = file_of(image, "JPEG")
    answer = client.post("/v1/images/segment", params=options, files={"image": jpeg})
    assert answer.headers["content-type"] == "image/png"
    given = np.asarray(opened(jpeg))
    expected = engines["segmenter"](OPERATIONS["segment"](show="mask"), image=given).only()
    assert np.array_equal(np.asarray(opened(answer.content))[..., None], expected)
    for wrong in ({"output_format": "jpeg"}, {"output_format": "webp", "output_compression": 50}):
        answer = client.post("/v1/images/segment", params=options | wrong, files={"image": jpeg})
        assert answer.json()["error"]["param"] == "output_format", wrong
    clear = file_of(pixels(20, 24, 4))
    shown = options | {"show": "overlay", "output_format": "jpeg"}
    answer = client.post("/v1/images/segment", params=shown, files={"image": clear})
    assert answer.headers["content-type"] == "image/jpeg"


def test_what_is_not_honoured_with_json_is_refused(client):
    files = {"image": file_of(pixels(20, 24, 3))}
    wrong = {"model": "detector", "output_format": "png"}
    error = client.post("/v1/images/detect", params=wrong, files=files).json()["error"]
    assert error["param"] == "output_format"
    assert "response_format" in error["message"]
