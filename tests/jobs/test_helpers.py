"""Models that a recipe asks for help: fetched before, pinned, told of in the lineage."""

import json
import shutil
from pathlib import Path

import pytest

from cluster.places import open_storage
from cluster.registry import Registry
from genimg import recipes
from jobs.model import with_helpers


@pytest.fixture(autouse=True)
def home(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: empty but for a registry with judge (16 pixels) and judge-8."""
    shutil.copytree(models / "registry", tmp_path / "registry")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def metrics_of(home: Path, run: str) -> dict[str, dict[str, float]]:
    """Of each checkpoint, by its folder."""
    found = (home / "runs" / run / "checkpoints").glob("*/metrics.json")
    return {path.parent.name: json.loads(path.read_text()) for path in found}


def judged(tiny: dict[str, list[str]], judge: str = "judge") -> str:
    return f"train dcgan {' '.join(tiny['dcgan'])} evaluation.judge={judge} train.images=96"


def test_checkpoints_are_chosen_by_what_the_judge_sees(command, tiny, home: Path):
    arguments = f"{judged(tiny)} train.checkpoint_every=32 --workers 0 --run night --register night"
    ended = command(arguments)
    assert ended.code == 0, ended.err
    metrics = metrics_of(home, "night")
    assert len(metrics) >= 2
    best = min(metrics, key=lambda name: metrics[name]["judge_fid"])
    version = Registry(open_storage("registry")).resolve("night")
    assert version.metrics["judge_fid"] == metrics[best]["judge_fid"]
    recipe = recipes.from_json((home / "runs/night/recipe.json").read_text())
    assert recipe.evaluation.judge == str(home / "registry/models/judge/versions/00001")
    manifest = json.loads((home / f"runs/night/checkpoints/{best}/manifest.json").read_text())
    helper = manifest["lineage"]["helpers"]["judge"]
    assert helper["model"] == recipe.evaluation.judge
    assert len(helper["digest"]) == 64

    again = command(arguments)  # of a run that has ended
    assert again.out.splitlines()[-1] == "night@1"
    again = command("evaluate night --data scenes --split test --json")
    assert again.code == 0, again.err
    said = json.loads(again.out)
    assert said["protocol"]["judge"] == recipe.evaluation.judge
    assert said["judge_fid"] == pytest.approx(metrics[best]["judge_fid"], rel=0.5)

    ended = command("evaluate night --data scenes --split test --judge judge --samples 32 --json")
    assert json.loads(ended.out)["judge_fid"] == pytest.approx(said["judge_fid"], rel=1e-3)


def test_the_run_stays_with_the_version_that_it_began_with(command, tiny, home: Path):
    assert command(f"{judged(tiny)} --workers 0 --run night").code == 0
    newer = home / "registry/models/judge/versions/00001"
    assert command(f"models register judge {newer}").code == 0  # so that judge@2 is the newest
    ended = command(f"{judged(tiny)} --workers 0 --run night")
    assert ended.code == 2
    assert "evaluation.judge" in ended.err
    assert "00001" in ended.err
    assert command(f"{judged(tiny, 'judge@1')} --workers 0 --run night").code == 0


@pytest.mark.parametrize(
    ("judge", "told"),
    [
        ("ffdnet", "ffdnet models cannot classify"),
        ("judge-8", "evaluation.judge=judge-8 takes 3 x 8 x 8 images, the model makes 3 x 16 x 16"),
        ("jugde", "there is no model 'jugde'"),
    ],
)
def test_a_helper_that_is_no_use_is_refused_before_anything_starts(
    command, tiny, home: Path, judge: str, told: str
):
    ended = command(f"{judged(tiny, judge)} --workers 0 --run night")
    assert ended.code == 2
    assert told in ended.err
    assert not (home / "runs").exists()


def test_a_helper_in_s3_is_named_by_its_address(bucket, home: Path, tiny, monkeypatch):
    monkeypatch.setenv("GENIMG_CACHE", str(home / "cache"))
    there = Registry(open_storage(f"{bucket}/registry"))
    here = Registry(open_storage("registry"))
    version = here.resolve("judge")
    there.register("judge", here.fetch(version), version.metrics, version.lineage)
    recipe = recipes.named("dcgan").override([*tiny["dcgan"], "evaluation.judge=judge"])
    address = f"{bucket}/registry/models/judge/versions/00001"
    assert with_helpers(recipe, f"{bucket}/registry").evaluation.judge == address
    assert with_helpers(recipe.override([f"evaluation.judge={address}"]), "none") is not None


@pytest.mark.slow
@pytest.mark.ray
def test_workers_judge_together_what_one_judges_alone(ray_cluster, command, tiny, home: Path):
    for workers in (0, 2):
        ended = command(f"{judged(tiny)} --workers {workers} --run run-{workers}")
        assert ended.code == 0, ended.err
    alone, together = (next(iter(metrics_of(home, f"run-{n}").values())) for n in (0, 2))
    assert together == pytest.approx(alone, rel=0.05)


@pytest.mark.slow
@pytest.mark.ray
def test_a_sweep_chooses_by_what_the_judge_sees(ray_cluster, command, tiny, home: Path):
    values = " ".join(tiny["dcgan"])
    ended = command(
        f"tune dcgan {values} evaluation.judge=judge train.images=64 'train.lr=choice(0.001,0.01)'"
        " --trials 2 --run search --searcher random"
    )
    assert ended.code == 0, ended.err
    assert "judge_fid" in ended.err + ended.out
