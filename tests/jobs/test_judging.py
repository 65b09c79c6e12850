"""Generators judged by a classifier: the pages that `evaluate` and `compare` leave."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from genimg import judges, recipes
from genimg.checkpoint import read_manifest
from genimg.errors import InputError
from genimg.judging import BETTER
from jobs.judgements import set_apart
from jobs.restorers import refuse_other_protocol
from jobs.tables import told

LIMITS = ["real", "noise", "repeated"]
# the others are of stacked images, and of models that draw by class
MEASURED = BETTER.keys() - {"swd", "judge_modes", "judge_modes_kl"}
MEASURED -= {"judge_gan_test", "judge_gan_train", "judge_intra_fid"}


@pytest.fixture(autouse=True)
def home(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a registry with dcgan and judge, and an earlier checkpoint of dcgan."""
    shutil.copytree(models / "registry", tmp_path / "registry")
    shutil.copytree(models / "runs/dcgan/checkpoints/000000000032", tmp_path / "earlier")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(outcome) -> str:
    assert outcome.code == 0, outcome.err
    return outcome.out


def test_evaluate_leaves_a_page(command, home: Path):
    arguments = "evaluate dcgan --judge judge --samples 40 --data scenes"
    report = json.loads(printed(command(f"{arguments} -o page --json")))
    assert json.loads((home / "page/metrics.json").read_text()) == report
    protocol = report["protocol"]["judge"]
    judge = home / "registry/models/judge/versions/00001"
    assert protocol["digest"] == read_manifest(judge).digest()
    assert (protocol["samples"], protocol["images"], protocol["training_images"]) == (40, 40, 240)
    assert list(report["beside"]) == LIMITS
    assert report.keys() >= MEASURED
    for metrics in report["beside"].values():
        assert metrics.keys() >= MEASURED

    lines = (home / "page/report.md").read_text().splitlines()
    assert lines[0] == "# dcgan, judged by judge"
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    assert rows[0] == ["metric", "model", *LIMITS]
    assert {row[0].split()[0] for row in rows[2:]} == report.keys() - {"beside", "protocol"}
    page = (home / "page/index.html").read_text()
    assert page.count('src="data:image/png;base64,') == 3  # samples, by class, nearest
    assert len(re.findall(r"(src|href)=", page)) == 3  # it needs nothing else
    assert protocol["digest"] in page

    head, *told = printed(command(arguments)).splitlines()
    assert head.split() == ["model", *LIMITS]
    assert [line.split() for line in told] == [" ".join(row).split() for row in rows[2:]]


def test_by_how_many_steps_images_are_drawn_may_be_said(command, home: Path):
    tiny = "data.size=16 data.holdout=16 model.width=8 train.images=64 evaluation.samples=16"
    printed(command(f"train flow {tiny} --workers 0"))
    arguments = "evaluate runs/flow --judge judge --samples 40 --data scenes --json"
    one, four = (
        json.loads(printed(command(f"{arguments} sampler.steps={steps}"))) for steps in (1, 4)
    )
    assert one["judge_fid"] != four["judge_fid"]
    assert [each["protocol"]["sampler.steps"] for each in (one, four)] == ["1", "4"]


def test_compare_gives_what_evaluate_gives_side_by_side(command, home: Path):
    arguments = "--judge judge --samples 40 --data scenes"
    alone = json.loads(printed(command(f"evaluate dcgan {arguments} --json")))
    report = json.loads(printed(command(f"compare dcgan earlier {arguments} -o page --json")))
    assert json.loads((home / "page/metrics.json").read_text()) == report
    mine, its = (report["models"][name] for name in ("dcgan", "earlier"))
    assert mine == {name: alone[name] for name in mine}
    assert report["beside"] == alone["beside"]
    assert report["protocol"]["judge"] == alone["protocol"]["judge"]
    for name, best in report["best"].items():
        values = [mine[name], its[name]]
        first = values.index(min(values) if BETTER[name] == "min" else max(values))
        assert ["dcgan", "earlier"][first] in best
        assert len(best) == 1 or values[0] == values[1]
    assert report["best"].keys() == MEASURED

    head, *lines = printed(command(f"compare dcgan earlier {arguments}")).splitlines()
    assert head.split() == ["dcgan", "earlier", *LIMITS]
    cells = {row[0]: row[-len(head.split()) :] for row in map(str.split, lines)}
    arrows = {row[0]: row[1] for row in map(str.split, lines) if row[1] in "↓↑"}
    assert arrows == {name: "↓" if BETTER[name] == "min" else "↑" for name in report["best"]}
    for name, row in cells.items():
        best = [who for who, cell in zip(head.split(), row, strict=True) if cell.endswith("*")]
        assert best == report["best"].get(name, [])
    page = (home / "page/index.html").read_text()
    assert page.count('src="data:image/png;base64,') == 6
    stars = sum(map(len, report["best"].values()))
    assert page.count("<b>") == (home / "page/report.md").read_text().count("**") // 2 == stars


