"""Verification finds every altered byte, and every missing or extra file, by name."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.promotion import promote
from cluster.registry import Registry

FOLDER = "models/dcgan/versions/00001"
FILES = ("weights.safetensors", "recipe.json", "version.json")
same_registry = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def found(registry: Registry, reference: str = "dcgan") -> list[tuple[str, str, str]]:
    return [
        (damage.reference, damage.file, damage.problem) for damage in registry.verify(reference)
    ]


@same_registry
@given(data=st.data())
def test_any_single_altered_byte_is_found_in_its_file(registry: Registry, register, data):
    if not registry.names():
        register(fid=11.25, kid=0.5)
    file = data.draw(st.sampled_from(FILES))
    whole, _ = registry.storage.read(f"{FOLDER}/{file}")
    position = data.draw(st.integers(0, len(whole) - 1))
    mask = data.draw(st.integers(1, 255))
    altered = bytearray(whole)
    altered[position] ^= mask
    registry.storage.write(f"{FOLDER}/{file}", bytes(altered))
    try:
        damages = registry.verify("dcgan")
    finally:
        registry.storage.write(f"{FOLDER}/{file}", whole)
    assert [(damage.reference, damage.file) for damage in damages] == [("dcgan@1", file)]
    assert "is altered" in damages[0].problem


@same_registry
@given(length=st.integers(0, 1023))
def test_any_truncation_is_found(registry: Registry, register, length: int):
    if not registry.names():
        register()
    key = f"{FOLDER}/weights.safetensors"
    whole, _ = registry.storage.read(key)
    registry.storage.write(key, whole[:length])
    try:
        problem = f"is altered: {length} bytes instead of 1024"
        assert found(registry) == [("dcgan@1", "weights.safetensors", problem)]
    finally:
        registry.storage.write(key, whole)


def test_missing_and_extra_files_are_named(registry: Registry, register):
    register()
    register()
    registry.storage.delete(f"{FOLDER}/weights.safetensors")
    registry.storage.write(f"{FOLDER}/deep/more.bin", b"")
    expected = [
        ("dcgan@1", "deep/more.bin", "is extra: it was not registered"),
        ("dcgan@1", "weights.safetensors", "is missing"),
    ]
    assert found(registry) == expected
    assert found(registry, "dcgan@1") == expected
    assert found(registry, "dcgan@2") == []


def test_an_alias_of_a_version_that_is_gone_is_found(registry: Registry, register):
    register()
    register()
    promote(registry, "dcgan@1", "production")
    registry.storage.delete(FOLDER)  # by hand, past the registry
    assert found(registry) == [
        ("dcgan@production", "aliases.json", "names version 1, which is missing")
    ]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"aliases": {"a": 1}, "history": []}'])
def test_altered_aliases_are_found(registry: Registry, register, text: str):
    register()
    promote(registry, "dcgan", "production")
    registry.storage.write("models/dcgan/aliases.json", text.encode())
    assert found(registry) == [("dcgan", "aliases.json", "is altered")]


def test_a_marker_that_belongs_to_another_version_is_found(registry: Registry, register):
    register()
    register()
    first, _ = registry.storage.read(f"{FOLDER}/version.json")
    registry.storage.write("models/dcgan/versions/00002/version.json", first)
    assert found(registry) == [("dcgan@2", "version.json", "is altered")]
