"""Versions that change while requests come: nobody is dropped, and what is broken is refused."""

import asyncio
import shutil
import threading
from collections import Counter
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from engine_calls import sample
from live_server import opened, running, until

from cluster.places import open_storage
from cluster.promotion import promote, rollback
from cluster.registry import Registry
from cluster.versions import Damaged, Unknown
from genimg import checkpoint
from genimg.engine import Engine
from genimg.operations.drawing import Sample
from serving.app import create_app
from serving.backend import LocalBackend
from serving.errors import ApiError
from serving.host import Host
from serving.model_settings import ModelSettings
from serving.requests import Request
from serving.settings import Settings


@pytest.fixture
def models(registry) -> Registry:
    return Registry(open_storage(str(registry)))


@contextmanager
def serving(registry, ref, poll_s=0.05, **model):
    """A client of a server of one reference."""
    settings = Settings.validated(
        {"registry": str(registry), "models": [{"ref": ref} | model], "poll_s": poll_s}
    )
    backend = LocalBackend(settings)
    backend.load()
    app = create_app(backend, settings.limits, meters=backend.meters)
    try:
        with running(app) as url, httpx.Client(base_url=url, timeout=60) as client:
            yield client
    finally:
        backend.close()


def version(client) -> int:
    return client.get("/v1/models").json()["data"][0]["version"]


def rejected(client) -> dict | None:
    return client.get("/v1/models").json()["data"][0]["rejected"]


def metric(client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith(f"genimg_{name}{{")]
    return float(line.split()[-1])


def spoil(registry, model: str, number: int, file: str = checkpoint.WEIGHTS) -> None:
    """Flip one bit of a version's file."""
    path = registry / "models" / model / "versions" / f"{number:05d}" / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def again(models, tmp_path, reference: str, weights=lambda name, tensor: tensor, to=None) -> int:
    """Register a version's checkpoint once more, with other weights; its number."""
    old = models.fetch(models.resolve(reference))
    folder = tmp_path / "again"
    tensors = checkpoint.read_tensors(old, checkpoint.WEIGHTS)
    checkpoint.write(
        folder,
        recipe=(old / checkpoint.RECIPE).read_text(),
        weights={name: weights(name, tensor) for name, tensor in tensors.items()},
        training={},
        progress={},
        metrics={},
        samples=b"",
        lineage={},
    )
    return models.register(to or reference.partition("@")[0], folder, {}, {}).number


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_answer_says_in_which_precision_it_was_computed(registry, models, precision):
    folder = models.fetch(models.get("figures", 1))
    expected = sample(Engine.load(folder, "cpu", precision), 1, seed=3)[0]
    with serving(registry, "figures@1", precision=precision) as client:
        answer = client.post("/v1/images/sample", json={"seed": 3})
        assert answer.headers["x-precision"] == precision
        assert "X-Precision" in answer.headers["access-control-expose-headers"]
        assert np.array_equal(np.array(opened(answer.content)), expected)
        assert client.get("/v1/models").json()["data"][0]["precision"] == precision
        answers = client.get("/openapi.json").json()["paths"]["/v1/images/sample"]["post"]
        assert "X-Precision" in answers["responses"]["200"]["headers"]


def test_a_promotion_under_load_loses_no_request_and_changes_the_version(registry, models):
    engines = {
        number: Engine.load(models.fetch(models.get("figures", number)), "cpu") for number in (1, 2)
    }
    expected = {number: sample(engine, 4, seed=3) for number, engine in engines.items()}
    assert not np.array_equal(expected[1], expected[2])
    statuses: Counter[int] = Counter()
    versions: Counter[str] = Counter()
    wrong = []
    enough = threading.Event()

    def ask(client: httpx.Client) -> None:
        while not enough.is_set():
            answer = client.post("/v1/images/sample", json={"n": 1, "seed": 3})
            statuses[answer.status_code] += 1
            number = answer.headers["x-model-version"]
            versions[number] += 1
            if not np.array_equal(np.array(opened(answer.content)), expected[int(number)][0]):
                wrong.append(number)

    with serving(registry, "figures@production") as client:
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for number, reference in ((1, "figures@2"), (2, "figures@1"), (1, "figures@2")):
            before = versions[str(number)]
            until(lambda n=str(number), before=before: versions[n] > before + 30)
            promote(models, reference, "production")
        before = versions["2"]
        until(lambda: versions["2"] > before + 30)
        enough.set()
        for thread in threads:
            thread.join()
        assert metric(client, "swaps_total") == 3
        assert metric(client, "served_version") == 2
    assert statuses.keys() == {200}
    assert wrong == []


