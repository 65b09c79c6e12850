"""Second stages of restorers as runs: helpers fetched, pinned, told of; begun, resumed, refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from genimg import checkpoint, recipes
from genimg.data.opening import open_dataset
from genimg.engine import trained
from genimg.inference import Inference
from genimg.precision import resolved
from genimg.recipe import Recipe
from genimg.training.sync import Alone
from jobs.model import with_helpers
from jobs.runs.folder import RunFolder
from jobs.runs.worker import Job, work

CPU = torch.device("cpu")
SMALL = [
    "train.batch_size=16", "train.warmup=0", "train.checkpoint_every=32", "train.log_every=16",
    "train.log_seconds=0", "data.size=16", "data.holdout=16", "model.width=8", "model.blocks=1",
    "evaluation.images=4",
]  # fmt: skip
SECOND = [
    *SMALL, "start=first", "loss.absolute=0.01", "loss.perceptual=1", "loss.features=judge-8",
    "loss.adversarial=0.005", "train.images=64",
]  # fmt: skip


@pytest.fixture(scope="module")
def stages(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a registry: classifiers, denoiser, generator, and `first`, a deblocker."""
    from jobs.train import train

    home = tmp_path_factory.mktemp("stages")
    shutil.copytree(models / "registry", home / "registry")
    train(
        "deblocker",
        [*SMALL, "train.lr=0.01", "train.images=96"],
        name="first",
        workers="0",
        storage=str(home / "runs"),
        register="first",
        registry=str(home / "registry"),
    )
    return home


@pytest.fixture(autouse=True)
def home(stages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: empty but for a registry as that of `stages`."""
    shutil.copytree(stages / "registry", tmp_path / "registry")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pinned(*overrides: str) -> Recipe:
    return with_helpers(recipes.named("deblocker").override([*SECOND, *overrides]), "registry")


def train_second(more: str = "", name: str = "night") -> str:
    return f"train deblocker {' '.join(SECOND)} {more} --workers 0 --run {name}"


def manifest_of(home: Path, run: str) -> dict:
    folder = RunFolder(str(home / "runs"), run)
    return json.loads((Path(folder.path(folder.checkpoints()[-1])) / "manifest.json").read_text())


def test_a_second_stage_is_trained_registered_and_served_without_its_helpers(command, home: Path):
    ended = command(f"{train_second()} --register second")
    assert ended.code == 0, ended.err
    helpers = manifest_of(home, "night")["lineage"]["helpers"]
    versions = home / "registry/models"
    assert helpers == {
        name: {
            "model": str(versions / model / "versions/00001"),
            "digest": checkpoint.read_manifest(versions / model / "versions/00001").digest(),
        }
        for name, model in (("start", "first"), ("features", "judge-8"))
    }
    for model in ("first", "judge-8"):
        shutil.rmtree(versions / model)
    ended = command("evaluate second --data scenes --split test --json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["psnr"] > 0


def test_the_first_evaluation_is_that_of_the_started_model(home: Path):
    first = home / "registry/models/first/versions/00001"
    earlier, networks = trained(first, CPU)
    metrics = checkpoint.read_json(first, checkpoint.METRICS)
    recipe = recipes.named("deblocker").override([*SMALL, "start=x", "train.images=16"])
    method = recipe.method(CPU)
    _, held_out = open_dataset(recipe.data, recipe.wants).hold_out(recipe.data.holdout)

    def evaluated() -> dict[str, float]:
        inference = Inference.of_copies(method.averages, resolved("auto", CPU), Alone())
        return recipe.evaluate(inference, held_out)

    assert evaluated() != pytest.approx(metrics, rel=1e-6)
    recipe.helped(method, {"start": networks})
    assert evaluated() == pytest.approx(metrics, rel=1e-6)
    assert earlier.recipe == "deblocker"


def test_a_run_begins_there(home: Path):
    """After a step that moves nothing the weights are those of the model that it started from."""
    recipe = pinned("train.images=16", "train.lr=1e-30")
    work(Job(recipe.model_dump_json(), "still", str(home)), Alone(), CPU)
    folder = RunFolder(str(home), "still")
    made = checkpoint.read_tensors(Path(folder.path(16)), checkpoint.WEIGHTS)
    first = home / "registry/models/first/versions/00001"
    expected = checkpoint.read_tensors(first, checkpoint.WEIGHTS)
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[name], expected[name]) for name in expected)


def test_an_interrupted_second_stage_ends_in_the_same_bits(home: Path):
    job = pinned().model_dump_json()
    answers = iter([False, True])
    lines: list[dict[str, float]] = []
    work(Job(job, "whole", str(home)), Alone(), CPU, progress=lambda seen, each: lines.append(each))
    parts = {f"loss_{name}" for name in ("pixels", "perceptual", "adversarial", "d")}
    assert {"loss", "logit_real", "logit_fake"} | parts <= lines[-1].keys()
    work(Job(job, "halves", str(home)), Alone(), CPU, should_stop=lambda: next(answers))
    assert RunFolder(str(home), "halves").checkpoints() == [32]
    work(Job(job, "halves", str(home)), Alone(), CPU)
    whole, halves = (Path(RunFolder(str(home), run).path(64)) for run in ("whole", "halves"))
    for file in (checkpoint.WEIGHTS, checkpoint.TRAINING):
        a, b = checkpoint.read_tensors(whole, file), checkpoint.read_tensors(halves, file)
        assert a.keys() == b.keys() != set()
        assert [name for name in a if not torch.equal(a[name], b[name])] == []
    assert any(name.startswith("discriminator.") and name.endswith(".u") for name in a)
    progress = [checkpoint.read_json(place, checkpoint.PROGRESS) for place in (whole, halves)]
    assert progress[0] == progress[1]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ("start=frist", "there is no model 'frist'"),
        ("start=judge", "start=judge: classifier models restore nothing"),
        ("model.width=16", "model.width=8 (here 16)"),
        ("loss.features=ffdnet", "ffdnet models cannot classify"),
        ("loss.features=null", "perceptual=1: needs features"),
        ("loss.perceptual=0", "features=judge-8: is looked at only where perceptual is above 0"),
    ],
)
def test_what_is_no_use_is_refused_before_anything_starts(command, home, overrides, told):
    ended = command(train_second(overrides))
    assert ended.code == 2
    assert told in ended.err
    assert not (home / "runs").exists()


@pytest.mark.slow
@pytest.mark.ray
def test_two_workers_train_what_one_does(ray_cluster, command, home: Path):
    for workers in (0, 2):
        arguments = f"{' '.join(SECOND)} train.precision=float32 --workers {workers}"
        ended = command(f"train deblocker {arguments} --run run-{workers}")
        assert ended.code == 0, ended.err
    alone, together = (
        checkpoint.read_tensors(
            Path(RunFolder(str(home / "runs"), f"run-{n}").path(64)), checkpoint.WEIGHTS
        )
        for n in (0, 2)
    )
    for name, expected in alone.items():
        torch.testing.assert_close(together[name], expected, rtol=1e-3, atol=5e-4)
