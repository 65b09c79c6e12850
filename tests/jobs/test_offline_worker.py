"""A process's part of a job: what fails is told and tried again, and nothing is made twice."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from photo_folders import files, printed

from genimg import images
from genimg.engine import Engine
from genimg.operations.restoring import Denoise
from jobs.model import folder_of
from jobs.offline.by_engine import ByEngine
from jobs.offline.job import Chunk, Job, Source
from jobs.offline.record import claim, settled
from jobs.offline.streams import runs
from jobs.offline.worker import Worker
from jobs.runs.addressed import digest_of

pytestmark = pytest.mark.usefixtures("here")


def test_a_pass_that_fails_once_changes_no_picture(command, here, monkeypatch):
    printed(command("denoise photos -o whole --sigma 25 --ensemble -m ffdnet"))
    compute, passes = Engine.compute, iter(range(1000))

    def failing(self, name, parts):
        if next(passes) in (3, 11):
            raise RuntimeError("out of memory")
        compute(self, name, parts)

    monkeypatch.setattr(Engine, "compute", failing)
    printed(command("denoise photos -o clean --sigma 25 --ensemble -m ffdnet"))
    made, whole = files("clean"), files("whole")
    assert all(made[name] == whole[name] for name in files("photos"))


def test_a_chunk_that_is_tried_again_makes_nothing_anew(here: Path):
    names = sorted(files("photos"))
    for name in names[4:11]:
        (here / "photos" / name).write_bytes(b"no image")
    chunk = Chunk(items=tuple((0, name) for name in names))
    job = claim(denoising(here), overwrite=False)
    assert len(Worker(job, ByEngine(job))(chunk).failed) == 7
    times = {path: path.stat().st_mtime_ns for path in (here / "clean").rglob("*.png")}
    assert len(times) == 13
    assert len(Worker(job, ByEngine(job))(chunk).failed) == 7
    assert all(path.stat().st_mtime_ns == when for path, when in times.items())


def test_the_first_to_load_the_model_decides_the_precision_of_all(here: Path):
    job = claim(denoising(here), overwrite=False)
    assert settled(job, precision="bfloat16").precision == "bfloat16"
    assert settled(job, precision="float32").precision == "bfloat16"
    assert ByEngine(job).engine.precision == "bfloat16"
    assert claim(denoising(here), overwrite=False).precision == "bfloat16"


def denoising(here: Path) -> Job:
    folder = folder_of("ffdnet", "registry")[0]
    photos = (Source("photos", str(here / "photos")),)
    options = Denoise(sigma=25).model_dump()
    clean = str(here / "clean")
    return Job(
        "denoise", options, str(folder), digest_of(folder), "auto", photos, clean, "pictures", 16
    )


def test_an_image_with_which_a_pass_fails_is_told_and_the_others_are_done(
    command, here, monkeypatch
):
    compute = Engine.compute

    def failing(self, name, parts):
        if any(bool((plan.rows(0, 1)["image"] == -1).all()) for plan, *_ in parts):
            raise RuntimeError("out of memory\n for this one")
        compute(self, name, parts)

    images.save(np.zeros((8, 8, 3), np.uint8), here / "photos/poison.png")
    monkeypatch.setattr(Engine, "compute", failing)
    ended = command("denoise photos -o clean --sigma 25 -m ffdnet")
    assert ended.code == 1
    assert "failed: photos/poison.png: out of memory for this one" in ended.err
    assert len(list((here / "clean").rglob("*.png"))) == 20


@given(st.sets(st.integers(0, 200)), st.integers(1, 20))
def test_runs_cover_numbers_once(numbers: set[int], most: int):
    found = list(runs(sorted(numbers), most))
    assert [n for start, stop in found for n in range(start, stop)] == sorted(numbers)
    assert all(0 < stop - start <= most for start, stop in found)


def test_a_model_that_changed_meanwhile_is_refused(here: Path):
    photos = (Source("photos", str(here / "photos")),)
    model = "registry/models/judge/versions/00001"
    job = Job("classify", {"top": 1}, model, "another", "auto", photos, "out", "lines", 16)
    outcome = Worker(job, ByEngine(job))(Chunk(items=((0, "01.png"),), key="part"))
    assert "another model now" in outcome.refused


def test_an_image_for_which_there_is_no_memory_is_told_and_the_others_are_done(
    command, here, monkeypatch
):
    plan = Engine.plan

    def failing(self, operation, **inputs):
        if inputs["image"].shape[:2] == (8, 8):
            raise MemoryError("cannot allocate")
        return plan(self, operation, **inputs)

    images.save(np.zeros((8, 8, 3), np.uint8), here / "photos/large.png")
    monkeypatch.setattr(Engine, "plan", failing)
    ended = command("denoise photos -o clean --sigma 25 -m ffdnet")
    assert ended.code == 1
    assert "failed: photos/large.png: cannot allocate" in ended.err
    assert len(list((here / "clean").rglob("*.png"))) == 20