def test_requests_in_flight_end_on_the_engine_that_they_started_with(registry, models):
    host = Host(
        ModelSettings(ref="figures@production", max_batch_size=1, max_queue=500),
        str(registry),
        poll_s=0.02,
    )
    engines = {
        number: Engine.load(models.fetch(models.get("figures", number)), "cpu") for number in (1, 2)
    }

    async def scenario() -> None:
        early = [
            asyncio.ensure_future(host.call(Request(Sample(seed=seed)))) for seed in range(100)
        ]
        await asyncio.sleep(0)
        promote(models, "figures@2", "production")
        for seed, answer in enumerate(await asyncio.gather(*early)):
            assert answer.version == 1
            expected = engines[1](Sample(seed=seed)).images[0]
            np.testing.assert_array_equal(np.array(opened(answer.images[0])), expected)
        await asyncio.to_thread(until, lambda: host.look() or host.info().version == 2)
        late = await host.call(Request(Sample(seed=7)))
        assert late.version == 2
        expected = engines[2](Sample(seed=7)).images[0]
        np.testing.assert_array_equal(np.array(opened(late.images[0])), expected)

    asyncio.run(scenario())
    host.close()


def test_a_plain_name_follows_the_newest_version(registry, models, tmp_path):
    with serving(registry, "figures") as client:
        assert version(client) == 2
        number = again(models, tmp_path, "figures@1")
        until(lambda: version(client) == number)
        assert client.post("/v1/images/sample").headers["x-model-version"] == str(number)