def test_a_model_may_be_called_as_what_it_is_compared_with(command, home: Path):
    shutil.copytree(home / "earlier", home / "noise")
    about = "dcgan noise --judge judge --samples 40 --data scenes"
    report = json.loads(printed(command(f"compare {about} --json")))
    head, *lines = printed(command(f"compare {about}")).splitlines()
    assert " ".join(head.split()) == "dcgan noise real noise images repeated"
    cells = {row[0]: row[-5:] for row in map(str.split, lines)}  # three that are named, two beside
    found = report["models"]["noise"]["judge_fid"], report["beside"]["noise"]["judge_fid"]
    told = [cells["judge_fid"][place].rstrip("*") for place in (1, 3)]
    assert [float(each.replace(",", "")) for each in told] == pytest.approx(found, rel=1e-2)


def test_a_protocol_is_told_in_a_line_without_long_digests():
    protocol = {"fingerprint": "a" * 64, "judge": {"model": "eyes", "digest": "b" * 64}}
    brief = f"fingerprint: {'a' * 12}; judge.model: eyes; judge.digest: {'b' * 12}"
    assert told(protocol) == brief


def test_what_is_exact_has_a_hundred_decibels(command, home: Path):
    line = "evaluate ffdnet evaluation.sigmas=[0] --data scenes"
    told = printed(command(f"{line} --json"))
    assert "Infinity" not in told
    assert json.loads(told)["beside"]["damaged"]["psnr_0"] == 100  # nothing was
    rows = [row.split()[0] for row in printed(command(line)).splitlines()]
    assert rows == ["model", "psnr_0", "ssim_0"]  # `psnr` of one damage is the same


def test_restorers_are_compared_beside_the_damaged_images(command, models: Path, home: Path):
    shutil.copytree(models / "runs/ffdnet/checkpoints/000000000032", home / "early")
    alone = json.loads(printed(command("evaluate ffdnet --data scenes --json")))
    report = json.loads(printed(command("compare ffdnet early --data scenes --json")))
    assert report["models"]["ffdnet"] == {name: alone[name] for name in report["models"]["ffdnet"]}
    assert alone["beside"]["damaged"].items() <= report["beside"]["damaged"].items()
    assert report["best"].keys() == report["models"]["early"].keys()
    assert report["protocol"] == alone["protocol"]
    ended = command("compare ffdnet early --data scenes")
    assert printed(ended).split("\n")[0].split() == ["ffdnet", "early", "damaged"]
    assert f"fingerprint: {alone['protocol']['fingerprint'][:12]};" in ended.err

    mine = recipes.named("ffdnet")
    other = mine.override(["evaluation.sigmas=[25]"])
    with pytest.raises(InputError, match=r"by damage \(25: .*, ffdnet by \(15, 25, 50: "):
        refuse_other_protocol("ffdnet", mine, "other", other)
    with pytest.raises(InputError, match="other is judged by images 8, ffdnet by 100"):
        refuse_other_protocol("ffdnet", mine, "other", mine.override(["evaluation.images=8"]))


