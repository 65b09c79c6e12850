"""Checkpoint folders: any change is noticed by name, a reader sees a whole one or none."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genimg import checkpoint
from genimg.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
NAMES = [
    "manifest.json", "metrics.json", "recipe.json", "samples.png", "training.json",
    "training.safetensors", "weights.safetensors",
]  # fmt: skip
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
WEIGHTS = {"net.a": torch.arange(6.0).reshape(2, 3), "net.steps": torch.tensor(7)}


def write(folder: Path, **parts) -> checkpoint.Manifest:
    defaults = {
        "recipe": '{"recipe": "dcgan"}\n',
        "weights": WEIGHTS,
        "training": {"net.a": torch.ones(2, 3), "optimizer.net.0.exp_avg": torch.zeros(2, 3)},
        "progress": {"seen": 64, "optimizers": {}},
        "metrics": {"psnr": 29.25},
        "samples": b"\x89PNG...",
        "lineage": {"run": "first", "workers": 2},
    }
    return checkpoint.write(folder, **(defaults | parts))


@pytest.fixture
def folder(tmp_path) -> Path:
    write(tmp_path / "000000064")
    return tmp_path / "000000064"


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        checkpoint.verify(folder)
    for word in words:
        assert word in str(caught.value)


def test_what_was_written_is_read_back(folder):
    manifest = checkpoint.verify(folder)
    assert manifest.lineage == {"run": "first", "workers": 2}
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    tensors = checkpoint.read_tensors(folder, checkpoint.WEIGHTS)
    assert tensors.keys() == WEIGHTS.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in WEIGHTS.items())
    assert tensors["net.steps"].dtype == torch.int64
    assert checkpoint.read_json(folder, checkpoint.PROGRESS)["seen"] == 64
    assert checkpoint.read_json(folder, checkpoint.METRICS) == {"psnr": 29.25}
    assert (folder / checkpoint.SAMPLES).read_bytes() == b"\x89PNG..."


def test_others_may_read_it(folder):
    assert folder.stat().st_mode & 0o055 == 0o055


def test_safetensors_alone_reads_the_weights_and_no_file_is_a_pickle(folder):
    with safetensors.safe_open(folder / "weights.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("net.a"), WEIGHTS["net.a"])
    for path in folder.iterdir():
        assert path.suffix in (".safetensors", ".json", ".png")
        if path.suffix == ".json":
            json.loads(path.read_text())


@SHARED
@given(data=st.data())
def test_any_altered_byte_of_any_file_is_noticed_by_the_files_name(folder, data):
    path = folder / data.draw(st.sampled_from(NAMES))
    original = path.read_bytes()
    position = data.draw(st.integers(0, len(original) - 1))
    flip = data.draw(st.integers(1, 255))
    altered = bytearray(original)
    altered[position] ^= flip
    path.write_bytes(altered)
    refused(folder, path.name)
    path.write_bytes(original)
    checkpoint.verify(folder)


@SHARED
@given(data=st.data())
def test_any_truncation_or_growth_of_any_file_is_noticed_by_the_files_name(folder, data):
    path = folder / data.draw(st.sampled_from(NAMES))
    original = path.read_bytes()
    size = data.draw(st.integers(0, len(original) + 20).filter(lambda n: n != len(original)))
    path.write_bytes((original + b" " * 20)[:size])
    refused(folder, path.name)
    path.write_bytes(original)


def test_line_ends_of_the_manifest_count_too(folder):
    path = folder / checkpoint.MANIFEST
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    refused(folder, "manifest.json: altered since it was written")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    refused(folder, name)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_in_a_files_place_is_named(folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()
    refused(folder, name)


@pytest.mark.parametrize("name", ["model.pt", "weights.safetensors.bak"])
def test_a_file_that_does_not_belong_is_named(folder, name):
    with (folder / name).open("wb") as file:
        torch.save({"a": 1}, file)
    refused(folder, f"{name}: not part of the checkpoint; remove it")


def test_a_stores_own_notes_are_no_part_of_it(folder):
    for name in (checkpoint.VERSION, ".genimg-lock"):
        (folder / name).write_text("{}")
    checkpoint.verify(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"format": 1}', "\xff", '{"format": 1, "files": 3}']
)
def test_a_manifest_of_something_else_is_refused(folder, text):
    (folder / checkpoint.MANIFEST).write_bytes(text.encode("latin-1"))
    refused(folder, "manifest.json")


def test_a_manifest_of_another_format_says_which(folder):
    path = folder / checkpoint.MANIFEST
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    refused(folder, "format 2; this genimg reads format 1")


def test_folders_that_are_no_checkpoints_are_refused(tmp_path):
    refused(tmp_path / "nowhere", "no such checkpoint folder")
    refused(tmp_path, "not a genimg checkpoint (it has no manifest.json)")


def test_a_rewritten_manifest_does_not_lead_out_of_the_folder(folder, tmp_path):
    (tmp_path / "secret").write_text("outside")
    manifest = checkpoint.read_manifest(folder)
    files = manifest.files | {"../secret": checkpoint.fingerprint(tmp_path / "secret")}
    forged = checkpoint.Manifest(1, files, manifest.lineage)
    (folder / checkpoint.MANIFEST).write_text(forged.text())
    refused(folder, "../secret: missing from the checkpoint")


def test_tensors_that_are_none_are_refused_by_name(folder):
    (folder / checkpoint.WEIGHTS).write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(InputError, match=r"weights\.safetensors: "):
        checkpoint.read_tensors(folder, checkpoint.WEIGHTS)
    with pytest.raises(InputError, match=r"other\.safetensors: "):
        checkpoint.read_tensors(folder, "other.safetensors")


def test_writing_again_replaces_all_of_it(folder):
    write(folder, metrics={"psnr": 31.0}, lineage={})
    assert checkpoint.verify(folder).lineage == {}
    assert checkpoint.read_json(folder, checkpoint.METRICS) == {"psnr": 31.0}
    assert list(folder.parent.iterdir()) == [folder]


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(folder):
    with pytest.raises(TypeError):
        write(folder, progress={"seen": object()})
    checkpoint.verify(folder)
    assert list(folder.parent.iterdir()) == [folder]


def test_the_same_content_has_the_same_manifest(tmp_path):
    assert write(tmp_path / "a").digest() == write(tmp_path / "b").digest()
    assert write(tmp_path / "c", metrics={}).digest() != write(tmp_path / "a").digest()


def test_a_killed_writer_leaves_a_whole_checkpoint_or_none(tmp_path):
    """A process rewrites a checkpoint for ever and is halted at many moments, at last for good."""
    folder = tmp_path / "place" / "000000001"
    script = Path(__file__).with_name("killed_writer.py")
    whole = 0
    with subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        try:
            assert writer.stdout is not None
            assert int(writer.stdout.readline()) == 1
            for _ in range(40):
                writer.send_signal(signal.SIGSTOP)
                os.waitpid(writer.pid, os.WUNTRACED)
                whole += is_whole(folder)  # what a kill at this moment would leave
                writer.send_signal(signal.SIGCONT)
                time.sleep(0.003)
        finally:
            writer.kill()
    whole += is_whole(folder)
    assert [path.name for path in folder.parent.iterdir() if path.name[0] != "."] in (
        [folder.name],
        [],
    )
    assert whole > 5


def is_whole(folder: Path) -> bool:
    """Whether there is a checkpoint; if so it verifies and both its tensors tell one turn."""
    if not folder.exists():
        return False
    checkpoint.verify(folder)
    turn = checkpoint.read_json(folder, checkpoint.PROGRESS)["turn"]
    for name in (checkpoint.WEIGHTS, checkpoint.TRAINING):
        assert (checkpoint.read_tensors(folder, name)["w"] == turn).all()
    return True


def test_what_inference_needs_is_a_checkpoint_of_its_own(folder, tmp_path):
    place = checkpoint.without_training_state(folder, tmp_path / "version")
    kept = [name for name in NAMES if not name.startswith("training")]
    assert sorted(path.name for path in place.iterdir()) == kept
    manifest = checkpoint.verify(place)
    assert manifest.lineage == checkpoint.verify(folder).lineage
    assert (place / "weights.safetensors").read_bytes() == (
        folder / "weights.safetensors"
    ).read_bytes()
    for read, name in (
        (checkpoint.read_json, checkpoint.PROGRESS),
        (checkpoint.read_tensors, checkpoint.TRAINING),
    ):
        with pytest.raises(InputError, match=r"has no training state .* --with-training-state"):
            read(place, name)
        read(folder, name)