def test_a_registry_on_s3_is_served_and_followed(models, bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("GENIMG_CACHE", str(tmp_path / "cache"))
    far = Registry(open_storage(bucket))
    for number in (1, 2):
        folder = models.fetch(models.get("figures", number))
        copy = shutil.copytree(folder, tmp_path / str(number), ignore=lambda *_: ["version.json"])
        far.register("figures", copy, {}, {})
    promote(far, "figures@1", "production")
    with serving(bucket, "figures@production") as client:
        assert client.post("/v1/images/sample").headers["x-model-version"] == "1"
        promote(far, "figures@2", "production")
        until(lambda: version(client) == 2)
        assert client.post("/v1/images/sample").headers["x-model-version"] == "2"


def test_a_number_stays_what_it_is(registry, models):
    with serving(registry, "figures@1") as client:
        promote(models, "figures@2", "production")
        assert version(client) == 1
        assert "swap figures@1" not in {thread.name for thread in threading.enumerate()}


def test_a_damaged_version_is_refused_and_the_old_one_goes_on(registry, models, tmp_path):
    third = again(models, tmp_path, "figures@2")
    spoil(registry, "figures", 2)
    with serving(registry, "figures@production") as client:
        promote(models, "figures@2", "production")
        until(lambda: rejected(client))
        assert rejected(client)["version"] == 2
        assert "figures@2: weights.safetensors" in rejected(client)["reason"]
        assert client.post("/v1/images/sample").headers["x-model-version"] == "1"
        assert client.get("/health").status_code == 200
        assert metric(client, "swaps_refused_total") >= 1
        assert metric(client, "served_version") == 1
        rollback(models, "figures", "production")
        until(lambda: rejected(client) is None)
        promote(models, "figures@2", "production")
        until(lambda: rejected(client))
        promote(models, f"figures@{third}", "production")
        until(lambda: version(client) == third)
        assert rejected(client) is None


def test_a_version_that_is_mended_is_served_after_all(registry, models):
    spoil(registry, "figures", 2)
    with serving(registry, "figures@production") as client:
        promote(models, "figures@2", "production")
        until(lambda: metric(client, "swaps_refused_total") >= 3)  # tried again and again
        spoil(registry, "figures", 2)  # a bit that is flipped twice is as it was
        until(lambda: version(client) == 2)
        assert rejected(client) is None


def test_a_version_whose_description_is_damaged_is_refused(registry, models, tmp_path):
    third = again(models, tmp_path, "figures@1")
    marker = registry / "models" / "figures" / "versions" / f"{third:05d}" / "version.json"
    text = marker.read_text()
    marker.unlink()  # which makes it no version yet
    with serving(registry, "figures") as client:
        marker.write_text(text.replace("version", "Version"))
        until(lambda: rejected(client))
        assert rejected(client)["version"] == third
        assert "version.json is altered" in rejected(client)["reason"]
        assert version(client) == 2


@pytest.mark.parametrize("fault", ["nan", "capability", "shape", "foreign"])
def test_a_version_that_cannot_do_what_the_old_one_does_is_refused(
    registry, models, tmp_path, fault
):
    with serving(registry, "figures") as client:
        if fault == "capability":
            number = again(models, tmp_path, "denoiser", to="figures")
            can = "sample, interpolate, traverse, vary, decode, invert"
            reason = f"it cannot {can}, as version 2 can"
        elif fault == "nan":
            number = again(
                models, tmp_path, "figures@1", lambda name, tensor: tensor * float("nan")
            )
            reason = "weights that are no finite numbers"
        elif fault == "shape":
            number = again(models, tmp_path, "figures@1", lambda name, tensor: tensor.flatten())
            reason = "size mismatch"
        else:
            folder = tmp_path / "foreign"
            folder.mkdir()
            (folder / "readme.txt").write_text("no checkpoint")
            number = models.register("figures", folder, {}, {}).number
            reason = "not a genimg checkpoint"
        until(lambda: rejected(client))
        assert rejected(client)["version"] == number
        assert reason in rejected(client)["reason"]
        assert client.post("/v1/images/sample").headers["x-model-version"] == "2"


def test_a_registry_that_cannot_be_reached_disturbs_nobody(registry, models):
    away = registry.with_name("away")
    with serving(registry, "figures@production") as client:
        registry.rename(away)
        until(lambda: metric(client, "registry_failures_total") >= 3)
        assert client.post("/v1/images/sample").headers["x-model-version"] == "1"
        assert rejected(client) is None
        away.rename(registry)
        promote(models, "figures@2", "production")
        until(lambda: version(client) == 2)


def test_a_closed_host_ends_its_threads_and_refuses(registry):
    before = set(threading.enumerate())
    host = Host(ModelSettings(ref="figures@production"), str(registry), poll_s=0.02)
    asyncio.run(host.call(Request(Sample(seed=1))))
    begun = {thread.name for thread in set(threading.enumerate()) - before}
    assert {"engine figures@production", "settle figures@production"} <= begun
    promote(Registry(open_storage(str(registry))), "figures@2", "production")
    host.look()
    host.close()
    until(lambda: set(threading.enumerate()) <= before)
    with pytest.raises(ApiError) as caught:
        asyncio.run(host.call(Request(Sample(seed=1))))
    assert caught.value.status == 503


def test_it_is_not_ready_once_an_engine_computes_no_more(registry):
    backend = LocalBackend(
        Settings.validated({"registry": str(registry), "models": [{"ref": "figures@1"}]})
    )
    backend.load()
    with running(create_app(backend)) as url:
        assert httpx.get(f"{url}/readyz").status_code == 200
        backend._shelf.room.hosts()[0]._large.close()
        assert httpx.get(f"{url}/readyz").status_code == 503
        assert httpx.get(f"{url}/livez").status_code == 200
    backend.close()


def test_sizes_of_passes_are_tried_behind_the_start(registry):
    backend = LocalBackend(
        Settings.validated({"registry": str(registry), "models": [{"ref": "figures@1"}]})
    )
    backend.load()
    (host,) = backend._shelf.room.hosts()
    sizes = host.served.engine.inference.sizes
    until(lambda: set(sizes.tried) <= set(sizes._agree))
    backend.close()
    assert not any(thread.name.startswith("settle") for thread in threading.enumerate())


def test_the_first_version_must_be_sound(registry):
    spoil(registry, "figures", 1)
    with pytest.raises(Damaged, match=r"figures@1: weights\.safetensors"):
        Host(ModelSettings(ref="figures@production"), str(registry))
    with pytest.raises(Unknown, match="no alias 'prod'"):
        Host(ModelSettings(ref="figures@prod"), str(registry))
    before = set(threading.enumerate())
    backend = LocalBackend(
        Settings.validated(
            {"registry": str(registry), "models": [{"ref": "denoiser"}, {"ref": "nil"}]}
        )
    )
    with pytest.raises(Unknown):
        backend.load()
    assert not backend.ready()
    until(lambda: set(threading.enumerate()) <= before)  # what was loaded before has ended
