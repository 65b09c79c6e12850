"""Tensors written as a stream: the library's own bytes, hashed in the same pass, not copied."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from genimg import hashed_files

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
)
SHAPES = st.lists(st.integers(0, 5), max_size=4)
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds=st.dictionaries(
        NAMES.filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(DTYPES), SHAPES),
        max_size=6,
    )
)
def test_the_file_is_the_one_that_the_library_writes(tmp_path: Path, kinds):
    tensors = {
        name: (torch.randn(shape) * 50).to(dtype).contiguous()
        for name, (dtype, shape) in kinds.items()
    }
    written = hashed_files.write_tensors(tmp_path / "ours", tensors)
    save_file(tensors, tmp_path / "theirs")
    ours = (tmp_path / "ours").read_bytes()
    assert ours == (tmp_path / "theirs").read_bytes()
    assert written == {"size": len(ours), "sha256": hashlib.sha256(ours).hexdigest()}
    loaded = load_file(tmp_path / "ours")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_more_than_a_chunk_is_written_whole(tmp_path: Path):
    tensors = {"large": torch.arange(9_000_001, dtype=torch.int32), "small": torch.ones(3)}
    hashed_files.write_tensors(tmp_path / "ours", tensors)
    assert torch.equal(load_file(tmp_path / "ours")["large"], tensors["large"])


def test_bytes_are_hashed_as_they_are_written(tmp_path: Path):
    assert hashed_files.write(tmp_path / "a", b"abc") == {
        "size": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }
    assert (tmp_path / "a").read_bytes() == b"abc"


PEAK = """
import resource, sys, torch
from pathlib import Path
from genimg import hashed_files
tensors = {str(i): torch.ones(4_000_000) for i in range(8)}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
hashed_files.write_tensors(Path(sys.argv[1]), tensors)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_writing_takes_no_second_copy_of_the_tensors(tmp_path: Path):
    line = [sys.executable, "-c", PEAK, str(tmp_path / "file")]
    grown = subprocess.run(line, check=True, capture_output=True, text=True).stdout
    assert int(grown) < 40_000  # KiB; the tensors are 125,000


def test_tensors_laid_out_otherwise_are_not_written_as_something_else(tmp_path: Path):
    with pytest.raises(AssertionError, match="turned"):
        hashed_files.write_tensors(tmp_path / "file", {"turned": torch.ones(2, 3).T})
