"""Runs without Ray: who may go on with one, what stops it, and what then becomes of it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genimg import checkpoint, images, recipes
from genimg.errors import InputError
from jobs.runs.folder import RunFolder

STATE = (checkpoint.WEIGHTS, checkpoint.TRAINING)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # sums over threads differ in their last bits


@pytest.fixture
def train(command, tiny: dict[str, list[str]], tmp_path: Path):
    """`genimg train dcgan` without Ray, tiny; more arguments override the first ones."""

    def run(arguments: str = "", name: str = "run"):
        return command(
            f"train dcgan {' '.join(tiny['dcgan'])} train.images=128 train.checkpoint_every=64 "
            f"train.log_every=32 --workers 0 --storage {tmp_path} --run {name} {arguments}"
        )

    return run


def test_a_name_stands_for_one_recipe(train, tmp_path: Path):
    assert train().code == 0
    before = state(tmp_path / "run")
    same = f"to resume it (all are in {tmp_path}/run/recipe.json), or another --run\n"
    ended = train("train.lr=0.002")
    assert ended.code == 2
    assert ended.err == (
        "error: run 'run' was started with train.lr=0.001, now train.lr=0.002; "
        f"give the same value {same}"
    )
    assert train("train.lr=0.002 train.seed=1").err == (
        "error: run 'run' was started with train.lr=0.001, train.seed=7, now train.lr=0.002,"
        f" train.seed=1; give the same values {same}"
    )
    assert state(tmp_path / "run") == before


def test_a_key_that_changes_nothing_is_told(train):
    said = "loss.r1_every changes nothing: loss.r1 and loss.r2 are 0"
    ended = train("loss.r1=0 loss.r1_every=2")
    assert said in ended.err
    assert said not in train("loss.r1=0", name="other").err


def test_a_finished_run_returns_without_training_or_starting_ray(train, tmp_path: Path):
    first = train()
    again = train("--workers 32 --gpu")  # more than any test machine has
    assert (again.code, again.out) == (0, first.out)
    assert len(list((tmp_path / "run/tensorboard").iterdir())) == 1


def test_a_longer_training_goes_on_where_the_shorter_one_ended(train, tmp_path: Path):
    assert train().code == 0
    ended = train("train.images=192")
    assert ended.code == 0
    assert ended.err.startswith("goes on at 128 of 192 images\n")
    judged = r"\njudging the checkpoint at 192 images by \d+ images\ncheckpoint at 192 images: swd "
    assert re.search(judged, ended.err)
    assert train("train.images=192", name="at-once").code == 0
    assert state(tmp_path / "run") == state(tmp_path / "at-once")


def test_a_damaged_last_checkpoint_is_made_again(train, tmp_path: Path):
    assert train().code == 0
    good = state(tmp_path / "run")
    weights = newest(tmp_path / "run") / checkpoint.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:100])
    ended = train()
    assert ended.code == 0
    assert f"passed over a damaged checkpoint: {weights}: has 100 bytes" in ended.err
    assert state(tmp_path / "run") == good


def test_divergence_keeps_the_last_good_checkpoint(train, tmp_path: Path):
    ended = train("train.lr=1e9 loss.r1=0 train.log_every=32 train.checkpoint_every=32")
    assert ended.code == 1
    [line] = [line for line in ended.err.splitlines() if line.startswith("error:")]
    last = newest(tmp_path / "run")
    assert f"the last good checkpoint is {last}; try a lower train.lr" in line
    checkpoint.verify(last)


def test_ctrl_c_saves_and_the_same_command_finishes(train, tiny, tmp_path: Path):
    length = "train.images=2560 train.checkpoint_every=640 train.log_every=64"
    assert train(length).code == 0
    line = [
        *(sys.executable, "-m", "jobs.train", "dcgan", *tiny["dcgan"], *length.split()),
        *("--workers", "0", "--storage", str(tmp_path), "--run", "stopped"),
    ]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=one_thread)
    with process:
        while not (tmp_path / "stopped/checkpoints/000000000640").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=60)
    assert process.returncode == 130, messages
    assert 640 <= int(newest(tmp_path / "stopped").name) < 2560
    assert train(length, name="stopped").code == 0
    assert state(tmp_path / "stopped") == state(tmp_path / "run")


def test_a_run_whose_data_changed_is_refused_unless_one_says_so(train, tmp_path: Path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(80):
        images.save(np.full((16, 16, 3), number, np.uint8), photos / f"{number:02d}.png")
    assert train(f"--data {photos}").code == 0
    last = state(tmp_path / "run")
    [before] = data_of(tmp_path / "run")
    images.save(np.zeros((16, 16, 3), np.uint8), photos / "0.png")

    longer = f"train.images=192 --data {photos}"
    refused = train(longer)
    assert refused.code == 2
    [line] = refused.err.splitlines()
    assert line.startswith("error: run 'run': the data changed since its checkpoint at 128 images ")
    assert f"(fingerprint {before[:12]}, now fingerprint " in line
    assert "--changed-data to go on regardless" in line
    assert state(tmp_path / "run") == last
    assert len(list((tmp_path / "run/tensorboard").iterdir())) == 1

    assert train(f"{longer} --changed-data").code == 0
    after, *earlier = data_of(tmp_path / "run")
    assert earlier == [{"fingerprint": before, "until": 128}]
    assert f"now fingerprint {after[:12]})" in line
    assert train(f"train.images=256 --data {photos}").code == 0  # these data from now on
    assert data_of(tmp_path / "run") == [after, *earlier]


def data_of(run: Path) -> list[Any]:
    """The fingerprint of the data of the newest checkpoint, and what went before it."""
    data = checkpoint.verify(newest(run)).lineage["data"]
    return [data["fingerprint"], *data.get("earlier", [])]


def newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("[0-9]*"))


def state(run: Path) -> dict[str, bytes]:
    """The newest checkpoint's name, and every tensor that training goes on from."""
    folder = newest(run)
    return {f"{folder.name}/{name}": (folder / name).read_bytes() for name in STATE}


def test_how_often_classes_are_drawn_may_change_with_the_data_and_not_else(tmp_path: Path):
    folder = RunFolder(str(tmp_path), "run")
    keys = ["model.conditional=true", "model.classes=[cat, dog]"]
    before, now = (
        recipes.named("flow").override([*keys, f"model.shares=[{share}, 3]"]) for share in (1, 2)
    )
    folder.start(before)
    for refused in (folder.start, folder.refuse_other):
        with pytest.raises(InputError, match=r"now model.shares=\(2.0, 3.0\).*--changed-data"):
            refused(now)
    folder.refuse_other(now, changed_data=True)
    folder.start(now, changed_data=True)
    assert recipes.from_json((tmp_path / "run/recipe.json").read_text()) == now
    with pytest.raises(InputError, match=r"started with train.lr=0.004, now train.lr=0.5; give"):
        folder.start(now.override(["train.lr=0.5"]), changed_data=True)
