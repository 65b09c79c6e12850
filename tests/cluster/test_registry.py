"""Versions and references: what register, resolve, fetch and remove do, and what they refuse."""

import json
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cluster.disk import LocalStorage
from cluster.places import open_storage
from cluster.promotion import promote, rollback
from cluster.registry import Registry
from cluster.versions import Damaged, RegistryError, Unknown, parse_reference


def test_a_version_keeps_files_metrics_and_lineage(registry: Registry, checkpoint: Path):
    lineage = {"recipe": "dcgan", "data": {"fingerprint": "é", "images": 10}, "tags": [1, None]}
    registered = registry.register("dcgan", checkpoint, {"fid": 11.5, "images": 1000}, lineage)
    version = Registry(registry.storage).resolve("dcgan")
    assert version == registered
    assert (version.name, version.number, version.reference) == ("dcgan", 1, "dcgan@1")
    assert version.metrics == {"fid": 11.5, "images": 1000}
    assert version.lineage == lineage
    created = datetime.fromisoformat(version.created)
    assert created.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - created) < timedelta(minutes=5)
    assert {name: file.size for name, file in version.files.items()} == {
        "recipe.json": 20,
        "weights.safetensors": 1024,
    }
    # sha256sum of bytes(range(256)) * 4
    assert version.files["weights.safetensors"].sha256 == (
        "785b0751fc2c53dc14a4ce3d800e69ef9ce1009eb327ccf458afe09c242c26c9"
    )


def test_the_layout_is_the_documented_one(registry: Registry, register):
    register()
    promote(registry, "dcgan", "production")
    assert registry.storage.list("") == [
        "models/dcgan/aliases.json",
        "models/dcgan/versions/00001.claim",
        "models/dcgan/versions/00001/recipe.json",
        "models/dcgan/versions/00001/version.json",
        "models/dcgan/versions/00001/weights.safetensors",
    ]
    version = json.loads(registry.storage.read("models/dcgan/versions/00001/version.json")[0])
    assert set(version) >= {"name", "version", "created", "metrics", "lineage", "files"}
    assert set(version["files"]["recipe.json"]) == {"size", "sha256"}


def test_metrics_that_are_no_number_stay_valid_json(registry: Registry, register):
    register(fid=math.nan, kid=math.inf)
    text = registry.storage.read("models/dcgan/versions/00001/version.json")[0]
    constants: list[str] = []
    json.loads(text, parse_constant=constants.append)
    assert constants == []
    assert all(math.isnan(value) for value in registry.resolve("dcgan").metrics.values())


def test_references(registry: Registry, register):
    for _ in range(11):
        register()
    promote(registry, "dcgan@7", "production")
    resolved = {
        reference: registry.resolve(reference).number
        for reference in ("dcgan", "dcgan@production", "dcgan@7", "dcgan@007", "dcgan@11")
    }
    assert resolved == {
        "dcgan": 11, "dcgan@production": 7, "dcgan@7": 7, "dcgan@007": 7, "dcgan@11": 11,
    }  # fmt: skip
    assert list(registry.numbers("dcgan")) == list(range(1, 12))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("dcgan@9", "dcgan has no version 9; known: 1, 2"),
        ("dcgan@0", "dcgan has no version 0; known: 1, 2"),
        ("dcgan@", "a reference reads NAME, NAME@ALIAS or NAME@7"),
        ("dcgan@a@b", "a reference reads NAME, NAME@ALIAS or NAME@7"),
        ("@7", "model '': give up to 100 of A-Z a-z 0-9"),
        ("../x", r"model '../x': give up to 100 of A-Z a-z 0-9 \. _ - with no '\.' at the start"),
        ("dcgan@..", r"alias '..': give"),
        ("dcgan@-1", "dcgan has no alias '-1'"),
    ],
)
def test_what_is_no_reference_and_numbers_that_are_not_there_are_refused(
    registry: Registry, register, reference: str, message: str
):
    for name in ("dcgan", "dcgan", "vae"):
        register(name)
    promote(registry, "dcgan@1", "production")
    with pytest.raises(RegistryError, match=message):
        registry.resolve(reference)


