"""Operations over folders and prefixes: whole, resumable, the same on a cluster as alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from photo_folders import files, printed, write_photos

from genimg import images
from genimg.data.opening import open_dataset
from genimg.engine import Engine
from genimg.operations.restoring import Denoise
from genimg.recipe import Data
from jobs.model import folder_of
from jobs.offline.job import Chunk, Job, Source
from jobs.offline.record import claim
from jobs.offline.worker import Worker, runs


@pytest.fixture(autouse=True)
def home(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a registry with dcgan, ffdnet, judge; and `photos`, 20 images."""
    shutil.copytree(models / "registry", tmp_path / "registry")
    write_photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def engine_of(name: str) -> Engine:
    return Engine.load(folder_of(name, "registry")[0])


def test_each_image_of_a_folder_is_what_it_would_be_alone(command, home: Path):
    assert printed(command("denoise photos -o clean --sigma 25 -m ffdnet")) == "clean\n"
    engine = engine_of("ffdnet")
    made = files("clean")
    assert made.keys() == files("photos").keys() | {"operation.json"}
    for name in files("photos"):
        pixels = images.load(home / "photos" / name, keep_alpha=True)
        alone = engine(Denoise(sigma=25), image=pixels).images[0]
        assert np.array_equal(images.decode(made[name]), alone), name


def test_what_cannot_be_read_is_listed_and_the_rest_done(command, home: Path):
    whole = (home / "photos/02.png").read_bytes()
    (home / "photos/02.png").write_bytes(whole[:60])
    (home / "photos/notes.txt").write_text("no image")
    (home / "photos/.hidden.png").write_bytes(whole)
    ended = command("denoise photos -o clean --sigma 25 -m ffdnet")
    assert ended.code == 1
    assert "failed: photos/02.png: damaged or truncated" in ended.err
    assert "clean/failures.jsonl" in ended.err
    made = files("clean")
    assert made.keys() == files("photos").keys() - {"02.png", "notes.txt", ".hidden.png"} | {
        "failures.jsonl",
        "operation.json",
    }
    (line,) = map(json.loads, made["failures.jsonl"].splitlines())
    assert line["file"] == "photos/02.png"
    assert "truncated" in line["reason"]

    times = {path: path.stat().st_mtime_ns for path in (home / "clean").rglob("*.png")}
    (home / "photos/02.png").write_bytes(whole)
    ended = command("denoise photos -o clean --sigma 25 -m ffdnet")
    assert "19 of 20 are done already" in ended.err
    assert printed(ended) == "clean\n"
    assert files("clean").keys() == made.keys() - {"failures.jsonl"} | {"02.png"}
    assert all(path.stat().st_mtime_ns == when for path, when in times.items())


def test_results_of_one_job_are_not_taken_for_those_of_another(command, home: Path):
    printed(command("denoise photos -o clean --sigma 25 -m ffdnet"))
    before = files("clean")
    times = {path: path.stat().st_mtime_ns for path in (home / "clean").rglob("*.png")}
    ended = command("denoise photos -o clean --sigma 30 -m ffdnet")
    assert ended.code == 2
    assert "there are results of a job with sigma=25.0, and this one has 30.0" in ended.err
    assert "--overwrite" in ended.err
    assert files("clean") == before
    assert (
        "20 of 20 are done already" in command("denoise photos -o clean --sigma 25 -m ffdnet").err
    )
    assert all(path.stat().st_mtime_ns == when for path, when in times.items())
    printed(command("denoise photos -o clean --sigma 30 -m ffdnet --overwrite"))
    after = files("clean")
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in after)


def test_shards_of_two_jobs_never_lie_together(command, home: Path):
    printed(command("sample dcgan -n 5 --seed 0 --shard-rows 2 -o drawn"))
    ended = command("sample dcgan -n 3 --seed 100 --shard-rows 2 -o drawn")
    assert ended.code == 2
    assert "a job with" in ended.err
    printed(command("sample dcgan -n 3 --seed 100 --shard-rows 2 -o drawn --overwrite"))
    shards = [name for name in files("drawn") if name.endswith(".parquet")]
    assert sorted(shards) == [f"shard-0000{number}-of-00002.parquet" for number in range(2)]


