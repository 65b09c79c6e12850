"""Models that are loaded once they are asked for, within the memory that there is for them."""

import asyncio
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from live_server import until
from test_host import again, spoil

from cluster.fallback import over
from cluster.places import open_storage
from cluster.promotion import promote
from cluster.registry import Registry
from cluster.versions import Version
from genimg import bundled, checkpoint
from genimg.errors import InputError
from genimg.operations.drawing import Sample
from genimg.recipes import RECIPES
from serving import room
from serving.about import looked_up
from serving.backend import LocalBackend
from serving.errors import ApiError
from serving.host import Host
from serving.metrics import Meters
from serving.model_settings import ModelSettings
from serving.requests import ModelInfo, Request
from serving.settings import Settings
from serving.slots import Slot
from serving.watcher import target_of

A, B, C = ({"ref": f"{name}", "resident": False} for name in "abc")


@pytest.fixture
def models(registry, tmp_path) -> Registry:
    """A registry with models a, b and c of one size."""
    registry = Registry(open_storage(str(registry)))
    for name in "abc":
        again(registry, tmp_path, "figures@1", to=name)
    return registry


@pytest.fixture
def size(models) -> int:
    """Bytes of the weights of each of them, in memory."""
    return looked_up(models, "a", models.resolve("a"), "auto", "cpu").bytes


@pytest.fixture
def backend(models, registry):
    """Makes loaded backends, which are closed afterwards."""
    backends = []

    def one(*served, **more) -> LocalBackend:
        tree = {"registry": str(registry), "models": list(served), "poll_s": 0.02}
        backends.append(LocalBackend(Settings.validated(tree | more)))
        backends[-1].load()
        return backends[-1]

    yield one
    for each in backends:
        each.close()


async def asked(backend: LocalBackend, model: str | None, n: int = 1) -> str:
    return (await backend.call(model, Request(Sample(n=n, seed=1)))).model


def test_what_is_told_of_models_is_made_anew_where_it_has_changed_or_a_pause_is_over():
    shelf = room.Room(Meters())
    slot = Slot(ModelSettings(ref="a", resident=False), info=ModelInfo("a", "a", "asleep", 1))
    shelf.slots["a"] = slot
    assert shelf.infos()[0].state == "asleep"
    slot.refuse(None, InputError("it is broken"), 0.2)
    shelf.changed()
    (info,) = shelf.infos()
    assert (info.state, info.rejected.reason) == ("broken", "it is broken")
    assert shelf.infos()[0] is info
    shelf.infos().clear()  # a copy
    until(lambda: shelf.infos()[0].state == "asleep")
    assert shelf.infos()[0].rejected == info.rejected
    slot.refusal = None
    shelf.changed()
    assert shelf.infos() == [slot.info]


def loaded(backend: LocalBackend) -> list[str]:
    return loaded_now(asyncio.run(backend.models()))


def loaded_now(infos: list[ModelInfo]) -> list[str]:
    return [info.id for info in infos if info.state == "ready"]


def counted(backend: LocalBackend, name: str, model: str) -> float:
    return backend.meters.registry.get_sample_value(f"genimg_{name}", {"model": model}) or 0


def test_what_is_known_of_a_model_is_the_same_before_and_after_it_is_loaded(every_recipe):
    registry = Registry(open_storage(str(every_recipe / "registry")))
    different = []
    for recipe in list(RECIPES)[::7]:
        before = looked_up(registry, recipe, registry.resolve(recipe), "auto", "cpu")
        host = Host(ModelSettings(ref=recipe), str(every_recipe / "registry"), device="cpu")
        different += [recipe] if before != host.info() else []
        host.close()
    assert different == []


def test_the_least_recently_used_makes_room(backend, size):
    one = backend(A, B, C, memory=2 * size)
    assert loaded(one) == []
    for model, there in (("a", "a"), ("b", "ab"), ("a", "ab"), ("c", "ac"), ("b", "bc")):
        assert asyncio.run(asked(one, model)) == model
        assert loaded(one) == list(there)
        assert one._shelf.room.held() == 2 * size or there == "a"
    assert [counted(one, "loads_total", model) for model in "abc"] == [1, 2, 1]
    assert [counted(one, "evictions_total", model) for model in "abc"] == [1, 1, 0]
    assert [counted(one, "loaded_bytes", model) for model in "abc"] == [0, size, size]


