"""Classes over HTTP: asked for by label, or by a prompt; told of each image that was drawn."""

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
import torch
from engine_calls import sample
from live_server import opened, served
from tiny_recipes import tiny

from cluster.places import open_storage
from cluster.registry import Registry
from genimg.data.scenes import Scenes
from genimg.engine import Engine
from genimg.operations.drawing import Sample
from genimg.training.sync import Alone
from jobs.runs.folder import RunFolder
from jobs.runs.worker import Job, work
from serving.settings import Settings

CLASSES = Scenes.classes["label"]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a flow `figures` that draws by class, and one, `plain`, that does not."""
    home = tmp_path_factory.mktemp("labels")
    models = Registry(open_storage(str(home / "registry")))
    for name, conditional in (("figures", True), ("plain", False)):
        recipe = tiny("flow", f"model.conditional={conditional}", "train.lr=0.01", "train.warmup=0")
        work(Job(recipe.model_dump_json(), name, str(home)), Alone(), torch.device("cpu"))
        models.register(name, RunFolder(str(home), name).fetch(64, home), {}, {"recipe": "flow"})
    return home / "registry"


@pytest.fixture(scope="module")
def engine(registry) -> Engine:
    models = Registry(open_storage(str(registry)))
    return Engine.load(models.fetch(models.resolve("figures")), "cpu")


@pytest.fixture(scope="module")
def url(registry) -> Iterator[str]:
    models = [{"ref": "figures"}, {"ref": "plain"}]
    settings = Settings.validated({"registry": str(registry), "models": models})
    with served(settings) as url:
        yield url


@pytest.fixture(scope="module")
def client(url) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def ai(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)


def pixels_of(text: str) -> np.ndarray:
    return np.array(opened(base64.b64decode(text)))


def test_a_prompt_that_is_a_class_is_that_label(ai, engine):
    for asked in (
        {"prompt": "disc"},
        {"prompt": " disc\n"},
        {"prompt": "", "extra_body": {"label": "disc"}},
        {"prompt": "disc=2"},
    ):
        extra = {"seed": 7} | asked.pop("extra_body", {})
        answer = ai.images.generate(n=2, extra_body=extra, **asked)
        for number, image in enumerate(answer.data):
            assert image.seed == 7 + number
            assert image.label.strip() in ("disc", "disc=2")
            expected = sample(engine, 2, seed=7, label="disc")[number]
            np.testing.assert_array_equal(pixels_of(image.b64_json), expected)


def test_without_a_prompt_each_image_tells_which_class_its_seed_drew(ai, engine, client):
    made = engine(Sample(n=5, seed=0))
    answer = ai.images.generate(prompt="", n=5, extra_body={"seed": 0})
    assert tuple(image.label for image in answer.data) == made.labels
    body = {"n": 5, "seed": 0, "response_format": "b64_json"}
    told = client.post("/v1/images/sample", json=body).json()["data"]
    assert tuple(each["label"] for each in told) == made.labels
    for each, image in zip(told, made.images, strict=True):
        np.testing.assert_array_equal(pixels_of(each["b64_json"]), image)
    plain = client.post("/v1/images/sample", json=body | {"model": "plain"}).json()["data"]
    assert all("label" not in each for each in plain)


def test_steps_and_guidance_are_options_of_both_dialects(ai, engine, client):
    options = {"seed": 3, "steps": 3, "guidance": 2.5, "label": "cross"}
    expected = sample(engine, 1, **options)[0]
    image = ai.images.generate(prompt="cross", extra_body=options | {"label": None}).data[0]
    np.testing.assert_array_equal(pixels_of(image.b64_json), expected)
    answer = client.post("/v1/images/sample", params=options)
    np.testing.assert_array_equal(np.array(opened(answer.content)), expected)
    moving = client.post("/v1/images/interpolate", params=options | {"frames": 3})
    assert opened(moving.content).n_frames >= 2


@pytest.mark.parametrize(
    ("route", "body", "param", "message"),
    [
        ("generations", {"prompt": "dsic"}, "prompt", "did you mean 'disc'?"),
        ("generations", {"prompt": "a: b"}, "prompt", "known: "),
        (
            "generations",
            {"prompt": "cat", "label": "disc"},
            "prompt",
            "takes no text; it draws by label",
        ),
        ("generations", {"prompt": "disc", "model": "plain"}, "prompt", "takes no prompt"),
        ("generations", {"label": "dsic"}, "label", "did you mean 'disc'?"),
        ("generations", {"prompt": "disc," * 20_000}, "prompt", "at most 65536 characters"),
        ("sample", {"label": "disc," * 20_000}, "label", "at most 65536 characters"),
        ("generations", {"steps": 51}, "steps", "steps=51"),
        ("generations", {"guidance": 2, "model": "plain"}, "guidance", "takes no guidance"),
        ("sample", {"label": 7}, "label", "unknown class '7'"),
        ("generations", {"label": 7}, "label", "unknown class '7'"),
        ("sample", {"label": 1.5}, "label", "label=1.5"),
        ("sample", {"label": "disc=0"}, "label", "give a number above 0"),
        ("sample", {"label": "disc", "model": "plain"}, "label", "takes no label"),
        ("interpolate", {"label": "dsic"}, "label", "did you mean 'disc'?"),
    ],
)
def test_what_is_no_class_is_refused_by_the_name_that_it_came_by(
    client, route, body, param, message
):
    answer = client.post(f"/v1/images/{route}", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert message in error["message"]
    assert error["message"].startswith(f"{param}=")


def test_a_model_tells_its_classes(client):
    figures, plain = client.get("/v1/models").json()["data"]
    assert tuple(figures["classes"]) == CLASSES
    assert plain["classes"] == []
