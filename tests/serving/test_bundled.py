"""The models that come with genimg, served together: which of them answers what."""

from collections.abc import Iterator

import httpx
import pytest
from live_server import file_of, opened, pixels, running

from genimg import bundled
from serving.app import create_app
from serving.backend import LocalBackend
from serving.settings import Settings

PICTURE = file_of(pixels(24, 32, 3))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Of a server whose registry has no model of its own."""
    names = ["deblock", "restore", "upscale-x2", "upscale-x4"]
    settings = Settings.validated(
        {
            "registry": str(tmp_path_factory.mktemp("registry")),
            "models": [{"ref": name} for name in names],
        }
    )
    assert set(names) < set(bundled.names())
    backend = LocalBackend(settings)
    backend.load()
    app = create_app(backend, settings.limits, meters=backend.meters)
    with running(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client
    backend.close()


@pytest.mark.parametrize(
    ("route", "model", "size"),
    [
        ("upscale", "upscale-x2", (64, 48)),
        ("upscale?scale=2", "upscale-x2", (64, 48)),
        ("upscale?scale=4", "upscale-x4", (128, 96)),
        ("deblock", "deblock", (32, 24)),
        ("restore", "restore", (32, 24)),  # though another that restores stands before it
        ("restore?model=deblock", "deblock", (32, 24)),
    ],
)
def test_the_model_that_is_meant_answers(client, route, model, size):
    answer = client.post(f"/v1/images/{route}", files={"image": ("a.png", PICTURE, "image/png")})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-model-id"] == model
    assert opened(answer.content).size == size


def test_a_scale_that_none_has_is_refused_by_one_that_enlarges(client):
    answer = client.post("/v1/images/upscale?scale=3", content=PICTURE)
    assert answer.status_code == 400
    assert "enlarges by 2" in answer.json()["error"]["message"]
    scales = {each["id"]: each["scale"] for each in client.get("/v1/models").json()["data"]}
    assert scales == {"deblock": 1, "restore": 1, "upscale-x2": 2, "upscale-x4": 4}