def test_compare_looks_at_what_was_held_out_of_all(command, tiny, home: Path):
    (home / "own").mkdir()
    for i in range(64):
        Image.fromarray(np.full((16, 16, 3), 4 * i, np.uint8)).save(home / f"own/{i}.png")
    for name, count in (("many", 24), ("few", 20)):
        values = f"{' '.join(tiny['dcgan'])} data.holdout={count} train.images=32"
        printed(command(f"train dcgan {values} --data own --workers 0 --run {name}"))
    arguments = "compare runs/many runs/few --judge judge --samples 15 --data own --json"
    ended = command(arguments)
    report = json.loads(printed(ended))
    assert report["protocol"]["split"] == "held-out"
    assert "only 20 images that all had held out are looked at" in ended.err
    assert report["protocol"]["judge"]["training_images"] == 44
    assert list(report["beside"]) == LIMITS

    ended = command(arguments.replace("runs/many runs/few", "dcgan earlier"))
    report = json.loads(printed(ended))  # which were trained on other data
    assert list(report["beside"]) == LIMITS[1:]
    assert "own is not divided into train/ and test/: no training images are known" in ended.err
    assert "judge_authenticity" not in report["models"]["dcgan"]


def test_images_that_the_judge_has_learnt_from_are_not_looked_at(command, tiny, home: Path):
    for number in range(96):
        place = home / "own" / ("disc", "ring")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), 2 * number, np.uint8)).save(place / f"{number}.png")
    values = f"{' '.join(tiny['classifier'])} data.holdout=40 train.images=32 model.features=32"
    printed(command(f"train classifier {values} --data own --workers 0 --run eyes --register eyes"))
    about = "--judge eyes --samples 20 --data own --json"
    for line in (f"evaluate dcgan {about}", f"compare dcgan earlier {about}"):
        ended = command(line)
        report = json.loads(printed(ended))
        assert "was trained on own: only" in ended.err
        assert report["protocol"]["split"] == "held-out"
        assert report["protocol"]["judge"]["training_images"] == 0  # the models had others
    values = f"{' '.join(tiny['dcgan'])} data.holdout=24 train.images=32"
    printed(command(f"train dcgan {values} --data own --workers 0 --run few"))
    ended = command(f"evaluate runs/few {about}")
    assert "runs/few was trained on own: only the 24 images that were held out" in ended.err
    assert "FID of 20 images in 32 features says little" in ended.err
    assert json.loads(printed(ended))["protocol"]["judge"]["training_images"] == 72


def test_streamed_data_of_which_models_hold_out_other_images_is_refused():
    streamed = SimpleNamespace(fingerprint="it", at_hand=False)
    with pytest.raises(InputError, match=r"data\.holdout=20, 30: of so large data"):
        set_apart(streamed, [{"it": 30}], {"it": 20})
    assert set_apart(streamed, [{"another": 30}], {}) is None


def test_a_training_chooses_by_what_its_recipe_says(command, tiny, home: Path):
    values = f"{' '.join(tiny['dcgan'])} evaluation.judge=judge evaluation.best=judge_recall"
    more = "train.images=96 train.checkpoint_every=32 --data scenes"
    ended = command(f"train dcgan {values} {more} --workers 0 --run night --register night")
    assert "best (by judge_recall)" in ended.err
    found = [
        json.loads(path.read_text())
        for path in sorted((home / "runs/night/checkpoints").glob("*/metrics.json"))
    ]
    assert all({"judge_recall", "judge_fid"} < each.keys() for each in found)
    assert not any("judge_kid" in each for each in found)  # only what chooses takes time
    version = json.loads((home / "registry/models/night/versions/00001/metrics.json").read_text())
    assert version["judge_recall"] == max(each["judge_recall"] for each in found)