def test_many_who_ask_at_once_have_it_loaded_once(backend):
    one = backend(A)

    async def scenario() -> list[str]:
        return await asyncio.gather(*(asked(one, "a") for _ in range(20)))

    assert asyncio.run(scenario()) == ["a"] * 20
    assert counted(one, "loads_total", "a") == 1
    assert not one._shelf.room.busy


def test_who_goes_while_it_is_loaded_leaves_nothing_behind(backend, size):
    one = backend(A, B, memory=size)

    async def scenario() -> None:
        for model in "abab":
            going = [asyncio.create_task(asked(one, model)) for _ in range(5)]
            await asyncio.sleep(0.01)
            for each in going:
                each.cancel()
            await asyncio.gather(*going, return_exceptions=True)
        assert await asked(one, "b") == "b"

    asyncio.run(scenario())
    assert not one._shelf.room.busy


def test_what_nobody_waits_for_any_more_is_not_loaded(backend):
    one = backend(A, B)
    goes_on = threading.Event()
    one._shelf._loader.submit(goes_on.wait, 60)

    async def scenario() -> None:
        gone, waiting = (asyncio.create_task(asked(one, model)) for model in "ab")
        await asyncio.sleep(0.1)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        goes_on.set()
        assert await waiting == "b"
        assert loaded_now(await one.models()) == ["b"]
        assert await asked(one, "a") == "a"

    asyncio.run(scenario())


def test_who_waits_for_what_is_fetched_from_afar_keeps_nobody_else_waiting(
    backend, models, bucket, tmp_path, monkeypatch
):
    monkeypatch.setenv("GENIMG_CACHE", str(tmp_path / "cache"))
    far = Registry(open_storage(bucket))
    for name in "ab":
        folder = models.fetch(models.resolve(name))
        copy = shutil.copytree(folder, tmp_path / name, ignore=lambda *_: ["version.json"])
        far.register(name, copy, {}, {})
    arrives, fetch = threading.Event(), Registry.fetch

    def fetching(self: Registry, version: Version, *more: object) -> Path:
        if version.name == "a":
            arrives.wait(60)
        return fetch(self, version, *more)

    monkeypatch.setattr(Registry, "fetch", fetching)
    one = backend(A, B, registry=bucket)

    async def scenario() -> None:
        waiting = asyncio.create_task(asked(one, "a"))
        await asyncio.sleep(0.1)
        assert await asyncio.wait_for(asked(one, "b"), 30) == "b"
        arrives.set()
        assert await waiting == "a"

    asyncio.run(scenario())


def test_one_in_use_is_not_given_up_and_all_are_answered(backend, size, monkeypatch):
    """More models than there is room for, each asked all the time."""
    one = backend(A, B, C, memory=2 * size)
    closed: list[tuple[Host, int]] = []
    close = Host.close

    def closing(host: Host) -> None:
        closed.append((host, one._shelf.room.busy[host]))
        assert one._shelf.room.held() <= 2 * size
        close(host)

    monkeypatch.setattr(Host, "close", closing)
    answers: list[str] = []

    async def scenario() -> None:
        async def ask(model: str) -> None:
            for _ in range(6):
                answers.append(await asked(one, model, n=16))

        await asyncio.gather(*(ask(model) for model in "abc" for _ in range(3)))

    asyncio.run(scenario())
    assert sorted(answers) == sorted("abc" * 18)
    assert len(closed) >= 1
    assert {busy for _, busy in closed} == {0}


def test_one_that_computes_for_long_goes_on_and_who_needs_its_room_waits(
    backend, size, monkeypatch
):
    monkeypatch.setattr(room, "DRAIN_S", 0.1)
    one = backend(A, B, memory=size)

    async def scenario() -> None:
        host = await one._shelf.take("a")  # and computes
        waiting = asyncio.create_task(asked(one, "b"))
        for _ in range(4):
            assert await asked(one, "a") == "a"  # perhaps after a moment
        assert not waiting.done()
        one._shelf.release(host)
        assert await waiting == "b"

    asyncio.run(scenario())
    assert [counted(one, "loads_total", model) for model in "ab"] == [1, 1]


