"""The models that come with genimg, served together: which of them answers what."""

import shutil
from collections.abc import Iterator

import httpx
import pytest
from live_server import file_of, opened, pixels, served, until

from cluster.places import open_storage
from cluster.registry import Registry
from genimg import bundled
from genimg.passes import rows_at_once
from serving.about import looked_up
from serving.host import Host
from serving.model_settings import ModelSettings
from serving.settings import Settings

PICTURE = file_of(pixels(24, 32, 3))


@pytest.fixture(scope="module", autouse=True)
def loaded_soon() -> Iterator[None]:
    """Of sizes of passes one row and full ones alone are tried when a model is loaded: that of all
    takes most of the time, and is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("genimg.passes.PROBED", (1,))
        rows_at_once.cache_clear()
        yield
    rows_at_once.cache_clear()


@pytest.fixture(scope="module")
def client(loaded_soon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Of a server whose registry has no model of its own."""
    names = ["deblock", "restore", "upscale-x2", "upscale-x4"]
    settings = Settings.validated(
        {
            "registry": str(tmp_path_factory.mktemp("registry")),
            "models": [{"ref": name} for name in names],
        }
    )
    assert set(names) < set(bundled.names())
    with served(settings) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


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


def test_a_scale_that_none_has_is_refused(client):
    answer = client.post("/v1/images/upscale?scale=3", content=PICTURE)
    assert answer.status_code == 400
    assert "scale=3: the served models enlarge by 2 and 4" in answer.json()["error"]["message"]
    scales = {each["id"]: each["scale"] for each in client.get("/v1/models").json()["data"]}
    assert scales == {"deblock": 1, "restore": 1, "upscale-x2": 2, "upscale-x4": 4}


def test_what_a_model_does_is_told_as_its_card_begins(client):
    told = {each["id"]: each["about"] for each in client.get("/v1/models").json()["data"]}
    assert told["upscale-x2"] == "Enlarges twice what was shrunk bicubically."
    registry = Registry(open_storage(str(bundled.FOLDER)))
    for name in told:  # likewise before it is loaded
        version = registry.resolve(name)
        assert looked_up(registry, name, version, "auto", "cpu").about == told[name] != ""


def test_what_would_become_too_large_is_refused_by_what_comes_out(client):
    wide = file_of(pixels(4, 4100, 3))
    answer = client.post("/v1/images/upscale?scale=4&output_format=webp", content=wide)
    assert answer.status_code == 400, answer.text
    assert "16,383 pixels a side" in answer.json()["error"]["message"]
    large = file_of(pixels(2100, 2100, 3))
    answer = client.post("/v1/images/upscale?scale=4", content=large)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "image_too_large"
    assert "8400x8400 would come of it" in answer.json()["error"]["message"]


def test_a_model_of_one_s_own_takes_over_from_the_bundled_one_of_its_name(tmp_path):
    source = bundled.FOLDER / "models" / "denoise-gray" / "versions" / "00001"
    own = tmp_path / "own"
    shutil.copytree(source, own, ignore=shutil.ignore_patterns("version.json"))
    registry = Registry(open_storage(str(tmp_path / "registry")))
    host = Host(ModelSettings(ref="denoise"), str(registry.storage), poll_s=0.1)
    try:
        assert host.info().recipe == "drunet"
        version = registry.register("denoise", own, {}, {})
        until(lambda: host.look() or host.info().recipe == "ffdnet")
        assert version.number == 1  # as the bundled one is
        registry.remove(version.reference)
        host.look()
        assert host.info().recipe == "ffdnet"  # and nothing that was not meant
    finally:
        host.close()
