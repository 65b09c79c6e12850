"""Settings that change while requests come."""

import asyncio
import json
import threading
from contextlib import suppress

import httpx
import pytest
from live_server import made_key, until
from test_host import spoil

from cluster.versions import Damaged, Unknown
from genimg.errors import InputError
from genimg.operations.drawing import Sample
from serving import following
from serving.backend import LocalBackend
from serving.errors import ApiError
from serving.keys import keys_of
from serving.metrics import Meters
from serving.renewing import Renewing
from serving.requests import Request
from serving.settings import Settings

A, B, OWN = {"ref": "a"}, {"ref": "b"}, {"ref": "own", "placement": "own"}


def settings_of(*models: dict, **more: object) -> Settings:
    return Settings.validated({"models": list(models)} | more)


@pytest.mark.parametrize(
    ("new", "live", "later"),
    [
        ({"models": [B, A, OWN], "origins": ["*"]}, {"models": (B, A, OWN)}, []),
        ({"models": [A | {"max_queue": 3}, OWN]}, {"models": (A | {"max_queue": 3}, OWN)}, []),
        ({"models": [A]}, {}, ["models (own)"]),
        ({"models": [A, OWN | {"num_cpus": 2}]}, {}, ["models (own)"]),
        (
            {"models": [OWN | {"canary": {"version": 8, "share": 0.1}}, A]},
            {"models": (OWN | {"canary": {"version": 8, "share": 0.1}}, A)},
            [],
        ),
        ({"models": [], "discover": ["*"], "memory": 9}, {"models": [OWN]}, ["models (own)"]),
        ({"models": [A, {"ref": "own"}]}, {}, ["models (own)"]),
        ({"models": [A, OWN, B | {"placement": "own"}]}, {}, ["models (b)"]),
        ({"limits": {"max_bytes": 7, "upload_s": 1}}, {"max_bytes": 7}, ["limits.upload_s"]),
        ({"keys_file": "k", "poll_s": 9}, {"keys_file": "k"}, ["poll_s"]),
        ({"ingress": {"replicas": 2}, "registry": "x"}, {}, ["registry", "ingress"]),
    ],
)
def test_what_changes_at_once_and_what_takes_a_restart(new, live, later):
    old = settings_of(A, OWN, changes="here")
    renewed, left = old.renewed(Settings.validated({"models": [A, OWN]} | new))
    assert sorted(left) == sorted(later)
    models = live.get("models", (A, OWN))
    assert renewed.models == settings_of(*models).models
    assert renewed.limits.max_bytes == live.get("max_bytes", 50_000_000)
    assert renewed.keys_file == live.get("keys_file")
    assert renewed.changes == "here"
    assert (renewed.poll_s, renewed.ingress, renewed.limits.upload_s) == (2, old.ingress, 60)
    published = json.dumps({"settings": renewed.model_dump(mode="json", exclude_unset=True)})
    assert following.of(published) == renewed


def test_models_come_and_go_under_load_and_no_request_fails(trained):
    def settings(*models: dict, **more: object) -> Settings:
        return settings_of(*models, registry=str(trained), **more)

    first, second = {"ref": "figures@1"}, {"ref": "figures@2"}
    before = set(threading.enumerate())
    backend = LocalBackend(settings(first))
    backend.load()
    answered: list[tuple[str, int]] = []

    async def scenario() -> None:
        over = asyncio.Event()

        async def ask() -> None:
            while not over.is_set():
                answer = await backend.call(None, Request(Sample(n=4, seed=1)))
                answered.append((answer.model, answer.version))

        asking = [asyncio.create_task(ask()) for _ in range(4)]
        for models in ([second, first], [first | {"max_batch_size": 2}], [second]):
            await backend.change(settings(*models, limits={"max_images": 4}))
            known = [model.id for model in await backend.models()]
            assert known == [model["ref"] for model in models]
            assert backend.ready()
            seen = len(answered)
            while len(answered) < seen + 20:
                await asyncio.sleep(0.01)
        over.set()
        await asyncio.gather(*asking)
        with pytest.raises(ApiError, match="no such model is served"):
            await backend.call("figures@1", Request(Sample()))
        with pytest.raises(ApiError, match="at most 4 images"):
            await backend.call(None, Request(Sample(n=5)))
        while backend._shelf.room.leaving:
            await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert set(answered) == {("figures@1", 1), ("figures@2", 2)}
    shown = backend.meters.exposition().decode()
    assert 'genimg_served_version{model="figures@2"} 2.0' in shown
    assert "figures@1" not in shown  # or there is ever more of what comes and goes
    backend.close()
    until(lambda: set(threading.enumerate()) <= before)


