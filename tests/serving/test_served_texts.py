"""Texts over HTTP: OpenAI's prompts are texts; words that are not known are named."""

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
import torch
from engine_calls import sample
from live_server import opened, running
from tiny_recipes import tiny

from cluster.places import open_storage
from cluster.registry import Registry
from genimg.data.grammar import GRAMMAR, WORDS
from genimg.engine import Engine
from genimg.training.sync import Alone
from jobs.runs.folder import RunFolder
from jobs.runs.worker import Job, work
from serving.app import create_app
from serving.backend import LocalBackend
from serving.settings import Settings

TEXT = "a red striped star left of a blue disc"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("texts")
    recipe = tiny("flow", "model.text=true", "data.scenes=captioned", "train.lr=0.02")
    work(Job(recipe.model_dump_json(), "painter", str(home)), Alone(), torch.device("cpu"))
    models = Registry(open_storage(str(home / "registry")))
    models.register("painter", RunFolder(str(home), "painter").fetch(64, home), {}, {})
    return home / "registry"


@pytest.fixture(scope="module")
def url(registry) -> Iterator[str]:
    settings = Settings.validated({"registry": str(registry), "models": [{"ref": "painter"}]})
    backend = LocalBackend(settings)
    backend.load()
    with running(create_app(backend, settings.limits)) as url:
        yield url
    backend.close()


def test_a_prompt_is_what_is_drawn(url, registry):
    models = Registry(open_storage(str(registry)))
    engine = Engine.load(models.fetch(models.resolve("painter")), "cpu")
    expected = sample(engine, 2, seed=7, text=TEXT)
    ai = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
    made = ai.images.generate(prompt=TEXT, n=2, extra_body={"seed": 7}).data
    for image, mine in zip(made, expected, strict=True):
        np.testing.assert_array_equal(np.array(opened(base64.b64decode(image.b64_json))), mine)
    answer = httpx.post(f"{url}/v1/images/sample", json={"text": TEXT, "seed": 7})
    np.testing.assert_array_equal(np.array(opened(answer.content)), expected[0])


@pytest.mark.parametrize(
    ("route", "param", "text", "said"),
    [
        ("generations", "prompt", "a purpel disc", "the word 'purpel' is not known; the nearest"),
        ("sample", "text", "a purpel disc", "that are: purple, "),
        ("vary", "text", "a disk", "that are: disc"),
        ("sample", "text", "a disc " * 20, "has 40 words; at most 24 are read"),
    ],
)
def test_what_cannot_be_read_is_refused_by_the_name_that_it_came_by(url, route, param, text, said):
    body = {param: text} | ({"of": 1} if route == "vary" else {})
    answer = httpx.post(f"{url}/v1/images/{route}", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert said in error["message"]


def test_a_text_of_known_words_that_is_of_no_grammar_is_drawn_with_a_note(url):
    for route, key in (("generations", "prompt"), ("sample", "text")):
        body = {"response_format": "b64_json", "seed": 7}
        made = httpx.post(f"{url}/v1/images/{route}", json={key: "red left two"} | body).json()
        (note,) = made["notes"]
        assert note.startswith("text='red left two': all its words are known, but no such texts")
        assert len(made["data"]) == 1
        assert "notes" not in httpx.post(f"{url}/v1/images/{route}", json={key: TEXT} | body).json()


def test_a_model_tells_its_words_and_their_grammar(url):
    (model,) = httpx.get(f"{url}/v1/models").json()["data"]
    assert tuple(model["words"]) == WORDS
    assert model["grammar"] == GRAMMAR