@pytest.mark.parametrize(
    ("reference", "message", "given", "known"),
    [
        ("dcgn", "there is no model 'dcgn' in ", "dcgn", ("dcgan", "vae")),
        ("dcgan@prod", "dcgan has no alias 'prod'", "prod", ("production",)),
        ("vae@best", "vae has no alias 'best'", "best", ()),
    ],
)
def test_an_unknown_name_comes_with_those_that_there_are(
    registry: Registry, register, reference: str, message: str, given: str, known: tuple[str, ...]
):
    for name in ("dcgan", "vae"):
        register(name)
    promote(registry, "dcgan@1", "production")
    with pytest.raises(Unknown, match=message) as refused:
        registry.resolve(reference)
    assert (refused.value.given, refused.value.known) == (given, known)
    assert vars(pickle.loads(pickle.dumps(refused.value))) == vars(refused.value)


def test_an_empty_registry_says_so(registry: Registry):
    assert registry.names() == []
    with pytest.raises(Unknown) as refused:
        registry.resolve("dcgan")
    assert refused.value.known == ()


@pytest.mark.parametrize("name", ["", ".hidden", "..", "a/b", "a b", "a@b", "é", "x" * 101, "a\n"])
def test_names_outside_the_alphabet_are_refused(registry: Registry, register, name: str):
    with pytest.raises(RegistryError, match="give up to 100 of A-Z"):
        register(name)
    register()
    with pytest.raises(RegistryError, match="give up to 100 of A-Z"):
        promote(registry, "dcgan", name)
    assert registry.names() == ["dcgan"]


def test_a_number_is_no_alias(registry: Registry, register):
    register()
    with pytest.raises(RegistryError, match="alias '7': a number means a version"):
        promote(registry, "dcgan", "7")


def test_what_cannot_be_kept_is_refused_and_takes_no_number(
    registry: Registry, checkpoint: Path, tmp_path: Path
):
    with pytest.raises(RegistryError, match="metric 'fid' is 'low'; a metric is a number"):
        registry.register("dcgan", checkpoint, {"fid": "low"}, {})  # type: ignore[dict-item]
    with pytest.raises(RegistryError, match="lineage is not made of JSON values"):
        registry.register("dcgan", checkpoint, {}, {"when": datetime.now(UTC)})
    with pytest.raises(RegistryError, match="nowhere is not a folder with files in it"):
        registry.register("dcgan", tmp_path / "nowhere", {}, {})
    assert registry.storage.list("") == []


def test_a_version_can_be_registered_again_from_the_registry(registry: Registry, register):
    first = register("dcgan", fid=3.0)
    again = registry.register("copy", registry.fetch(first), first.metrics, first.lineage)
    assert again.reference == "copy@1"
    assert again.files == first.files
    assert registry.verify("copy") == []


def test_the_registry_holds_a_copy(registry: Registry, register, checkpoint: Path):
    register()
    (checkpoint / "recipe.json").write_text("changed")
    assert registry.verify("dcgan") == []


def test_an_unfinished_registration_is_no_version_and_its_number_is_never_used(
    registry: Registry, register
):
    register()
    register()
    for number in (2, 3):  # as if killed just before version.json; and just after the claim
        registry.storage.delete(f"models/dcgan/versions/0000{number}/version.json")
    registry.storage.write("models/dcgan/versions/00003.claim", b"{}")
    registry.storage.write("models/ghost/versions/00001.claim", b"{}")
    assert registry.names() == ["dcgan"]
    assert registry.numbers("dcgan") == [1]
    assert registry.resolve("dcgan").number == 1
    assert register().number == 4
    assert register("ghost").number == 2


def test_remove_deletes_the_files_and_retires_the_number(registry: Registry, register):
    for _ in range(3):
        register()
    registry.remove("dcgan@3")
    assert registry.numbers("dcgan") == [1, 2]
    assert registry.storage.list("models/dcgan/versions/00003") == []
    assert register().number == 4
    with pytest.raises(Unknown, match="no version 3; known: 1, 2, 4"):
        registry.remove("dcgan@3")


def test_remove_is_refused_while_an_alias_names_the_version(registry: Registry, register):
    register()
    promote(registry, "dcgan@1", "production")
    promote(registry, "dcgan@1", "best")
    for reference in ("dcgan@1", "dcgan@best"):
        with pytest.raises(
            RegistryError,
            match="dcgan@1 is in use as dcgan@best and dcgan@production; promote another first",
        ):
            registry.remove(reference)
    assert registry.verify("dcgan") == []
    register()
    registry.remove("dcgan@1", force=True)
    assert registry.aliases("dcgan").holders == {}
    with pytest.raises(Unknown, match="no alias 'production'"):
        rollback(registry, "dcgan", "production")