def test_one_that_has_never_room_is_refused_with_the_reason(backend, size, models, registry):
    one = backend({"ref": "figures@1"}, A, memory=2 * size - 1)
    reason = (
        f"its weights take {size:,} bytes, and there are memory={2 * size - 1:,}, of which "
        f"resident models take {size:,}"
    )
    (_, info) = asyncio.run(one.models())
    assert (info.state, info.rejected.reason, info.bytes) == ("broken", reason, size)
    with pytest.raises(ApiError) as caught:
        asyncio.run(asked(one, "a"))
    assert (caught.value.status, caught.value.code) == (503, "model_broken")
    assert reason in caught.value.message
    assert asyncio.run(asked(one, None)) == "figures@1"
    with pytest.raises(InputError, match=rf"memory=1: the weights of resident .* \(a {size:,}\)"):
        backend({"ref": "a"}, memory=1)
    asyncio.run(one.change(one.settings.model_copy(update={"memory": 2 * size})))
    assert asyncio.run(asked(one, "a")) == "a"


def test_for_a_canary_that_has_never_room_nobody_goes(backend, models):
    size = {
        name: looked_up(models, name, models.resolve(name), "auto", "cpu").bytes
        for name in ("figures", "denoiser")
    }
    small, large = sorted(size, key=size.__getitem__)
    canary = {"version": 1, "share": 1}
    one = backend(
        {"ref": f"{large}@1", "canary": canary}, {"ref": small, "resident": False},
        memory=sum(size.values()),
    )  # fmt: skip

    async def state() -> str:
        (info, _) = await one.models()
        return info.canary.state

    until(lambda: asyncio.run(state()) == "broken")
    for _ in range(10):
        one._shelf.release(asyncio.run(one._shelf.take(small)))
        time.sleep(2 * room.LOOK_S)
    assert counted(one, "loads_total", small) == 1
    assert counted(one, "evictions_total", small) == 0
    (info, _) = asyncio.run(one.models())
    assert f"its weights take {size[large]:,} bytes" in info.canary.rejected.reason


def test_one_that_was_to_make_room_and_is_served_no_more_answers_first(backend, size, monkeypatch):
    monkeypatch.setattr(room, "DRAIN_S", 0.5)
    one = backend(A, B, {"ref": "c"}, memory=2 * size)

    async def scenario() -> None:
        host = await one._shelf.take("a")  # and computes
        waiting = asyncio.create_task(asked(one, "b"))
        await asyncio.sleep(0.1)
        left = tuple(model for model in one.settings.models if model.ref != "a")
        await one.change(one.settings.model_copy(update={"models": left}))
        await asyncio.sleep(1)
        assert host.alive
        assert not waiting.done()
        one._shelf.release(host)
        assert await waiting == "b"
        assert not host.alive

    asyncio.run(scenario())


def test_a_canary_takes_the_room_of_its_version_before(backend, size, models):
    promote(models, "figures@1", "next")
    canary = {"version": "next", "share": 1}
    one = backend({"ref": "figures@1", "canary": canary}, memory=2 * size)

    def version() -> int | None:
        (info,) = asyncio.run(one.models())
        return info.canary.version if info.canary.state == "ready" else None

    until(lambda: version() == 1)
    promote(models, "figures@2", "next")
    until(lambda: version() == 2)


def test_what_waits_for_a_load_when_all_is_closed_is_to_ask_again(backend, size, monkeypatch):
    monkeypatch.setattr(room, "DRAIN_S", 60)
    one = backend(A, B, memory=size)

    async def scenario() -> ApiError:
        await one._shelf.take("a")  # and never ends
        waiting = asyncio.create_task(asked(one, "b"))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(one._shelf.close)
        with pytest.raises(ApiError) as caught:
            await waiting
        return caught.value

    refused = asyncio.run(scenario())
    assert (refused.status, refused.code) == (503, "shutting_down")


def test_a_version_that_cannot_be_loaded_leaves_the_one_before(
    backend, size, models, registry, tmp_path
):
    one = backend(A, B, memory=size)
    assert asyncio.run(asked(one, "a")) == "a"
    assert asyncio.run(asked(one, "b")) == "b"  # and a is given up
    again(models, tmp_path, "a@1")
    spoil(registry, "a", 2)
    until(lambda: asyncio.run(one.models())[0].version == 2)
    answer = asyncio.run(one.call("a", Request(Sample())))
    info = asyncio.run(one.models())[0]
    assert (answer.version, info.version, info.rejected.version) == (1, 1, 2)


