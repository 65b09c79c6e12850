"""The verbs end to end on tiny models: what they print and write, and that it is repeatable."""

import json
import math
import shutil
from pathlib import Path

import icc
import numpy as np
import pytest
import torch
from PIL import Image

from genimg import recipes
from genimg.precision import resolved
from genimg.recipes import RECIPES


@pytest.fixture(autouse=True)
def home(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: empty but for a registry with dcgan, ffdnet, judge and judge-8."""
    shutil.copytree(models / "registry", tmp_path / "registry")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(outcome) -> str:
    assert outcome.code == 0, outcome.err
    return outcome.out


def described_in_words(outcome) -> str:
    """What a command printed, however it is wrapped."""
    return " ".join(printed(outcome).split())


def test_recipes_lists_all_and_describes_one(command):
    listed = printed(command("recipes"))
    for name in RECIPES:
        assert name in listed
    for name in RECIPES:
        described = printed(command(f"recipes {name}"))
        known = recipes.named(name).keys()
        assert all(key in described for key in known if key != "recipe")
    assert "gamma of the R1 penalty" in described_in_words(command("recipes dcgan"))
    assert "one-sided label smoothing" not in described_in_words(command("recipes dcgan"))
    assert "(float, at least 0, below 1)" in described_in_words(command("recipes dcgan --all"))
    kinds = described_in_words(command("recipes restorer degradations.jpeg"))
    assert "degradations.jpeg.subsample true keep chroma" in kinds
    assert "noise" not in kinds.partition("key value meaning")[2]
    some = described_in_words(command("recipes dcgan loss.smooth model.a"))
    assert "one-sided label smoothing" in some
    assert "model.attention (" in some
    assert "train.lr" not in some
    text = printed(command("recipes ffdnet --json"))
    assert recipes.from_json(text) == recipes.named("ffdnet")


VARIED = "'data.augmentations=[{kind: affine, rotate: 30}, {kind: light, probability: 0.5}]'"


def test_recipes_shows_what_overrides_make_of_one(command):
    text = printed(command(f"recipes segmenter --json {VARIED} train.lr=0.5"))
    made = recipes.from_json(text)
    assert made.train.lr == 0.5
    assert [each.kind for each in made.data.augmentations] == ["affine", "light"]
    assert "[{kind: affine," in printed(command(f"recipes dcgan {VARIED}"))


@pytest.mark.parametrize("name", ["segmenter", "detector", "dcgan"])
def test_recipes_draws_what_training_sees_of_images(command, name, home: Path):
    where = printed(command(f"recipes {name} {VARIED} --show-augmentation varied.png")).strip()
    rows = np.asarray(Image.open(home / where))[2:, 2:]
    side = int(recipes.named(name).data.size * -(-128 // recipes.named(name).data.size))
    cells = rows.reshape(8, side + 2, 9, side + 2, 3).swapaxes(1, 2)[:, :, :side, :side]
    for first, *others in cells:
        assert len({each.tobytes() for each in (first, *others)}) == 9
    assert printed(command("recipes dcgan --show-augmentation plain.png")).strip() == "plain.png"
    plain = np.asarray(Image.open(home / "plain.png"))[2:, 2:]
    cells = plain.reshape(8, 130, 9, 130, 3).swapaxes(1, 2)
    assert (cells == cells[:, :1]).all(), "it varies none"


def test_train_prints_the_best_checkpoint_and_registers_it(command, tiny, home: Path):
    arguments = f"{' '.join(tiny['dcgan'])} train.images=96 train.checkpoint_every=32"
    out = printed(command(f"train dcgan {arguments} --workers 0 --run night --register dcgan"))
    *paths, reference = out.splitlines()
    assert reference == "dcgan@2"
    assert paths[0] == str(home / "runs/night/checkpoints/000000000096")
    runs = {p.name: json.loads((p / "metrics.json").read_text()) for p in map(Path, paths)}
    shown = json.loads(printed(command("models show dcgan@2 --json")))
    assert shown["metrics"] == runs[Path(paths[-1]).name]
    assert shown["metrics"]["swd"] == min(each["swd"] for each in runs.values())
    assert shown["lineage"]["run"] == "night"
    assert shown["lineage"]["recipe"] == "dcgan"
    measured = shown["lineage"]["evaluation"]["precision"]
    assert measured == resolved("auto", torch.device("cpu"))


def test_a_run_a_checkpoint_and_a_registered_model_sample_alike(command, models: Path, home: Path):
    newest = models / "runs/dcgan/checkpoints/000000000064"
    best = recipes.from_json((newest / "recipe.json").read_text()).chosen_by[0]
    for number, model in enumerate((models / "runs/dcgan", newest)):
        outcome = command(f"sample {model} -n 4 --seed 0 -o {number}.png")
        printed(outcome)
        assert ("its newest checkpoint, of 64 images; " in outcome.err) == (model != newest)
        assert (f"(by {best})" in outcome.err) == (model != newest)
    printed(command(f"models register copy {newest}"))
    printed(command("sample copy -n 4 --seed 0 -o 2.png"))
    assert len({(home / f"{number}.png").read_bytes() for number in range(3)}) == 1


def test_sample_draws_a_grid_or_a_folder_of_the_same_images(command, home: Path):
    assert printed(command("sample dcgan -n 5 --seed 3 --columns 2 -o out/grid.png")) == (
        "out/grid.png\n"
    )
    grid = np.asarray(Image.open("out/grid.png"))
    assert grid.shape == (3 * 18 + 2, 2 * 18 + 2, 3)
    assert printed(command("sample dcgan -n 5 --seed 3 -o each")) == "each: 5 images\n"
    names = sorted(path.name for path in (home / "each").glob("*.png"))
    assert names == [f"seed-00000{seed}.png" for seed in range(3, 8)]
    for i, name in enumerate(names):
        y, x = 2 + 18 * (i // 2), 2 + 18 * (i % 2)
        single = np.asarray(Image.open(home / "each" / name))
        assert np.array_equal(grid[y : y + 16, x : x + 16], single)
    assert not grid[2 + 18 * 2 :, 20:].any()  # the place of a sixth image stays black


def test_the_same_seed_gives_the_same_file_whatever_else_is_asked_for(command, home: Path):
    printed(command("sample dcgan -n 1 --seed 7 -o one"))
    printed(command("sample dcgan -n 9 --seed 0 -o nine"))
    printed(command("sample dcgan -n 1 --seed 8 -o other"))
    one = (home / "one/seed-000007.png").read_bytes()
    assert one == (home / "nine/seed-000007.png").read_bytes()
    assert one != (home / "other/seed-000008.png").read_bytes()


def test_truncation_brings_samples_closer_together(command):
    spread = []
    for name, truncation in (("wide", 1.0), ("narrow", 0.1)):
        printed(command(f"sample dcgan -n 8 --seed 0 --truncation {truncation} -o {name}"))
        made = [np.asarray(Image.open(path), float) for path in Path(name).glob("*.png")]
        spread.append(np.stack(made).std(axis=0).mean())
    assert spread[1] < 0.5 * spread[0]


def test_evaluate_prints_metrics_for_people_and_for_programs(command):
    arguments = "evaluate ffdnet evaluation.sigmas=[25,50] --data scenes"
    metrics = json.loads(printed(command(f"{arguments} --json --precision float32")))
    protocol = metrics.pop("protocol")
    assert (protocol["data"], protocol["split"], protocol["images"]) == ("scenes", "test", 4)
    assert protocol["precision"] == "float32"
    assert {"fingerprint", "precision", "seed", "detector", "method"} <= protocol.keys()
    damaged = metrics.pop("beside")["damaged"]
    assert set(metrics) == {"psnr", "psnr_25", "ssim_25", "psnr_50", "ssim_50"}
    assert set(damaged) == set(metrics) - {"psnr"}
    assert metrics["psnr"] == pytest.approx((metrics["psnr_25"] + metrics["psnr_50"]) / 2)
    assert metrics["psnr_25"] > metrics["psnr_50"] > 10
    head, *lines = printed(command(f"{arguments} --precision float32")).splitlines()
    assert head.split() == ["model", "damaged"]
    beside = {name: f"{value:.4g}" for name, value in damaged.items()}
    assert [line.split() for line in lines] == [
        [name, f"{value:.4g}", beside.get(name, "-")] for name, value in metrics.items()
    ]


def test_a_restorers_evaluation_leaves_a_sheet_and_a_line_an_image(command, home: Path):
    printed(command("evaluate ffdnet evaluation.sigmas=[25] --data scenes -o judged"))
    lines = Path("judged/scores.csv").read_text().splitlines()
    assert lines[0] == "image,psnr_25,ssim_25,psnr_25_damaged,ssim_25_damaged"
    assert len(lines) == 5
    assert Image.open("judged/sheet.png").width > 3 * 16
    ended = command("evaluate dcgan -o judged")
    assert ended.code == 2
    assert "-o: only for models that restore" in ended.err


def test_a_model_may_be_asked_for_in_either_precision(command, home: Path):
    for precision in ("float32", "bfloat16"):
        printed(command(f"sample dcgan -n 4 --seed 0 -o {precision}.png --precision {precision}"))
    low, high = (np.asarray(Image.open(f"{name}.png"), int) for name in ("bfloat16", "float32"))
    assert 0 < np.abs(low - high).mean() < 1
    measured = json.loads(printed(command("evaluate dcgan --precision bfloat16 --json")))
    assert measured["protocol"]["precision"] == "bfloat16"


def test_evaluate_takes_images_of_ones_own(command, home: Path):
    for name in ("test/cat", "test/dog", "train/cat", "train/dog"):
        (home / "data" / name).mkdir(parents=True)
    draw = np.random.default_rng(0).integers
    for i in range(6):
        for name in ("test/cat", "test/dog", "train/cat", "train/dog"):
            pixels = draw(0, 256, (24, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(home / "data" / name / f"{i}.png")
    found = {
        split: json.loads(printed(command(f"evaluate dcgan --data data --split {split} --json")))
        for split in ("train", "test", "all")
    }
    assert len({each["swd"] for each in found.values()}) == 3
    assert all(math.isfinite(each["swd"]) for each in found.values())


def test_evaluate_on_a_models_own_data_looks_at_what_was_held_out(command, tiny, home: Path):
    for label in range(4):
        (home / f"own/{label}").mkdir(parents=True)
        for i in range(20):
            pixels = np.full((16, 16, 3), 60 * label, np.uint8)
            pixels[: i // 2 + 3] = 255
            Image.fromarray(pixels).save(home / f"own/{label}/{i}.png")
    arguments = f"{' '.join(tiny['classifier'])} data.holdout=20 train.images=64"
    printed(command(f"train classifier {arguments} --data own --workers 0 --run own"))
    kept = json.loads(next((home / "runs/own/checkpoints").glob("*/metrics.json")).read_text())

    ended = command("evaluate runs/own --data own --json")
    metrics = json.loads(printed(ended))
    said = "runs/own was trained on own: only the 20 images that were held out are looked at"
    assert said in ended.err
    protocol, _ = metrics.pop("protocol"), metrics.pop("beside", None)
    assert (protocol["split"], protocol["images"]) == ("held-out", 20)
    assert metrics == pytest.approx(kept, rel=1e-5)

    (home / "own/0/another.png").write_bytes((home / "own/0/3.png").read_bytes())
    ended = command("evaluate runs/own --data own --json")
    protocol = json.loads(printed(ended))["protocol"]
    assert "held out" not in ended.err
    assert (protocol["split"], protocol["images"]) == ("test", 81)

    longer = f"{' '.join(tiny['classifier'])} data.holdout=20 train.images=96 --changed-data"
    shutil.copytree(home / "own", home / "before")
    (home / "before/0/another.png").unlink()
    printed(command(f"train classifier {longer} --data own --workers 0 --run own"))
    for data in ("own", "before"):
        ended = command(f"evaluate runs/own --data {data} --json")
        protocol = json.loads(printed(ended))["protocol"]
        assert (protocol["split"], protocol["images"]) == ("held-out", 20)

    own = json.loads(printed(command("evaluate judge --split train --json")))["protocol"]
    assert (own["split"], own["images"]) == ("held-out", 32)


def test_a_judge_sees_a_generators_images(command):
    arguments = "evaluate dcgan --judge judge --samples 40 --json"
    metrics = json.loads(printed(command(arguments)))
    assert metrics["judge_fid"] > 0
    assert 1 <= metrics["judge_inception_score"] <= 8  # classes of scenes
    assert 0 <= metrics["judge_confident"] <= 1
    assert 0 <= metrics["judge_smallest_class"] <= 1 / 8 <= metrics["judge_largest_class"] <= 1
    assert json.loads(printed(command(arguments))) == metrics


def picture(mode: str, width: int, height: int) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels, mode)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_restore_keeps_size_mode_and_transparency(command, home: Path, mode: str):
    given = picture(mode, 37, 23)
    given.save("noisy.png")
    assert printed(command("denoise -m ffdnet noisy.png -o out/clean.png --sigma 25")) == (
        "out/clean.png\n"
    )
    made = Image.open(home / "out/clean.png")
    assert (made.mode, made.size) == (given.mode, given.size)
    if mode.endswith("A"):
        assert made.getchannel("A").tobytes() == given.getchannel("A").tobytes()
    assert made.tobytes() != given.tobytes()
    printed(command("denoise noisy.png -o same.png --sigma 25 --strength 0 -m ffdnet"))
    assert Image.open(home / "same.png").tobytes() == given.tobytes()


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_restore_keeps_the_colour_profile(command, home: Path, suffix: str):
    picture("RGB", 24, 16).save("noisy.png", icc_profile=icc.rgb())
    printed(command(f"denoise -m ffdnet noisy.png -o clean.{suffix} --sigma 25"))
    assert Image.open(f"clean.{suffix}").info["icc_profile"] == icc.rgb()


def test_restore_of_a_folder_keeps_names_and_folders(command, home: Path):
    (home / "in/deeper").mkdir(parents=True)
    picture("RGB", 30, 20).save("in/a.bmp")
    picture("L", 16, 17).save("in/deeper/b.png")
    (home / "in/notes.txt").write_text("not an image")
    assert printed(command("denoise -m ffdnet in -o out")) == "out\n"
    made = {str(p.relative_to(home / "out")) for p in (home / "out").rglob("*") if p.is_file()}
    assert made == {"a.png", "deeper/b.png", "operation.json"}
    assert Image.open(home / "out/a.png").size == (30, 20)
    assert Image.open(home / "out/deeper/b.png").mode == "L"


def test_tiles_leave_no_trace(command, home: Path):
    picture("L", 300, 150).save("noisy.png")
    for tile in ("0", "136"):
        printed(command(f"denoise -m ffdnet noisy.png -o {tile}.png --sigma 25 --tile {tile}"))
    whole, tiled = (np.asarray(Image.open(f"{tile}.png"), int) for tile in ("0", "136"))
    assert np.abs(whole - tiled).max() <= 1  # kernels for other shapes round otherwise


def test_restore_asks_a_model_for_what_it_was_made_for(command, home: Path):
    picture("RGB", 20, 12).save("noisy.png")
    printed(command("restore noisy.png -o one.png -m ffdnet"))
    printed(command("denoise noisy.png -o other.png -m ffdnet"))
    assert (home / "one.png").read_bytes() == (home / "other.png").read_bytes()


def test_an_interpolation_is_one_file_that_moves(command, home: Path):
    assert printed(command("interpolate dcgan --seed 3 --frames 5 -o way.webp")) == "way.webp\n"
    made = Image.open("way.webp")
    assert (made.format, made.size) == ("WEBP", (16, 16))
    assert 2 <= made.n_frames <= 5  # equal ones are one
    printed(command("sample dcgan --seed 3 -o first"))
    first = np.asarray(Image.open(home / "first/seed-000003.png"))
    assert np.array_equal(np.asarray(made.convert("RGB")), first)
    printed(command("interpolate dcgan --seed 3 --frames 5 -o way.gif"))
    assert Image.open("way.gif").n_frames >= 2


def test_what_is_said_of_images_is_json_by_file(command, home: Path):
    picture("RGB", 40, 20).save("a.png")
    picture("L", 16, 16).save("b.png")
    said = json.loads(printed(command("classify a.png b.png --top 2 -m judge")))
    assert list(said) == ["a.png", "b.png"]
    assert all(len(each) == 2 for each in said.values())
    assert set(said["a.png"][0]) == {"label", "probability"}
    assert printed(command("classify a.png -o said.json -m judge")) == "said.json\n"
    assert json.loads((home / "said.json").read_text()).keys() == {"a.png"}


def test_a_random_seed_is_told_and_gives_the_same_again(command, home: Path):
    ended = command("sample dcgan -n 3 -o random.png")
    seed = ended.err.rpartition("--seed ")[2].split()[0]
    printed(command(f"sample dcgan -n 3 --seed {seed} -o again.png"))
    assert (home / "random.png").read_bytes() == (home / "again.png").read_bytes()


def test_the_life_of_a_trained_model(command, models: Path, home: Path):
    checkpoints = sorted((models / "runs/dcgan/checkpoints").iterdir())
    assert printed(command(f"models register dcgan {checkpoints[-1]}")) == "registered dcgan@2\n"
    assert "dcgan@production names version 1" in printed(
        command("models promote dcgan@1 production")
    )
    assert "names version 2" in printed(command("models promote dcgan@2 production"))
    printed(command("sample dcgan@production -n 2 -o two"))
    assert "names version 1" in printed(command("models rollback dcgan production"))
    printed(command("sample dcgan@production -n 2 -o one"))
    assert printed(command("models rm dcgan@2")) == "removed dcgan@2\n"
    rows = json.loads(printed(command("models list dcgan --json")))
    assert [(row["version"], row["aliases"]) for row in rows] == [(1, ["production"])]
    assert printed(command("models verify")) == "intact: dcgan, ffdnet, judge, judge-8\n"
    weights = next((home / "registry").rglob("judge/*/*/weights.safetensors"))
    weights.write_bytes(weights.read_bytes() + b"\0")
    ended = command("models verify")
    assert ended.code == 1
    assert "judge@1: weights.safetensors" in ended.out
