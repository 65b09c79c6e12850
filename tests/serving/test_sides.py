"""Another version beside the one that answers: a canary, which does so now and then; a shadow."""

import asyncio
import base64
import json
from collections import Counter

import httpx
import pytest
from live_server import file_of, pixels, running, until
from test_host import again, spoil

from cluster.places import open_storage
from cluster.promotion import promote
from cluster.registry import Registry
from genimg.operations.drawing import Interpolate, Sample
from genimg.operations.restoring import Denoise
from serving import answers, sides
from serving.app import create_app
from serving.backend import LocalBackend
from serving.errors import ApiError
from serving.lots import lot_of, of_one_lot
from serving.requests import Answer, Request
from serving.settings import Settings

SAMPLE = "/v1/images/sample"
REF = "figures@production"


@pytest.fixture
def models(registry) -> Registry:
    return Registry(open_storage(str(registry)))


def settings_of(registry, ref: str = REF, **model) -> Settings:
    tree = {"registry": str(registry), "models": [{"ref": ref} | model], "poll_s": 0.02}
    return Settings.validated(tree)


@pytest.fixture
def backend(registry):
    """Makes loaded backends, which are closed afterwards; what is beside their models is awaited,
    unless it is not to come."""
    backends = []

    def one(ref: str = REF, comes: bool = True, **model) -> LocalBackend:
        backends.append(LocalBackend(settings_of(registry, ref, **model)))
        backends[-1].load()
        if comes:
            until(lambda: states(backends[-1]) <= {"ready"})
        return backends[-1]

    yield one
    for each in backends:
        each.close()


def states(backend: LocalBackend) -> set[str]:
    (info,) = asyncio.run(backend.models())
    return {each.state for each in (info.canary, info.shadow) if each}


def why(backend: LocalBackend) -> str:
    """A canary is not loaded."""
    (info,) = asyncio.run(backend.models())
    return info.canary.rejected.reason if info.canary.rejected else ""


def sampled(seed: int, n: int = 1) -> Request:
    return Request(Sample(n=n, seed=seed))


def versions(backend: LocalBackend, seeds: range) -> dict[int, int]:
    async def scenario() -> list[int]:
        return [(await backend.call(None, sampled(seed))).version for seed in seeds]

    return dict(zip(seeds, asyncio.run(scenario()), strict=True))


def counted(backend: LocalBackend) -> dict[tuple[str, str, str], float]:
    """Requests by side, version and status."""
    shown = backend.meters.registry.collect()
    (family,) = (each for each in shown if each.name == "genimg_side_requests")
    return {
        tuple(sample.labels[key] for key in ("side", "version", "status")): sample.value
        for sample in family.samples
        if sample.name.endswith("_total")
    }


def dropped(backend: LocalBackend) -> float:
    name = "genimg_shadow_dropped_total"
    return backend.meters.registry.get_sample_value(name, {"model": REF}) or 0


def test_the_lot_of_a_request_is_that_of_what_comes_of_it():
    lots = [lot_of(sampled(seed)) for seed in range(2000)]
    assert lots == [lot_of(sampled(seed)) for seed in range(2000)]
    assert sum(lot < 0.1 for lot in lots) == pytest.approx(200, abs=50)
    assert len({lot_of(sampled(-1)) for _ in range(20)}) == 20
    assert lot_of(Request(Interpolate(seeds="1,2"))) == lot_of(Request(Interpolate(seeds="1,2")))
    images = [file_of(pixels(8, 8, seed=seed)) for seed in range(3)]
    restored = [lot_of(Request(Denoise(), {"image": image})) for image in images * 2]
    assert restored[:3] == restored[3:]
    assert len(set(restored)) == 3
    together = of_one_lot([sampled(seed) for seed in range(9)])
    assert {lot_of(each) for each in together} == {lots[0]}


def test_a_share_is_answered_by_the_canary_and_the_same_seed_always_by_one_side(backend, registry):
    one = backend(canary={"version": 2, "share": 0.3})
    first = versions(one, range(60))
    assert first == versions(one, range(60))
    assert first == {seed: 2 if lot_of(sampled(seed)) < 0.3 else 1 for seed in range(60)}
    count = Counter(first.values())
    assert counted(one) == {
        ("stable", "1", "200"): 2 * count[1], ("canary", "2", "200"): 2 * count[2]
    }  # fmt: skip
    more = settings_of(registry, canary={"version": 2, "share": 0.6})
    asyncio.run(one.change(more))
    second = versions(one, range(60))
    assert {seed for seed in first if first[seed] == 2} < {
        seed for seed in second if second[seed] == 2
    }
    loads = "genimg_loads_total"
    for label in (REF, f"{REF} (canary)"):  # nothing was loaded again
        assert one.meters.registry.get_sample_value(loads, {"model": label}) == 1
    asyncio.run(one.change(settings_of(registry)))
    assert set(versions(one, range(20)).values()) == {1}
    until(lambda: not one._shelf.room.leaving)
    shown = one.meters.exposition().decode()
    assert f'genimg_served_version{{model="{REF} (canary)"}}' not in shown