def test_classes_are_not_written_where_they_would_be_changed(command, home: Path):
    ended = command("segment photos/01.png --show mask -o mask.jpg -m ffdnet")
    assert ended.code == 2
    assert "JPEG would change classes" in ended.err


def test_one_image_may_go_into_a_folder(command, home: Path):
    printed(command("denoise photos/01.png -o one --sigma 25 -m ffdnet"))
    assert files("one").keys() == {"01.png", "operation.json"}


def test_what_is_told_of_images_is_one_file_of_any_form(command, home: Path):
    (home / "photos/broken.png").write_bytes(b"no image")
    for suffix in ("json", "jsonl"):
        ended = command(f"classify photos -o told.{suffix} -m judge --top 1")
        assert ended.code == 1
        assert "photos/broken.png" in ended.err
    names = {f"photos/{name}" for name in files("photos")}
    told = json.loads((home / "told.json").read_text())
    assert told.keys() == names - {"photos/broken.png"}
    lines = [json.loads(line) for line in (home / "told.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == sorted(names)
    assert {line["file"]: line["classify"] for line in lines if "classify" in line} == told
    assert [line["file"] for line in lines if "error" in line] == ["photos/broken.png"]

    part = home / "told.jsonl.parts/part-000000-of-000002.jsonl"
    assert part.is_file()
    (home / "photos/broken.png").unlink()
    again = printed(command("classify photos -o told.json -m judge --top 1 --overwrite"))
    assert again == "told.json\n"
    assert json.loads((home / "told.json").read_text()) == told
    assert not (home / "told.json.parts").exists()
    assert json.loads(printed(command("classify photos -m judge --top 1"))) == told


def test_lines_of_a_part_that_are_good_are_not_made_again(home: Path, command):
    (home / "photos/broken.png").write_bytes(b"no image")
    command("classify photos -o told.jsonl -m judge --top 1")
    parts = sorted((home / "told.jsonl.parts").glob("part-*"))
    for part in parts:  # a mark that tells whether a line is the one of before
        lines = [json.loads(line) for line in part.read_text().splitlines()]
        marked = [line | ({"classify": "kept"} if "classify" in line else {}) for line in lines]
        part.write_text("".join(json.dumps(line) + "\n" for line in marked))
    shutil.copy("photos/01.png", "photos/broken.png")
    printed(command("classify photos -o told.jsonl -m judge --top 1"))
    lines = [json.loads(line) for line in (home / "told.jsonl").read_text().splitlines()]
    made = [line["file"] for line in lines if line["classify"] != "kept"]
    assert made == ["photos/broken.png"]
    assert not (home / "told.jsonl.parts").exists()


def test_samples_in_shards_are_those_in_files_and_in_a_grid(command, home: Path):
    ended = command("sample dcgan -n 20 --seed 3 --shard-rows 8 -o shards")
    assert printed(ended) == "shards: 20 images\n"
    names = [f"shard-0000{number}-of-00003.parquet" for number in range(3)]
    assert sorted(files("shards")) == ["operation.json", *names]
    printed(command("sample dcgan -n 20 --seed 3 -o each"))
    alone = files("each")
    del alone["operation.json"]
    rows = [row for name in names for row in pq.read_table(home / "shards" / name).to_pylist()]
    assert {f"{row['name']}.png": row["image"] for row in rows} == alone
    assert [row["name"] for row in rows] == [f"seed-{seed:06d}" for seed in range(3, 23)]
    data = open_dataset(Data(source="shards", size=16, holdout=1), ("image",))
    assert len(data) == 20


def test_a_random_seed_goes_on_as_the_one_that_was_drawn(command, home: Path):
    job = Job(
        operation="sample",
        options={"n": 40, "seed": -1},
        model="registry/models/dcgan/versions/00001",
        digest="",
        precision="auto",
        sources=(),
        output="each",
        form="pictures",
        rows=16,
    )
    first = claim(job, overwrite=False)
    assert first.options["seed"] >= 0
    again = claim(job, overwrite=False)
    assert again == first
    assert claim(job, overwrite=True).options["seed"] != first.options["seed"]


def test_decoded_latents_become_a_file_each(command, home: Path, tmp_path: Path):
    generator = engine_of("dcgan")
    if "decode" not in generator.abilities:
        pytest.skip("this generator does not decode")
    latents = np.random.default_rng(0).standard_normal((10, 8)).astype(np.float32)
    np.save("latents.npy", latents)
    assert printed(command("decode latents.npy -m dcgan -o each")) == "each: 10 images\n"
    names = [f"{number:06d}.png" for number in range(10)]
    assert sorted(files("each")) == [*names, "operation.json"]
    for form in ("json", "jsonl"):
        rows = [{"file": str(n), "encode": row.tolist()} for n, row in enumerate(latents)]
        text = json.dumps({row["file"]: row["encode"] for row in rows})
        text = text if form == "json" else "\n".join(map(json.dumps, rows))
        (home / f"latents.{form}").write_text(text)
        printed(command(f"decode latents.{form} -m dcgan -o {form}"))
        assert all(files(form)[name] == files("each")[name] for name in names)
    for wrong in (b"", b"none", b"[1]"):
        for suffix in ("npy", "json", "jsonl"):
            (home / f"wrong.{suffix}").write_bytes(wrong)
            ended = command(f"decode wrong.{suffix} -m dcgan -o wrong")
            assert ended.code == 2
            assert "give what `genimg encode` writes" in ended.err


def test_an_image_with_which_a_pass_fails_is_told_and_the_others_are_done(
    command, home, monkeypatch
):
    compute = Engine.compute

    def failing(self, name, parts):
        if any(bool((plan.rows(0, 1)["image"] == -1).all()) for plan, *_ in parts):
            raise RuntimeError("out of memory\n for this one")
        compute(self, name, parts)

    images.save(np.zeros((8, 8, 3), np.uint8), home / "photos/poison.png")
    monkeypatch.setattr(Engine, "compute", failing)
    ended = command("denoise photos -o clean --sigma 25 -m ffdnet")
    assert ended.code == 1
    assert "failed: photos/poison.png: out of memory for this one" in ended.err
    assert len(list((home / "clean").rglob("*.png"))) == 20


def test_refused_before_anything_is_written(command, home: Path):
    for arguments, told in (
        ("denoise photos -o photos -m ffdnet", "lies in photos, whose images are read"),
        ("denoise photos -o ./photos/clean -m ffdnet", "lies in photos, whose images are read"),
        ("denoise photos -o clean.png -m ffdnet", "give a folder, as the source is one"),
        ("denoise photos -o clean -m ffdnet --workers 0", "--workers 0: at least 1"),
        ("denoise photos/01.png -o clean.png -m ffdnet --workers 2", "only with a folder"),
        ("sample dcgan -o grid.png --workers 2", "only with -o FOLDER"),
        ("sample dcgan -o grid.png --shard-rows 8", "only with -o FOLDER"),
        ("sample dcgan -o each --shard-rows 0", "--shard-rows 0: at least 1"),
        ("classify photos -o told.npy -m judge", "one of .json .jsonl"),
        ("classify photos -o told.json -m ffdnet", "a ffdnet model cannot classify"),
        ("denoise empty -o clean -m ffdnet", "empty: no images in it"),
    ):
        (home / "empty").mkdir(exist_ok=True)
        before = files(home)
        ended = command(arguments)
        assert ended.code == 2, arguments
        assert told in ended.err, arguments
        assert files(home) == before, arguments


@given(st.sets(st.integers(0, 200)), st.integers(1, 20))
def test_runs_cover_numbers_once(numbers: set[int], most: int):
    found = list(runs(sorted(numbers), most))
    assert [n for start, stop in found for n in range(start, stop)] == sorted(numbers)
    assert all(0 < stop - start <= most for start, stop in found)


def test_a_model_that_changed_meanwhile_is_refused(home: Path):
    photos = (Source("photos", str(home / "photos")),)
    model = "registry/models/judge/versions/00001"
    job = Job("classify", {"top": 1}, model, "another", "auto", photos, "out", "lines", 16)
    outcome = Worker(job)(Chunk(items=((0, "01.png"),), key="part"))
    assert "another model now" in outcome.refused


def test_an_image_for_which_there_is_no_memory_is_told_and_the_others_are_done(
    command, home, monkeypatch
):
    plan = Engine.plan

    def failing(self, operation, **inputs):
        if inputs["image"].shape[:2] == (8, 8):
            raise MemoryError("cannot allocate")
        return plan(self, operation, **inputs)

    images.save(np.zeros((8, 8, 3), np.uint8), home / "photos/large.png")
    monkeypatch.setattr(Engine, "plan", failing)
    ended = command("denoise photos -o clean --sigma 25 -m ffdnet")
    assert ended.code == 1
    assert "failed: photos/large.png: cannot allocate" in ended.err
    assert len(list((home / "clean").rglob("*.png"))) == 20


def test_images_that_came_and_went_leave_no_lines(command, home: Path):
    (home / "photos/broken.png").write_bytes(b"no image")
    assert command("classify photos -o told.jsonl -m judge").code == 1
    (home / "photos/broken.png").unlink()
    (home / "photos/02.png").unlink()
    shutil.copy("photos/01.png", "photos/00-new.png")
    printed(command("classify photos -o told.jsonl -m judge"))
    told = [json.loads(line)["file"] for line in (home / "told.jsonl").read_text().splitlines()]
    assert told == sorted(f"photos/{name}" for name in files("photos"))


def test_a_wrong_option_stands_in_nobodys_way(command, home: Path):
    images.save(np.zeros((300, 300, 3), np.uint8), home / "photos/wide.png")
    ended = command("denoise photos -o clean --sigma 25 --tile 10 -m ffdnet")
    assert ended.code == 2
    assert "tile=10: use 0, 'auto' or" in ended.err
    printed(command("denoise photos -o clean --sigma 25 -m ffdnet"))
    np.save("narrow.npy", np.zeros((2, 3), np.float32))
    assert "this model takes [N, 8]" in command("decode narrow.npy -m dcgan -o each").err
    np.save("right.npy", np.zeros((2, 8), np.float32))
    printed(command("decode right.npy -m dcgan -o each"))


def test_a_job_of_nothing_but_failures_stands_in_nobodys_way(command, home: Path):
    (home / "bad").mkdir()
    (home / "bad/one.png").write_bytes(b"no image")
    assert command("denoise bad -o clean --sigma 25 -m ffdnet").code == 1
    images.save(np.zeros((9, 9, 3), np.uint8), home / "bad/one.png")
    printed(command("denoise bad -o clean --sigma 30 -m ffdnet"))
    assert command("denoise bad -o clean --sigma 25 -m ffdnet").code == 2


def test_the_precision_of_a_job_is_that_in_which_it_began(command, home: Path):
    (home / "photos/broken.png").write_bytes(b"no image")
    command("denoise photos -o clean --sigma 25 -m ffdnet")
    record = json.loads((home / "clean/operation.json").read_text())
    assert record["precision"] in ("float32", "bfloat16")
    other = "float32" if record["precision"] == "bfloat16" else "bfloat16"
    ended = command(f"denoise photos -o clean --sigma 25 -m ffdnet --precision {other}")
    assert "precision=" in ended.err
    shutil.copy("photos/01.png", "photos/broken.png")
    ended = command("denoise photos -o clean --sigma 25 -m ffdnet")
    assert "20 of 21 are done already" in ended.err
    assert files("clean")["broken.png"] == files("clean")["01.png"]


def test_encoded_images_that_fail_shift_no_rows(command, home: Path):
    (home / "photos/broken.png").write_bytes(b"no image")
    ended = command("classify photos -o told.npy -m judge")
    assert ended.code == 2  # what is no array is never one
    assert not (home / "told.npy").exists()


def test_an_odd_name_is_named(command, home: Path):
    shutil.copy("photos/01.png", "photos/a\nb.png")
    ended = command("denoise photos -o clean --sigma 25 -m ffdnet")
    assert ended.code == 2
    assert "a\\nb.png': no result can have such a name; rename it" in ended.err