def test_models_that_draw_by_class_are_judged_by_class(command, tiny, home: Path):
    values = f"{' '.join(tiny['dcgan'])} model.conditional=true train.images=64 --data scenes"
    printed(command(f"train dcgan {values} --workers 0 --run kinds --register kinds"))
    about = "--judge judge --samples 40 --data scenes"
    ended = command(f"evaluate kinds {about} --gan-train --gan-images 70 -o page --json")
    report = json.loads(printed(ended))
    assert "a classifier as the judge learns from 70 of its images" in ended.err
    assert "kinds: GAN-train  64/64" in ended.err
    assert report["protocol"]["judge"]["gan_train"] == 70
    names = list(report["classes"]["gan_train"])
    assert len(names) == 8
    share = report["judge_gan_test"]
    assert 0 <= min(report["classes"]["gan_test"].values()) <= share <= 1
    assert report["beside"]["noise"]["judge_gan_train"] == 1 / 8
    assert report["beside"]["real"]["judge_gan_test"] == report["beside"]["real"]["judge_gan_train"]
    page = (home / "page/index.html").read_text()
    assert "--gan-train --gan-images 70" in page
    assert all(f"<tr><th>{name}</th>" in page for name in names)
    assert "## kinds, by class" in (home / "page/report.md").read_text()

    several = json.loads(printed(command(f"compare dcgan kinds {about} --json")))
    assert several["models"]["kinds"]["judge_gan_test"] == share
    assert several["best"]["judge_gan_test"] == ["kinds"]
    assert list(several["classes"]) == ["kinds"]
    assert "judge_gan_test" not in several["models"]["dcgan"]
    told = printed(command(f"evaluate kinds {about}")).split("\n\n")[1].splitlines()
    assert told[0].split() == ["real_accuracy", "real_fid", "gan_test", "fid"]
    assert [line.split()[0] for line in told[1:]] == names
    for verb in ("evaluate", "compare"):
        ended = command(f"{verb} dcgan {about} --gan-train")
        assert ended.code == 2
        assert "--gan-train: dcgan does not draw by class; leave it out" in ended.err
    for number in range(64):  # whose classes are numbered
        place = home / "own" / str(number % 2)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), number, np.uint8)).save(place / f"{number}.png")
    ended = command(f"evaluate kinds {about.replace('scenes', 'own')} --gan-train")
    assert ended.code == 2
    assert "--gan-train: the data has classes that the judge does not tell" in ended.err
    assert "drawing" not in ended.err
    ended = command("evaluate kinds --gan-train")
    assert "--gan-train: a classifier as the judge is trained; give --judge too" in ended.err


class Standing(nn.Module):
    """In Inception's place: it sees the mean of each channel, and of colours nothing more."""

    def __init__(self) -> None:
        super().__init__()
        self.classes = nn.Parameter(torch.linspace(-1, 1, 3024).view(1008, 3))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3)).expand(-1, 3)

    def to_logits(self, features: torch.Tensor) -> torch.Tensor:
        return features @ self.classes.T


def test_inception_judges_by_weights_that_a_person_has(command, home: Path, monkeypatch):
    monkeypatch.setattr(judges, "Inception", Standing)
    torch.save(Standing().state_dict(), home / "weights.pth")
    about = "--judge inception:weights.pth --samples 40 --data scenes"
    report = json.loads(printed(command(f"evaluate dcgan {about} -o page --json")))
    digest = hashlib.sha256((home / "weights.pth").read_bytes()).hexdigest()
    assert report["protocol"]["judge"]["digest"] == digest
    assert report["protocol"]["judge"]["precision"] == "float32"
    assert report.keys() >= MEASURED
    several = json.loads(printed(command(f"compare dcgan earlier {about} --json")))
    assert several["models"]["dcgan"]["judge_fid"] == report["judge_fid"]
    ended = command(f"compare dcgan earlier {about.replace('weights', 'waits')}")
    assert ended.code == 2
    assert "waits.pth: no such file; give torch-fidelity's weights-inception" in ended.err


@pytest.mark.ray
@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_scores_of_images_that_workers_draw_are_the_same(
    ray_cluster, command, home: Path, monkeypatch, workers: int
):
    arguments = "--judge judge --samples 40 --data scenes --json"
    alone = json.loads(printed(command(f"evaluate dcgan {arguments}")))
    monkeypatch.setattr("jobs.drawn_on_ray.AT_ONCE", 9)
    assert alone == json.loads(printed(command(f"evaluate dcgan {arguments} --workers {workers}")))


@pytest.mark.slow
@pytest.mark.ray
def test_of_models_side_by_side_workers_draw_the_images_too(ray_cluster, command, home: Path):
    arguments = "compare dcgan earlier --judge judge --samples 40 --data scenes --json"
    alone, shared = (json.loads(printed(command(arguments + m))) for m in ("", " --workers 2"))
    assert shared["models"] == alone["models"]


def test_workers_draw_for_a_judge_alone(command, home: Path):
    ended = command("evaluate dcgan --data scenes --workers 2")
    assert ended.code == 2
    assert "--workers 2: they draw a generator's images for --judge to look at" in ended.err