def test_remove_wants_to_be_told_which_version(registry: Registry, register):
    register()
    register()
    with pytest.raises(RegistryError, match=r"say which version, as in dcgan@2 \(the newest\)"):
        registry.remove("dcgan")


def test_a_version_with_an_altered_marker_can_still_be_removed(registry: Registry, register):
    register()
    registry.storage.write("models/dcgan/versions/00001/version.json", b"{")
    with pytest.raises(Damaged, match=r"dcgan@1: version\.json is altered"):
        registry.resolve("dcgan")
    registry.remove("dcgan@1")
    assert registry.names() == []


def test_fetch_in_place_copies_nothing(tmp_path: Path, checkpoint: Path):
    registry = Registry(LocalStorage(tmp_path / "registry"))
    folder = registry.fetch(registry.register("dcgan", checkpoint, {}, {}))
    assert folder == tmp_path / "registry" / "models" / "dcgan" / "versions" / "00001"


@pytest.fixture
def remote(bucket: str) -> Registry:
    return Registry(open_storage(bucket))


def test_fetch_from_afar_downloads_once_and_heals_its_cache(
    remote: Registry, checkpoint: Path, tmp_path: Path
):
    version = remote.register("dcgan", checkpoint, {}, {})
    cache = tmp_path / "cache"
    folder = remote.fetch(version, cache)
    assert cache in folder.parents
    weights = folder / "weights.safetensors"
    before = weights.stat()
    assert remote.fetch(version, cache) == folder
    assert weights.stat() == before  # not written again
    with pytest.MonkeyPatch.context() as patch:  # nor asked for
        patch.setattr(remote.storage, "download", None)
        assert remote.fetch(version, cache) == folder
    weights.write_bytes(b"spoilt")
    assert remote.fetch(version, cache) == folder
    assert weights.read_bytes() == bytes(range(256)) * 4


def test_caches_tell_equal_references_of_two_registries_apart(
    remote: Registry, checkpoint: Path, tmp_path: Path
):
    first = remote.register("dcgan", checkpoint, {}, {})
    other = Registry(open_storage(f"{remote.storage}/other"))
    (checkpoint / "recipe.json").write_text("{}")
    second = other.register("dcgan", checkpoint, {}, {})
    assert first.reference == second.reference
    folders = remote.fetch(first, tmp_path / "cache"), other.fetch(second, tmp_path / "cache")
    assert [len((folder / "recipe.json").read_text()) for folder in folders] == [20, 2]


def test_many_processes_that_fetch_a_version_at_once_all_get_it(
    remote: Registry, checkpoint: Path, tmp_path: Path
):
    version = remote.register("dcgan", checkpoint, {}, {})
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: remote.fetch(version, tmp_path / "cache"), range(8)))
    assert len(folders) == 1


def test_fetch_refuses_damaged_files(registry: Registry, register):
    version = register()
    registry.storage.write("models/dcgan/versions/00001/recipe.json", b"{}")
    with pytest.raises(Damaged, match=r"dcgan@1: recipe\.json is altered: 2 bytes instead"):
        registry.fetch(version)


def test_one_file_is_read_without_the_others_and_verified(registry: Registry, register):
    version = register()
    assert registry.read(version, "recipe.json") == b'{"recipe": "dcgan"}\n'
    registry.storage.write("models/dcgan/versions/00001/recipe.json", b"{}")
    with pytest.raises(Damaged, match=r"dcgan@1: recipe\.json is not as it was registered"):
        registry.read(version, "recipe.json")
    with pytest.raises(Damaged, match=r"dcgan@1: nothing\.json is missing"):
        registry.read(version, "nothing.json")


@pytest.mark.parametrize(
    ("reference", "parts"),
    [("a", ("a", None)), ("a@7", ("a", 7)), ("a.b-C_1@best", ("a.b-C_1", "best"))],
)
def test_parse_reference(reference: str, parts: tuple):
    assert parse_reference(reference) == parts
