"""Models that are served without being named: they come and go while requests are answered."""

import asyncio
import shutil
import threading

import pytest
from live_server import until
from test_host import again, spoil

from cluster.fallback import over
from cluster.places import open_storage
from cluster.promotion import promote
from cluster.registry import Registry
from genimg import bundled
from genimg.errors import InputError
from genimg.operations.drawing import Sample
from serving.backend import LocalBackend
from serving.errors import ApiError
from serving.requests import Request
from serving.settings import Settings

# Of Ray itself, at the first import of ray.serve.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.serve._private.config")


@pytest.fixture
def models(registry) -> Registry:
    return Registry(open_storage(str(registry)))


def settings_of(registry, *discover, **more) -> Settings:
    tree = {"registry": str(registry), "discover": list(discover), "poll_s": 0.02}
    return Settings.validated(tree | more)


@pytest.fixture
def backend(registry):
    """Makes loaded backends, which are closed afterwards."""
    backends = []

    def one(*discover, place=registry, **more) -> LocalBackend:
        backends.append(LocalBackend(settings_of(place, *discover, **more)))
        backends[-1].load()
        return backends[-1]

    yield one
    for each in backends:
        each.close()


def served(backend: LocalBackend) -> list[tuple[str, str]]:
    return [(info.id, info.state) for info in asyncio.run(backend.models())]


def names(backend: LocalBackend) -> list[str]:
    return [ref for ref, _ in served(backend)]


