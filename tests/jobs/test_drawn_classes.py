"""Classes at the command line: trained from labelled images, asked for, told in shards."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from photo_folders import files, printed

from genimg import images
from genimg.data.opening import open_dataset
from genimg.recipe import Data
from jobs.model import folder_of

FLOW = (
    "train flow model.conditional=true model.width=8 data.size=16 data.holdout=16"
    " train.batch_size=16 train.images=32 train.lr=0.01 train.warmup=0 evaluation.samples=16"
    " sampler.steps=1 --workers 0"
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the registry of a flow `pets`, of cats and dogs of noise."""
    from jobs.train import train

    home = tmp_path_factory.mktemp("pets")
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (home / "pets" / name).mkdir(parents=True)
        for number in range(12):
            noise = random.integers(0, 256, (16, 16, 3), np.uint8)
            images.save(noise, home / "pets" / name / f"{number}.png")
    overrides = [word for word in FLOW.split() if "=" in word]
    place, registry = str(home / "runs"), str(home / "registry")
    train("flow", overrides, data=str(home / "pets"), workers="0", storage=place, register="pets",
          registry=registry)  # fmt: skip
    return home


@pytest.fixture
def home(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENIMG_REGISTRY", str(trained / "registry"))
    return tmp_path


def test_a_label_is_drawn_alone_in_grids_and_in_shards_alike(command, home: Path):
    printed(command("sample pets -n 6 --seed 3 --label dog -o each"))
    printed(command("sample pets -n 6 --seed 3 --label cat -o cats"))
    dogs, cats = files("each"), files("cats")
    names = [f"seed-00000{seed}.png" for seed in range(3, 9)]
    assert all(dogs[name] != cats[name] for name in names)
    printed(command("sample pets -n 1 --seed 5 --label dog -o one.png"))
    one = images.load(home / "one.png")
    assert np.array_equal(one[2:18, 2:18], images.decode(dogs["seed-000005.png"]))
    printed(command("sample pets -n 6 --seed 3 --label dog --shard-rows 4 -o shards"))
    rows = [row for name in sorted(files("shards")) if name.endswith("parquet")
            for row in pq.read_table(home / "shards" / name).to_pylist()]  # fmt: skip
    assert {f"{row['name']}.png": row["image"] for row in rows} == {
        name: dogs[name] for name in names
    }
    assert [row["label"] for row in rows] == [1] * 6


def test_shards_without_a_label_are_a_labelled_set_of_the_models_classes(command, home: Path):
    printed(command("sample pets -n 20 --seed 0 --shard-rows 8 -o drawn"))
    data = open_dataset(Data(source="drawn", size=16, holdout=1), ("image", "label"))
    assert data.classes["label"] == ("cat", "dog")
    rows = [row for name in sorted(files("drawn")) if name.endswith("parquet")
            for row in pq.read_table(home / "drawn" / name).to_pylist()]  # fmt: skip
    assert {row["label"] for row in rows} == {0, 1}
    for label, name in enumerate(("cat", "dog")):
        (row, *_) = (row for row in rows if row["label"] == label)
        seed = int(row["name"].removeprefix("seed-"))
        printed(command(f"sample pets --seed {seed} --label {name} -o {name}"))
        assert files(name)[f"{row['name']}.png"] == row["image"]


def test_a_mix_is_of_no_class(command, home: Path):
    printed(command("sample pets -n 2 --seed 0 --label cat=0.5,dog=0.5 --shard-rows 2 -o mixed"))
    assert "label" not in pq.read_table(home / "mixed/shard-00000-of-00001.parquet").column_names


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("sample pets --label dgo", "--label 'dgo': unknown class 'dgo'; did you mean 'dog'?"),
        ("sample pets --label cat=none", "the share of cat is 'none'; give a number above 0"),
        ("sample pets --steps 0", "--steps '0': input should be greater than or equal to 1"),
        ("interpolate pets --label dgo", "did you mean 'dog'?"),
        (f"{FLOW} --data {{home}}/pets/cat", "one folder a class"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_anything_is_written(
    command, trained: Path, home: Path, line: str, told: str
):
    ended = command(line.format(home=trained))
    assert ended.code == 2
    assert told in ended.err
    assert files(".") == {}


def test_a_run_by_class_shows_a_row_of_each(trained: Path):
    folder, _ = folder_of("pets", str(trained / "registry"))
    height, width = images.load(folder / "samples.png").shape[:2]
    assert (height, width) == (2 * 18 + 2, 8 * 18 + 2)