def test_what_is_given_up_gives_its_memory_back(backend, size):
    one = backend(A, B, memory=size)
    asyncio.run(asked(one, "a"))
    (host,) = one._shelf.room.hosts()
    engine = host.served.engine
    watched = [weakref.ref(each) for each in (engine, *engine.networks.values())]
    del host, engine
    asyncio.run(asked(one, "b"))
    assert [each() for each in watched] == [None] * len(watched)


_RISES = """
import asyncio, resource, sys
from pathlib import Path
from genimg.operations.drawing import Sample
from serving.backend import LocalBackend
from serving.requests import Request
from serving.settings import Settings

models = [{"ref": name, "resident": False, "precision": "float32"} for name in "ab"]
backend = LocalBackend(Settings.validated(
    {"registry": sys.argv[1], "models": models, "memory": int(sys.argv[2])}
))
backend.load()

def kilobytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024

def turn():
    for name in "ab":
        asyncio.run(backend.call(name, Request(Sample(seed=1))))

for _ in range(3):
    turn()
before = kilobytes()
for _ in range(8):
    turn()
print(before, kilobytes())
backend.close()
"""


@pytest.mark.slow
def test_a_process_does_not_grow_by_what_comes_and_goes(tmp_path):
    recipe = RECIPES["dcgan"]().override(["model.width=96", "data.size=32"])
    weights = {
        f"{name}.{key}": value
        for name, network in recipe.networks().items()
        for key, value in network.state_dict().items()
    }
    checkpoint.write(
        tmp_path / "wide", recipe=recipe.model_dump_json(), weights=weights, training={},
        progress={}, metrics={}, samples=b"", lineage={},
    )  # fmt: skip
    wide = Registry(open_storage(str(tmp_path / "registry")))
    for name in "ab":
        wide.register(name, tmp_path / "wide", {}, {})
    size = looked_up(wide, "a", wide.resolve("a"), "float32", "cpu").bytes
    assert size > 10_000_000
    ran = subprocess.run(
        [sys.executable, "-c", _RISES, str(wide.storage), str(size)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    before, after = map(int, ran.stdout.split())
    print(f"{before} kB, {after} kB after 16 models of {size // 1024} kB")
    assert 1024 * (after - before) < 16 * size / 3  # of sixteen that came and went


def test_one_thread_looks_where_all_point_and_they_change_one_after_the_other(
    backend, models, tmp_path, monkeypatch
):
    for name in "abc":
        promote(models, f"{name}@1", "production")
        again(models, tmp_path, "figures@2", to=name)
    before = {*threading.enumerate()}  # of others, that are served beside
    one = backend(*({"ref": f"{name}@production"} for name in "abc"))
    at_once, alone = threading.Semaphore(1), []
    take_over = Host._take_over

    def noted(host: Host, *more: object) -> None:
        alone.append(at_once.acquire(blocking=False))
        take_over(host, *more)
        at_once.release()

    monkeypatch.setattr(Host, "_take_over", noted)
    named = [thread.name for thread in {*threading.enumerate()} - before]
    assert [name for name in named if name.startswith("watch")] == ["watch models"]
    for name in "abc":
        promote(models, f"{name}@2", "production")
    until(lambda: [info.version for info in asyncio.run(one.models())] == [2, 2, 2])
    assert alone == [True] * 3


def test_an_alias_is_followed_by_reading_one_object(models, monkeypatch):
    promote(models, "a@1", "production")
    registry = over(str(models.storage), bundled.FOLDER)
    asked: list[str] = []

    def noted(name: str, real: Callable[[str], object], key: str) -> object:
        asked.append(f"{name} {key}")
        return real(key)

    for name in ("read", "list", "children"):
        method = getattr(registry.storage, name)
        monkeypatch.setattr(registry.storage, name, partial(noted, name, method))
    assert target_of(registry, "a@production").number == 1
    assert asked == ["read models/a/aliases.json"]


def test_nothing_of_it_stays_when_it_is_closed(backend, size):
    before = set(threading.enumerate())
    one = backend(A, B, memory=size)
    asyncio.run(asked(one, "a"))
    asyncio.run(asked(one, "b"))
    one.close()
    until(lambda: set(threading.enumerate()) <= before)