def test_models_are_found_on_s3(backend, models, bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("GENIMG_CACHE", str(tmp_path / "cache"))
    one = backend("*", place=bucket)
    assert names(one) == []
    folder = models.fetch(models.resolve("figures@2"))
    copy = shutil.copytree(folder, tmp_path / "copy", ignore=lambda *_: ["version.json"])
    Registry(open_storage(bucket)).register("far", copy, {}, {})
    until(lambda: served(one) == [("far", "asleep")])
    assert not (tmp_path / "cache").exists()  # nothing but small files was read
    assert asyncio.run(one.call(None, Request(Sample()))).model == "far"
    assert (tmp_path / "cache").exists()


def test_each_name_is_found_once_as_the_first_pattern_says_that_fits(registry, models):
    promote(models, "denoiser", "best")

    def found(*discover, **more) -> list[str]:
        settings = settings_of(registry, *discover, **more)
        return [model.ref for model in settings.expanded(over(str(registry), bundled.FOLDER))]

    assert found("*") == ["denoiser", "figures"]  # not those that come with genimg
    assert found("*@production", "*") == ["figures@production", "denoiser"]
    assert found("*@production", "*@best") == ["figures@production", "denoiser@best"]
    assert found("f?gures", "[a-d]*@best") == ["figures", "denoiser@best"]
    assert found("*", models=[{"ref": "figures@1"}]) == ["figures@1", "denoiser"]
    assert found("none-*") == []
    with pytest.raises(InputError, match=r"discover: 2 models are found in .* max_discovered=1"):
        found("*", max_discovered=1)


def test_what_is_found_is_known_before_it_is_loaded_and_answers_once_asked(backend):
    one = backend({"names": "*", "max_batch_size": 2, "precision": "float32"})
    assert served(one) == [("denoiser", "asleep"), ("figures", "asleep")]
    assert one.ready()
    denoiser, figures = asyncio.run(one.models())
    assert (denoiser.version, denoiser.capabilities) == (1, ("denoise",))
    assert (figures.version, figures.size, figures.capabilities[0]) == (2, 16, "sample")
    answer = asyncio.run(one.call(None, Request(Sample(n=3, seed=1))))
    assert (answer.model, answer.version, answer.precision) == ("figures", 2, "float32")
    assert served(one) == [("denoiser", "asleep"), ("figures", "ready")]
    shown = one.meters.registry
    assert shown.get_sample_value("genimg_loads_total", {"model": "figures"}) == 1
    assert shown.get_sample_value("genimg_batch_images_sum", {"model": "figures"}) == 3


def test_models_come_and_go_under_load_and_no_request_is_lost(backend, registry, models, tmp_path):
    one = backend("*@production", "*")
    before = set(threading.enumerate())
    answers: list[tuple[str, int]] = []

    async def scenario() -> None:
        over = asyncio.Event()

        async def ask() -> None:
            while not over.is_set():
                answer = await one.call(None, Request(Sample(seed=1)))
                answers.append((answer.model, answer.version))

        async def listed(*ids: str) -> None:
            while [info.id for info in await one.models()] != list(ids):
                await asyncio.sleep(0.01)
            seen = len(answers)
            while len(answers) < seen + 10:
                await asyncio.sleep(0.01)

        asking = [asyncio.create_task(ask()) for _ in range(4)]
        await listed("figures@production", "denoiser")
        again(models, tmp_path, "figures@2", to="earlier")
        await listed("figures@production", "denoiser", "earlier")
        promote(models, "earlier", "production")  # and so it is the first that can
        await listed("earlier@production", "figures@production", "denoiser")
        assert (await one.call("earlier", Request(Sample()))).model == "earlier@production"
        shutil.rmtree(registry / "models" / "earlier")
        await listed("figures@production", "denoiser")
        with pytest.raises(ApiError) as caught:
            await one.call("earlier", Request(Sample()))
        assert (caught.value.status, caught.value.code) == (404, "model_not_found")
        promote(models, "figures@2", "production")
        while ("figures@production", 2) not in answers:
            await asyncio.sleep(0.01)
        over.set()
        await asyncio.gather(*asking)

    asyncio.run(scenario())
    assert set(answers) == {
        ("figures@production", 1), ("earlier@production", 1), ("figures@production", 2)
    }  # fmt: skip
    until(lambda: not one._shelf.room.leaving)
    until(lambda: not any("earlier" in each.name for each in set(threading.enumerate()) - before))


def test_a_registry_that_is_away_takes_nothing_away(backend, registry):
    one = backend("*")
    asyncio.run(one.call("figures", Request(Sample())))
    away = registry.rename(registry.with_name("away"))
    failures = "genimg_registry_failures_total"
    until(lambda: (one.meters.registry.get_sample_value(failures, {"model": ""}) or 0) >= 3)
    assert served(one) == [("denoiser", "asleep"), ("figures", "ready")]
    assert asyncio.run(one.call(None, Request(Sample()))).model == "figures"
    away.rename(registry)
    until(lambda: names(one) == ["denoiser", "figures"])


def test_no_more_are_served_than_may_be_and_those_there_were_stay(backend, models, tmp_path):
    one = backend("*", max_discovered=2)
    again(models, tmp_path, "figures@2", to="another")
    until(lambda: one._stock._left_out == ["another"])
    assert names(one) == ["denoiser", "figures"]
    more = settings_of(one.settings.registry, "*")
    asyncio.run(one.change(more))
    assert names(one) == ["another", "denoiser", "figures"]
    asyncio.run(one.change(settings_of(one.settings.registry, "f*")))
    assert names(one) == ["figures"]


def test_their_order_changes_with_that_of_the_patterns(backend):
    one = backend("d*", "f*")
    assert names(one) == ["denoiser", "figures"]
    asyncio.run(one.change(settings_of(one.settings.registry, "f*", "d*")))
    assert names(one) == ["figures", "denoiser"]


def test_one_whose_aliases_are_damaged_is_told_and_hides_no_other(
    backend, registry, models, tmp_path
):
    again(models, tmp_path, "figures@2", to="broken")
    for name in ("broken", "denoiser"):
        promote(models, f"{name}@1", "production")
    aliases = registry / "models" / "broken" / "aliases.json"
    whole = aliases.read_text()
    aliases.write_text("{}")
    one = backend("*@production")
    assert served(one) == [
        ("broken@production", "broken"),
        ("denoiser@production", "asleep"),
        ("figures@production", "asleep"),
    ]
    (info, *_) = asyncio.run(one.models())
    assert "aliases.json is altered" in info.rejected.reason
    assert len(one.settings.expanded(models)) == 3  # nor is it in the way of a start
    aliases.write_text(whole)
    until(lambda: served(one)[0] == ("broken@production", "asleep"))


def test_a_broken_one_is_told_and_the_next_that_can_answers(backend, registry, models, tmp_path):
    again(models, tmp_path, "figures@2", to="broken")
    spoil(registry, "broken", 1)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "readme.txt").write_text("no checkpoint")
    models.register("damaged", tmp_path / "damaged", {}, {})
    one = backend("*", poll_s=300)
    assert served(one) == [
        ("broken", "asleep"), ("damaged", "broken"), ("denoiser", "asleep"), ("figures", "asleep")
    ]  # fmt: skip
    from serving.remote import ComposedBackend  # Ray comes with it

    composed = ComposedBackend(one.settings, {})
    composed.local.load()
    for each in (one, composed):
        answer = asyncio.run(each.call(None, Request(Sample())))
        assert answer.model == "figures"
    composed.local.close()
    told = {info.id: info for info in asyncio.run(one.models())}
    assert told["broken"].state == "broken"
    assert "weights.safetensors is altered" in told["broken"].rejected.reason
    assert "recipe.json is missing" in told["damaged"].rejected.reason
    for name in ("broken", "damaged"):
        with pytest.raises(ApiError) as caught:
            asyncio.run(one.call(name, Request(Sample())))
        assert (caught.value.status, caught.value.code) == (503, "model_broken")
        assert told[name].rejected.reason in caught.value.message
    again(models, tmp_path, "figures@2", to="broken")  # a new version, which is whole
    asyncio.run(one.change(one.settings.model_copy(update={"poll_s": 0.02})))
    assert asyncio.run(one.call("broken", Request(Sample()))).version == 2
