"""OpenAI's client as it was, as it is, and as it is today, each in an environment of its own."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from live_server import file_of, pixels

CALLS = Path(__file__).with_name("openai_calls.py")
VERSIONS = ["==1.109.*", "==2.14.*", ">=3.54,<4"]  # of the last the newest that there is
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def python_with(requirement: str) -> str:
    """An interpreter that has the client; kept for the next run, and renewed where there is more.

    Skips the test, with pip's reason, where it cannot be had.
    """
    name = "".join(each if each.isalnum() else "_" for each in requirement)
    folder = Path(tempfile.gettempdir()) / f"genimg-openai{name}"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--upgrade"]
    done = subprocess.run([*pip, f"openai{requirement}"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"openai{requirement}: {done.stderr.strip().splitlines()[-1]}")
    return str(python)


@pytest.fixture(scope="module")
def said() -> dict[str, dict]:
    """What came of the calls, by version, as far as they have been made."""
    return {}


@pytest.mark.parametrize("requirement", VERSIONS)
def test_the_same_calls_give_the_same_in_each_version(requirement, server, tmp_path, said):
    (image := tmp_path / "image.png").write_bytes(file_of(pixels(40, 60, 3)))
    python = python_with(requirement)
    command = [python, str(CALLS), f"{server}/v1", "figures@production", "denoiser", str(image)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said[requirement] = made = json.loads(done.stdout)
    assert made["models"] == ["denoiser", "figures@production"]
    assert made["seeds"] == [7, 8]
    assert made["url"] == made["drawn"][0] == made["streamed"]
    assert made["asynchronous"] == made["drawn"]
    assert made["edited"] == made["bytes"] == made["tiled"]
    partial, completed = "image_generation.partial_image", "image_generation.completed"
    assert made["stream"] == [partial, partial, completed]
    assert made["unknown model"] == ["NotFoundError", 404, "model_not_found", "model"]
    assert made["prompt"] == ["BadRequestError", 400, "invalid_value", "prompt"]
    assert made["no image"] == ["APIStatusError", 415, "unsupported_image_media_type", "image"]
    assert made == next(iter(said.values()))