def test_models_that_cannot_be_loaded_change_nothing(registry):
    spoil(registry, "figures", 2)
    models = [{"ref": "figures@1"}]
    backend = LocalBackend(settings_of(*models, registry=str(registry)))
    backend.load()
    broken = settings_of(models[0] | {"max_queue": 5}, {"ref": "figures@2"}, registry=str(registry))

    async def scenario() -> None:
        with pytest.raises(Damaged):
            await backend.change(broken)
        assert (await backend.call(None, Request(Sample()))).version == 1

    asyncio.run(scenario())
    assert [model.max_queue for model in backend.settings.models] == [128]
    assert 'genimg_served_version{model="figures@1"} 1.0' in backend.meters.exposition().decode()
    backend.close()


def test_limits_and_keys_are_others_from_the_next_request_on(trained, tmp_path):
    def settings(**more: object) -> Settings:
        return settings_of({"ref": "figures@1"}, registry=str(trained), **more)

    text = made_key(tmp_path / "keys.json", "alice")
    (tmp_path / "odd.json").write_text("odd")
    backend = LocalBackend(settings())
    backend.load()
    renewing = Renewing(settings(), backend, backend.meters, keys_of)
    app = renewing.app
    asking = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")

    async def status(n: int, key: str = "") -> int:
        headers = {"Authorization": f"Bearer {key}"} if key else None
        return (await asking.post("/v1/images/sample", json={"n": n}, headers=headers)).status_code

    async def most() -> int:
        paths = (await asking.get("/openapi.json")).json()["paths"]
        (n,) = (
            each for each in paths["/v1/images/sample"]["post"]["parameters"] if each["name"] == "n"
        )
        return next(each["maximum"] for each in n["schema"]["anyOf"] if "maximum" in each)

    async def scenario() -> None:
        assert (await status(5), await most()) == (200, 64)
        keyed = {"keys_file": str(tmp_path / "keys.json")}
        await renewing.change(settings(limits={"max_images": 4}, **keyed))
        assert (await status(1), await status(4, text), await status(5, text)) == (401, 200, 400)
        assert await most() == 4
        with pytest.raises(InputError, match=r"odd\.json"):
            await renewing.change(settings(keys_file=str(tmp_path / "odd.json")))
        with pytest.raises(Unknown):
            await renewing.change(settings_of({"ref": "none"}, registry=str(trained)))
        assert (await status(1), await status(4, text), await status(5, text)) == (401, 200, 400)
        await renewing.change(settings())
        assert (await status(5), renewing.app) == (200, app)

    asyncio.run(scenario())
    renewing.close()
    backend.close()
    until(lambda: "watch keys" not in {thread.name for thread in threading.enumerate()})


def test_a_replica_follows_what_is_published_and_says_what_it_refuses(monkeypatch):
    said: dict[str, str] = {}
    monkeypatch.setattr(following, "published", said.get)
    monkeypatch.setattr(following, "publish", said.__setitem__)
    old = settings_of(A, changes="here", poll_s=0.01)
    assert following.newest(old) == (old, None)
    had: list[Settings] = []
    meters = Meters()

    async def change(settings: Settings) -> None:
        if settings.models[0].ref == "b":
            raise ValueError("b is\nbroken")
        had.append(settings)

    def publish(count: int, *models: dict) -> Settings:
        new = settings_of(*models, changes="here")
        tree = new.model_dump(mode="json", exclude_unset=True)
        said["here"] = json.dumps({"count": count, "settings": tree})
        return new

    async def scenario() -> None:
        task = asyncio.create_task(following.follow(old, None, change, meters))
        first = publish(1, B)
        while "here/refused" not in said:
            await asyncio.sleep(0.01)
        assert json.loads(said["here/refused"]) == {"count": 1, "reason": "b is broken"}
        await asyncio.sleep(0.05)
        second = publish(2, A, B)
        while not had:
            await asyncio.sleep(0.01)
        assert (had, following.newest(old)) == ([second], (second, said["here"]))
        assert first != second
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert meters.registry.get_sample_value("genimg_settings_refused_total") == 1
