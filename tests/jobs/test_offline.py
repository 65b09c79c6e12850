"""Operations over folders and prefixes: whole, resumable, the same on a cluster as alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from photo_folders import files, printed
from PIL import Image

from genimg import images
from genimg.data.opening import open_dataset
from genimg.engine import Engine
from genimg.errors import InputError
from genimg.operations.restoring import Denoise
from genimg.recipe import Data
from jobs.model import folder_of
from jobs.offline.inputs import bytes_beside
from jobs.offline.job import Job
from jobs.offline.record import claim
from jobs.offline.told import heard


def engine_of(name: str) -> Engine:
    return Engine.load(folder_of(name, "registry")[0])


pytestmark = pytest.mark.usefixtures("here")


def test_each_image_of_a_folder_is_what_it_would_be_alone(command, here: Path):
    assert printed(command("denoise photos -o clean --sigma 25 -m ffdnet")) == "clean\n"
    engine = engine_of("ffdnet")
    made = files("clean")
    assert made.keys() == files("photos").keys() | {"operation.json"}
    for name in files("photos"):
        pixels = images.load(here / "photos" / name, keep_alpha=True)
        alone = engine(Denoise(sigma=25), image=pixels).images[0]
        assert np.array_equal(images.decode(made[name]), alone), name


def test_what_cannot_be_read_is_listed_and_the_rest_done(command, here: Path):
    whole = (here / "photos/02.png").read_bytes()
    (here / "photos/02.png").write_bytes(whole[:60])
    (here / "photos/notes.txt").write_text("no image")
    (here / "photos/.hidden.png").write_bytes(whole)
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

    times = {path: path.stat().st_mtime_ns for path in (here / "clean").rglob("*.png")}
    (here / "photos/02.png").write_bytes(whole)
    ended = command("denoise photos -o clean --sigma 25 -m ffdnet")
    assert "19 of 20 are done already" in ended.err
    assert printed(ended) == "clean\n"
    assert files("clean").keys() == made.keys() - {"failures.jsonl"} | {"02.png"}
    assert all(path.stat().st_mtime_ns == when for path, when in times.items())


def test_results_of_one_job_are_not_taken_for_those_of_another(command, here: Path):
    printed(command("denoise photos -o clean --sigma 25 -m ffdnet"))
    before = files("clean")
    times = {path: path.stat().st_mtime_ns for path in (here / "clean").rglob("*.png")}
    ended = command("denoise photos -o clean --sigma 30 -m ffdnet")
    assert ended.code == 2
    assert "there are results of a job with --sigma 25.0, and this one has 30.0" in ended.err
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


def test_shards_of_two_jobs_never_lie_together(command, here: Path):
    printed(command("sample dcgan -n 5 --seed 0 --shard-rows 2 -o drawn"))
    ended = command("sample dcgan -n 3 --seed 100 --shard-rows 2 -o drawn")
    assert ended.code == 2
    assert "a job with" in ended.err
    printed(command("sample dcgan -n 3 --seed 100 --shard-rows 2 -o drawn --overwrite"))
    shards = [name for name in files("drawn") if name.endswith(".parquet")]
    assert sorted(shards) == [f"shard-0000{number}-of-00002.parquet" for number in range(2)]


def test_classes_are_not_written_where_they_would_be_changed(command, here: Path):
    ended = command("segment photos/01.png --show mask -o mask.jpg -m ffdnet")
    assert ended.code == 2
    assert "JPEG would change classes" in ended.err


def test_a_folder_of_pictures_is_of_the_format_that_is_asked_for(command, here: Path):
    (here / "mixed").mkdir()
    for name in ("a.png", "b.JPG", "c.webp", "d.gif", "e.tiff", "b.bmp"):
        Image.open(here / "photos/01.png").convert("RGB").save(here / "mixed" / name)
    line = "denoise mixed --sigma 25 --tile 2 -m ffdnet"
    ended = command(f"{line} --format same --save-quality 80 -o same")
    assert "--tile 2: tiles of " in ended.err
    assert printed(ended) == "same\n"
    kinds = {"a.png": "PNG", "b.JPG": "JPEG", "c.webp": "WEBP", "d.png": "PNG", "e.tiff": "TIFF"}
    kinds |= {"b.bmp": "BMP"}
    assert files("same").keys() == kinds.keys() | {"operation.json"}
    for name, kind in kinds.items():
        assert Image.open(here / "same" / name).format == kind
    (here / "mixed/b.bmp").unlink()  # or it would be a second b.jpg
    printed(command(f"{line} --format jpeg -o jpeg"))
    printed(command(f"{line} --format jpeg -o jpeg"))
    assert {name[1:] for name in files("jpeg")} == {".jpg", "peration.json"}
    assert len(files("jpeg")["a.jpg"]) > len(files("same")["b.JPG"])
    assert "there are results of a job with --format jpeg" in command(f"{line} -o jpeg").err


def test_an_interrupted_job_says_that_the_same_command_goes_on(command, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jobs.operated.perform", interrupted)
    ended = command("denoise photos -o clean --sigma 25 -m ffdnet")
    assert ended.code != 0
    assert "interrupted; the same command goes on from there" in ended.err


def test_one_image_may_go_into_a_folder(command, here: Path):
    printed(command("denoise photos/01.png -o one --sigma 25 -m ffdnet"))
    assert files("one").keys() == {"01.png", "operation.json"}


def test_what_is_told_of_images_is_one_file_of_any_form(command, here: Path):
    (here / "photos/broken.png").write_bytes(b"no image")
    for suffix in ("json", "jsonl"):
        ended = command(f"classify photos -o told.{suffix} -m judge --top 1")
        assert ended.code == 1
        assert "photos/broken.png" in ended.err
    names = {f"photos/{name}" for name in files("photos")}
    told = json.loads((here / "told.json").read_text())
    assert told.keys() == names - {"photos/broken.png"}
    lines = [json.loads(line) for line in (here / "told.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == sorted(names)
    assert {line["file"]: line["classify"] for line in lines if "classify" in line} == told
    assert [line["file"] for line in lines if "error" in line] == ["photos/broken.png"]

    part = here / "told.jsonl.parts/part-000000-of-000002.jsonl"
    assert part.is_file()
    (here / "photos/broken.png").unlink()
    again = printed(command("classify photos -o told.json -m judge --top 1 --overwrite"))
    assert again == "told.json\n"
    assert json.loads((here / "told.json").read_text()) == told
    assert not (here / "told.json.parts").exists()
    assert json.loads(printed(command("classify photos -m judge --top 1"))) == told


def test_lines_of_a_part_that_are_good_are_not_made_again(here: Path, command):
    (here / "photos/broken.png").write_bytes(b"no image")
    command("classify photos -o told.jsonl -m judge --top 1")
    parts = sorted((here / "told.jsonl.parts").glob("part-*"))
    for part in parts:  # a mark that tells whether a line is the one of before
        lines = [json.loads(line) for line in part.read_text().splitlines()]
        marked = [line | ({"classify": "kept"} if "classify" in line else {}) for line in lines]
        part.write_text("".join(json.dumps(line) + "\n" for line in marked))
    shutil.copy("photos/01.png", "photos/broken.png")
    printed(command("classify photos -o told.jsonl -m judge --top 1"))
    lines = [json.loads(line) for line in (here / "told.jsonl").read_text().splitlines()]
    made = [line["file"] for line in lines if line["classify"] != "kept"]
    assert made == ["photos/broken.png"]
    assert not (here / "told.jsonl.parts").exists()


def test_samples_in_shards_are_those_in_files_and_in_a_grid(command, here: Path):
    ended = command("sample dcgan -n 20 --seed 3 --shard-rows 8 -o shards")
    assert printed(ended) == "shards: 20 images\n"
    names = [f"shard-0000{number}-of-00003.parquet" for number in range(3)]
    assert sorted(files("shards")) == ["operation.json", *names]
    printed(command("sample dcgan -n 20 --seed 3 -o each"))
    alone = files("each")
    del alone["operation.json"]
    rows = [row for name in names for row in pq.read_table(here / "shards" / name).to_pylist()]
    assert {f"{row['name']}.png": row["image"] for row in rows} == alone
    assert [row["name"] for row in rows] == [f"seed-{seed:06d}" for seed in range(3, 23)]
    data = open_dataset(Data(source="shards", size=16, holdout=1), ("image",))
    assert len(data) == 20


def test_a_random_seed_goes_on_as_the_one_that_was_drawn(command, here: Path):
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


def test_decoded_latents_become_a_file_each(command, here: Path, tmp_path: Path):
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
        (here / f"latents.{form}").write_text(text)
        printed(command(f"decode latents.{form} -m dcgan -o {form}"))
        assert all(files(form)[name] == files("each")[name] for name in names)
    for wrong in (b"", b"none", b"[1]"):
        for suffix in ("npy", "json", "jsonl"):
            (here / f"wrong.{suffix}").write_bytes(wrong)
            ended = command(f"decode wrong.{suffix} -m dcgan -o wrong")
            assert ended.code == 2
            assert "give what `genimg encode` writes" in ended.err


def test_refused_before_anything_is_written(command, here: Path):
    for arguments, told in (
        ("denoise photos -o photos -m ffdnet", "lies in photos, whose images are read"),
        ("denoise photos -o photos/../photos -m ffdnet", "lies in photos, whose images are read"),
        ("denoise photos/01.png photos/02.png -o photos -m ffdnet", "01.png would be replaced"),
        ("denoise photos/01.png -o photos/../photos/01.png -m ffdnet", "is the image itself"),
        ("denoise photos -o ./photos/clean -m ffdnet", "lies in photos, whose images are read"),
        ("denoise photos -o clean.png -m ffdnet", "give a folder, as the source is one"),
        ("denoise photos -o clean -m ffdnet --workers 0", "--workers 0: at least 1"),
        ("denoise photos/01.png -o clean.png -m ffdnet --workers 2", "only with a folder"),
        ("sample dcgan -o grid.png --workers 2", "only with -o FOLDER"),
        ("sample dcgan -o grid.png --shard-rows 8", "only with -o FOLDER"),
        ("sample dcgan -o each --shard-rows 0", "--shard-rows 0: at least 1"),
        ("classify photos -o told.npy -m judge", "one of .json .jsonl"),
        ("denoise photos -o clean -m ffdnet --format jpg", "--format 'jpg': did you mean 'jpeg'?"),
        ("denoise photos -o clean -m ffdnet --save-quality 9", "png is lossless; give another"),
        ("denoise photos/01.png -o a.png -m ffdnet --format png", "--format png: only with a fol"),
        ("denoise photos/01.png -o a.png -m ffdnet --save-quality 9", "quality 9: png is lossless"),
        ("segment photos -o seen -m ffdnet --show mask --format jpeg", "would change classes"),
        ("classify photos -o told.json -m ffdnet", "ffdnet models cannot classify"),
        ("denoise empty -o clean -m ffdnet", "empty: no images in it"),
        ("denoise photos/01.png photos/02.png -o clean.png -m ffdnet", "as there are several"),
        ("denoise photos/01.png -o photos/01.png -m ffdnet", "is the image itself"),
    ):
        (here / "empty").mkdir(exist_ok=True)
        before = files(here)
        ended = command(arguments)
        assert ended.code == 2, arguments
        assert told in ended.err, arguments
        assert files(here) == before, arguments


def test_images_that_came_and_went_leave_no_lines(command, here: Path):
    (here / "photos/broken.png").write_bytes(b"no image")
    assert command("classify photos -o told.jsonl -m judge").code == 1
    (here / "photos/broken.png").unlink()
    (here / "photos/02.png").unlink()
    shutil.copy("photos/01.png", "photos/00-new.png")
    printed(command("classify photos -o told.jsonl -m judge"))
    told = [json.loads(line)["file"] for line in (here / "told.jsonl").read_text().splitlines()]
    assert told == sorted(f"photos/{name}" for name in files("photos"))


def test_a_wrong_option_stands_in_nobodys_way(command, here: Path):
    np.save("narrow.npy", np.zeros((2, 3), np.float32))
    assert "this model takes [N, 8]" in command("decode narrow.npy -m dcgan -o each").err
    np.save("right.npy", np.zeros((2, 8), np.float32))
    printed(command("decode right.npy -m dcgan -o each"))


def test_a_job_of_nothing_but_failures_stands_in_nobodys_way(command, here: Path):
    (here / "bad").mkdir()
    (here / "bad/one.png").write_bytes(b"no image")
    assert command("denoise bad -o clean --sigma 25 -m ffdnet").code == 1
    images.save(np.zeros((9, 9, 3), np.uint8), here / "bad/one.png")
    printed(command("denoise bad -o clean --sigma 30 -m ffdnet"))
    assert command("denoise bad -o clean --sigma 25 -m ffdnet").code == 2
    (here / "bad/one.png").write_bytes(b"no image")
    assert command("classify bad -o told.json --top 1 -m judge").code == 1
    assert command("classify bad -o told.json --top 2 -m judge").code == 1
    images.save(np.zeros((9, 9, 3), np.uint8), here / "bad/one.png")
    (here / "bad/two.png").write_bytes(b"no image")
    assert command("classify bad -o told.json --top 2 -m judge").code == 1
    assert "--top 2" in command("classify bad -o told.json --top 1 -m judge").err


def test_the_precision_of_a_job_is_that_in_which_it_began(command, here: Path):
    (here / "photos/broken.png").write_bytes(b"no image")
    command("denoise photos -o clean --sigma 25 -m ffdnet")
    record = json.loads((here / "clean/operation.json").read_text())
    assert record["precision"] in ("float32", "bfloat16")
    other = "float32" if record["precision"] == "bfloat16" else "bfloat16"
    ended = command(f"denoise photos -o clean --sigma 25 -m ffdnet --precision {other}")
    assert "--precision " in ended.err
    shutil.copy("photos/01.png", "photos/broken.png")
    ended = command("denoise photos -o clean --sigma 25 -m ffdnet")
    assert "20 of 21 are done already" in ended.err
    assert files("clean")["broken.png"] == files("clean")["01.png"]


def test_encoded_images_that_fail_shift_no_rows(command, here: Path):
    (here / "photos/broken.png").write_bytes(b"no image")
    ended = command("classify photos -o told.npy -m judge")
    assert ended.code == 2  # what is no array is never one
    assert not (here / "told.npy").exists()


def test_an_odd_name_is_named(command, here: Path):
    shutil.copy("photos/01.png", "photos/a\nb.png")
    ended = command("denoise photos -o clean --sigma 25 -m ffdnet")
    assert ended.code == 2
    assert "a\\nb.png': no result can have such a name; rename it" in ended.err


def test_what_goes_with_an_image_has_its_name_or_that_of_its_result(tmp_path: Path):
    for name in ("a.jpg", "b/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    for item, found in ((0, "a.jpg"), b"a.jpg"), ((0, "b/c.jpg"), b"b/c.png"):
        assert bytes_beside(str(tmp_path), item, "style") == found
    assert bytes_beside(str(tmp_path / "a.jpg"), (0, "d.png"), "style") == b"a.jpg"
    with pytest.raises(InputError, match=r"style: there is no d\.jpg or d\.png"):
        bytes_beside(str(tmp_path), (0, "d.jpg"), "style")


def test_images_that_no_latents_come_near_to_are_told(capsys):
    far, near = ({"psnr": psnr, "plain_psnr": 8.0} for psnr in (8.59, 23.5))
    lines = [far, near, {"failed": "broken"}]
    assert list(heard(lines)) == lines
    told = " ".join(capsys.readouterr().err.split())
    assert "16.05 dB on average, of 2 images from 8.59 to 23.50" in told
    assert "1 of 2 images are unlike what this model draws" in told
    assert list(heard(lines[1:])) == lines[1:]
    assert "unlike" not in capsys.readouterr().err