def test_over_http_the_version_is_told_and_what_belongs_together_is_of_one(backend, registry):
    one = backend(canary={"version": "2", "share": 0.5}, shadow={"version": 1})
    app = create_app(one, meters=one.meters)
    with running(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        for seed in range(6):
            answer = client.post(SAMPLE, json={"n": 3, "seed": seed})
            expected = 2 if lot_of(sampled(seed, 3)) < 0.5 else 1
            assert answer.headers["x-model-id"] == REF
            assert answer.headers["x-model-version"] == str(expected)
        stream = {"prompt": "", "n": 3, "stream": True, "partial_images": 2}
        for _ in range(4):
            answer = client.post("/v1/images/generations", json=stream)
            data = [line for line in answer.text.splitlines() if line.startswith("data: ")]
            events = [json.loads(line.removeprefix("data: ")) for line in data]
            assert len(events) == 9
            assert len({event["version"] for event in events if "version" in event}) == 1
        moving = {"prompt": "", "n": 3, "output_format": "gif", "frame_count": 3}
        for _ in range(6):  # of three requests to the model each
            answer = client.post("/v1/images/generations", json=moving)
            assert len(answer.json()["data"]) == 3
            assert base64.b64decode(answer.json()["data"][0]["b64_json"]).startswith(b"GIF8")
        (model,) = client.get("/v1/models").json()["data"]
    assert model["canary"] == {
        "reference": "figures@2", "share": 0.5, "state": "ready", "version": 2, "rejected": None
    }  # fmt: skip
    assert (model["shadow"]["reference"], model["shadow"]["share"]) == ("figures@1", 1)


def test_a_canary_that_cannot_be_loaded_leaves_all_to_the_other_until_it_can(
    backend, registry, models
):
    spoil(registry, "figures", 2)
    one = backend(canary={"version": "next", "share": 1}, comes=False)
    assert one.ready()
    until(lambda: states(one) == {"broken"})
    assert "no alias 'next'" in why(one)
    assert set(versions(one, range(5)).values()) == {1}
    promote(models, "figures@2", "next")
    until(lambda: "is altered" in why(one))
    assert set(versions(one, range(5)).values()) == {1}
    spoil(registry, "figures", 2)  # a bit that is flipped twice is as it was
    until(lambda: states(one) == {"ready"})
    assert set(versions(one, range(5)).values()) == {2}
    assert why(one) == ""


def test_versions_beside_that_are_not_there_are_told(backend):
    one = backend(canary={"version": 9, "share": 0.5}, shadow={"version": "next"}, comes=False)
    app = create_app(one, meters=one.meters)
    until(lambda: states(one) == {"broken"})
    with running(app) as url, httpx.Client(base_url=url) as client:
        (model,) = client.get("/v1/models").json()["data"]
    assert "figures has no version 9" in model["canary"]["rejected"]["reason"]
    assert "figures has no alias 'next'" in model["shadow"]["rejected"]["reason"]
    assert model["state"] == "ready"


def test_what_a_canary_cannot_do_or_fails_to_the_other_does(backend, models, tmp_path, monkeypatch):
    again(models, tmp_path, "denoiser", to="figures")
    one = backend(canary={"version": 3, "share": 1})
    assert set(versions(one, range(3)).values()) == {1}  # it can only denoise
    asyncio.run(one.change(settings_of(one.settings.registry, canary={"version": 2, "share": 1})))
    until(lambda: states(one) == {"ready"})
    host = one._shelf.take_beside(REF, "canary", "sample")
    for error, status in ((RuntimeError("a fault"), "500"), (ApiError(429, "full", ""), "429")):

        async def fails(*_: object, error=error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(host, "call", fails)
            assert set(versions(one, range(2)).values()) == {1}
        assert counted(one)["canary", "2", status] == 2
    with pytest.raises(ApiError, match="at most"):  # which is the client's own
        asyncio.run(one.call(None, sampled(0, n=1000)))
    one._shelf.release(host)


def test_a_canary_that_hangs_is_told_from_a_client_that_leaves(backend, monkeypatch):
    one = backend(canary={"version": 2, "share": 1})
    one._shelf.settings = one.settings.model_copy(
        update={"limits": one.settings.limits.model_copy(update={"timeout_s": 0.4})}
    )
    host = one._shelf.take_beside(REF, "canary", "sample")
    monkeypatch.setattr(host, "call", lambda *_: asyncio.sleep(60))
    for seconds in (0.05, 0.4):
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(one.call(None, sampled(0)), seconds))
    assert counted(one) == {("canary", "2", "499"): 1, ("canary", "2", "504"): 1}
    one._shelf.release(host)


def test_where_a_canary_fails_on_some_of_what_belongs_together_the_other_does_it_all(
    backend, monkeypatch
):
    one = backend(canary={"version": 2, "share": 1})
    host = one._shelf.take_beside(REF, "canary", "sample")
    call = host.call

    async def fails(request: Request, *more: object) -> Answer:
        if request.operation.seed == 1:
            raise RuntimeError("a fault")
        return await call(request, *more)

    monkeypatch.setattr(host, "call", fails)
    together = answers._all(one, None, [sampled(seed) for seed in range(3)])
    answer = asyncio.run(asyncio.wait_for(together, 20))
    assert (len(answer.images), answer.version) == (3, 1)
    one._shelf.release(host)


def test_of_many_versions_only_the_last_are_counted_on(backend):
    one = backend(canary={"version": 2, "share": 1})
    for version in range(10):
        one.meters.of_side(REF, "canary", version, 200, 0.1)
        one.meters.of_side(REF, "canary", version, 500, None)
    assert {key[1] for key in counted(one)} == {"6", "7", "8", "9"}
    asyncio.run(one.call(None, sampled(1)))
    asyncio.run(one.change(settings_of(one.settings.registry, ref="denoiser")))
    until(lambda: REF not in one.meters.exposition().decode())  # once none of it is in memory
    assert not one._shelf.room.leaving


def test_a_shadow_that_goes_waits_for_others_only_and_makes_no_load(backend, registry):
    one = backend(shadow={"version": 2})

    async def scenario() -> None:
        busy = await one._shelf.take(REF)
        shadow = one._shelf.take_beside(REF, "shadow", "sample")
        computing = asyncio.create_task(shadow.call(sampled(1)))
        await asyncio.sleep(0.1)
        assert shadow.megapixels > 0
        assert one.megapixels == 0
        await one.change(settings_of(registry))
        assert one.megapixels == 0
        assert not computing.done()
        one._shelf.release(busy)
        await asyncio.wait_for(computing, 20)
        one._shelf.release(shadow)

    asyncio.run(scenario())


def test_a_shadow_computes_what_was_answered_when_nobody_is(backend):
    one = backend(shadow={"version": 2})

    async def scenario() -> None:
        busy = await one._shelf.take(REF)  # somebody else is answered
        for seed in range(3):
            assert (await one.call(None, sampled(seed))).version == 1
        shadow = one._shelf.take_beside(REF, "shadow", "sample")
        early = asyncio.create_task(shadow.call(sampled(1)))  # no pass of it begins
        await asyncio.sleep(0.3)
        assert counted(one) == {("stable", "1", "200"): 3}
        assert not early.done()
        one._shelf.release(busy)
        assert (await early).version == 2
        one._shelf.release(shadow)
        while one._sides._held:
            await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert counted(one) == {("stable", "1", "200"): 3, ("shadow", "2", "200"): 3}
    assert not one._shelf.room.busy
    assert dropped(one) == 0


def test_what_is_too_much_for_a_shadow_is_dropped(backend, monkeypatch):
    monkeypatch.setattr(sides, "HELD", 2)
    one = backend(shadow={"version": 2})
    limits = one.settings.limits.model_copy(update={"timeout_s": 0.5})

    async def scenario() -> None:
        busy = await one._shelf.take(REF)
        for seed in range(5):
            await one.call(None, sampled(seed))
        assert (len(one._sides._held), dropped(one)) == (2, 3)
        await one.change(one.settings.model_copy(update={"limits": limits}))
        while one._sides._held:  # nor do they wait for ever
            await asyncio.sleep(0.05)
        one._shelf.release(busy)

    async def soon() -> None:
        await one.change(one.settings.model_copy(update={"limits": limits}))
        await scenario()

    asyncio.run(soon())
    assert dropped(one) == 5
    assert counted(one) == {("stable", "1", "200"): 5}


def test_a_shadow_that_fails_is_only_counted(backend, models, tmp_path, monkeypatch):
    one = backend(shadow={"version": 2})
    host = one._shelf.take_beside(REF, "shadow", "sample")

    async def fails(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(host, "call", fails)

    async def scenario() -> None:
        assert (await one.call(None, sampled(1))).version == 1
        while one._sides._held:
            await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert counted(one) == {("stable", "1", "200"): 1, ("shadow", "2", "500"): 1}
    one._shelf.release(host)
