"""A part of a source is read by its names and places alone, as the whole source reads it."""

import os
import shutil
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from genimg import images
from genimg.data.archives import PackedTar
from genimg.data.machine import Memory
from genimg.data.parts import Part, PartSource, at_offsets
from genimg.data.sources import open_source, opener
from genimg.errors import InputError

NAMES = [f"{label}/{i}.png" for label in ("cat", "dog") for i in range(6)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GENIMG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path) -> Path:
    generator = np.random.default_rng(0)
    for name in NAMES:
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        images.save(generator.integers(0, 256, (9, 7, 3), np.uint8), tmp_path / "pets" / name)
    return tmp_path / "pets"


def archived(folder: Path, form: str) -> Path:
    return Path(shutil.make_archive(str(folder), form, folder))


@pytest.mark.parametrize("form", ["folder", "zip", "tar", "gztar", "xztar", "bztar"])
def test_parts_of_every_form_are_those_of_the_whole(folder, form):
    where = folder if form == "folder" else archived(folder, form)
    whole = open_source(str(where))
    indices = np.array([7, 0, 11, 3])
    part = opener(str(where), in_parts=True)("train").part(indices)
    if form not in ("folder", "gztar", "xztar", "bztar"):
        shutil.rmtree(folder)  # nothing but the archive is read
    source = PartSource(where, Part.unpacked(part.packed()), whole.classes)
    assert source.names == [whole.names[i] for i in indices]
    assert source.labels.tolist() == whole.labels[indices].tolist()
    for place, index in enumerate(indices.tolist()):
        assert source.encoded(place) == whole.encoded(index)
        np.testing.assert_array_equal(source.read(place), whole.read(index))
        assert source.measure(place) == (7, 9)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_zips_of_every_usual_method_and_with_something_before_them(folder, tmp_path, method):
    where = tmp_path / "odd.zip"
    where.write_bytes(b"#!/bin/sh\n")
    with zipfile.ZipFile(where, "a", method) as archive:
        for name in NAMES:
            archive.write(folder / name, name)
    part = opener(str(where), in_parts=True)("train").part(np.arange(12))
    source = PartSource(where, part, {"label": ("cat", "dog")})
    assert [source.encoded(i) for i in range(12)] == [(folder / n).read_bytes() for n in NAMES]


def test_damaged_members_are_broken_and_named(folder, tmp_path):
    where = archived(folder, "zip")
    part = opener(str(where), in_parts=True)("train").part(np.arange(12))
    data = bytearray(where.read_bytes())
    data[part.spans["image"][2][0] + 60] ^= 255
    data[part.spans["image"][4][0]] ^= 255
    where.write_bytes(bytes(data))
    source = PartSource(where, part, {"label": ("cat", "dog")})
    for index, reason in ((2, "cannot be unpacked"), (4, "not where the directory says")):
        with pytest.raises(images.BrokenImage, match=rf"cat/{index}\.png: .*{reason}"):
            source.encoded(index)
    assert source.encoded(5) == (folder / NAMES[5]).read_bytes()
    (folder / NAMES[0]).unlink()
    with pytest.raises(images.BrokenImage, match=r"cat/0\.png: No such file"):
        PartSource(folder, Part({"image": [NAMES[0]]}, {"image": [()]}, {}), {}).read(0)


def test_a_compressed_tar_is_unpacked_once_and_again_when_it_changes(folder, cache):
    where = archived(folder, "gztar")
    with ThreadPoolExecutor(4) as pool:
        (first,) = set(pool.map(at_offsets, [where] * 4))
    assert tarfile.is_tarfile(first)
    assert at_offsets(where) == first
    os.utime(where, (time.time() + 5, time.time() + 5))
    assert at_offsets(where) != first
    assert not list(cache.rglob("*.part"))
    where.write_bytes(where.read_bytes()[:200])
    with pytest.raises(InputError, match=r"pets\.tar\.gz: cannot be unpacked"):
        at_offsets(where)


def test_a_compressed_tar_that_memory_has_no_room_for_is_refused_with_the_command(folder):
    where = archived(folder, "gztar")
    PackedTar(where, Memory(10**9, 10**9))
    with pytest.raises(InputError, match=rf"instead: genimg prepare {where} {where}-shards"):
        PackedTar(where, Memory(10**9, 1000))


def states(where: Path) -> list:
    return list(opener(str(where), in_parts=True)("train").states())


@pytest.mark.parametrize("form", ["folder", "zip", "tar", "gztar"])
def test_states_change_with_one_image_deep_inside(folder, form):
    before = states(folder if form == "folder" else archived(folder, form))
    picture = images.load(folder / NAMES[3])
    picture[0, 0] ^= 1
    (folder / NAMES[3]).write_bytes(images.encode(picture))
    os.utime(folder / NAMES[3], (1e9, 1e9))
    after = states(folder if form == "folder" else archived(folder, form))
    assert before[3] != after[3]
    assert before[:3] == after[:3]


def test_a_part_is_a_small_thing():
    """A task of 10,000 images is told about 60 kB, whatever the size of the source."""
    names = [f"class-{i % 1000:04d}/image-{i * 7919 % 10**7:07d}.jpg" for i in range(10_000)]
    labels = [i % 1000 for i in range(10_000)]
    part = Part({"image": names}, {"image": [()] * 10_000}, {"label": labels})
    assert len(part.packed()) < 200_000
