"""`genimg models`: each verb on a registry of real (tiny) checkpoints."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from cluster.gates import GateFailed
from cluster.storage import StorageError
from cluster.versions import RegistryError
from genimg import checkpoint
from genimg.errors import InputError
from jobs.models import app

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `genimg models ...` with a registry of its own, in a wide terminal."""
    environment = {"GENIMG_REGISTRY": str(tmp_path / "registry"), "COLUMNS": "200"}

    def verb(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments, env=environment)

    return verb


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Write a checkpoint with these metrics."""

    def write(**metrics: float) -> Path:
        folder = tmp_path / "checkpoint"
        checkpoint.write(
            folder,
            recipe='{"recipe": "dcgan"}',
            weights={"w": torch.arange(4.0)},
            training={"m": torch.zeros(2)},
            progress={"images": 64},
            metrics=metrics,
            samples=b"",
            lineage={"run": "night", "data": {"fingerprint": "f00"}},
        )
        return folder

    return write


def printed(result: Result) -> str:
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


def refusal(result: Result, kind: type[Exception]) -> str:
    """The message of the error that the console will print."""
    assert isinstance(result.exception, kind), repr(result.exception)
    return str(result.exception)


def test_the_life_of_a_model(run: Run, make, tmp_path: Path):
    assert printed(run("register", "dcgan", str(make(fid=14.0)))) == "registered dcgan@1\n"
    assert printed(run("register", "dcgan", str(make(fid=11.0)))) == "registered dcgan@2\n"
    moved = printed(run("promote", "dcgan@1", "production"))
    assert moved.startswith("dcgan@production names version 1 (before: nothing), promote by ")
    gated = ("promote", "dcgan", "production", "--gate", "fid<=12", "--better", "fid:min")
    assert "names version 2 (before: version 1)" in printed(run(*gated))
    assert printed(run(*gated)) == "dcgan@production names version 2 already\n"
    moved = printed(run("rollback", "dcgan", "production"))
    assert "names version 1 (before: version 2), rollback by" in moved
    assert "in use as dcgan@production" in refusal(run("rm", "dcgan@1"), RegistryError)
    assert printed(run("rm", "dcgan@2")) == "removed dcgan@2\n"
    assert [row["version"] for row in json.loads(printed(run("list", "--json")))] == [1]


def test_list_and_show_say_the_same_in_json_and_in_tables(run: Run, make):
    run("register", "dcgan", str(make(fid=14.25, kid=math.nan)))
    run("register", "dcgan", str(make(fid=11.0)))
    run("register", "vae", str(make(psnr=28.5)))
    run("promote", "dcgan@1", "production")
    rows = json.loads(printed(run("list", "--json")), parse_constant=pytest.fail)
    assert [(row["name"], row["version"], row["aliases"], row["metrics"]) for row in rows] == [
        ("dcgan", 2, [], {"fid": 11.0}),
        ("dcgan", 1, ["production"], {"fid": 14.25, "kid": None}),
        ("vae", 1, [], {"psnr": 28.5}),
    ]
    assert json.loads(printed(run("list", "vae", "--json"))) == rows[2:]
    table = printed(run("list"))
    for word in ("dcgan", "production", "fid 14.25, kid not a number", "vae", "psnr 28.5"):
        assert word in table

    shown = json.loads(printed(run("show", "dcgan@production", "--json")))
    assert shown["lineage"] == {"run": "night", "data": {"fingerprint": "f00"}}
    assert shown["files"]["samples.png"]["size"] == 0
    assert [(move["alias"], move["version"]) for move in shown["history"]] == [("production", 1)]
    table = printed(run("show", "dcgan@production"))
    for word in ("dcgan@1", "metric fid", "14.25", "lineage run", "night", "manifest.json"):
        assert word in table


def test_what_a_name_contains_is_not_taken_for_markup(run: Run, make):
    run("register", "vae", str(make(**{"psnr[red]": 28.5})))
    assert "psnr[red] 28.5" in printed(run("list"))
    assert "psnr[red]" in printed(run("show", "vae"))


def test_verify_names_what_is_damaged_and_exits_with_1(run: Run, make, tmp_path: Path):
    assert printed(run("verify")) == "intact: there are no models yet\n"
    run("register", "dcgan", str(make(fid=14.0)))
    run("register", "vae", str(make(psnr=28.5)))
    assert printed(run("verify")) == "intact: dcgan, vae\n"
    weights = tmp_path / "registry/models/vae/versions/00001/weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    for reference in ([], ["vae"], ["vae@1"]):
        result = run("verify", *reference)
        assert result.exit_code == 1
        assert result.output.startswith("vae@1: weights.safetensors is altered: sha256 ")
        assert len(result.output.splitlines()) == 1
    assert printed(run("verify", "dcgan")) == "intact: dcgan\n"


def test_clean_removes_what_died_and_leaves_what_may_be_under_way(run: Run, make, tmp_path: Path):
    run("register", "dcgan", str(make(fid=14.0)))
    run("register", "dcgan", str(make(fid=13.0)))
    place = tmp_path / "registry/models/dcgan/versions"
    (place / "00002/version.json").unlink()  # as if killed before it was written
    seen = printed(run("verify"))
    assert seen.startswith("dcgan@2: ")
    assert "bytes of a registration that has not ended, last written to 0 s ago" in seen
    assert seen.endswith("intact: dcgan\n")
    young = printed(run("clean"))
    assert young.startswith("left alone, perhaps under way: dcgan@2: ")
    assert young.endswith("freed 0 bytes\n")
    assert (place / "00002").is_dir()
    assert "freed 0 bytes" in printed(run("clean", "vae", "--older-than", "0"))
    assert printed(run("clean", "--older-than", "0")).startswith("removed dcgan@2: ")
    assert not (place / "00002").exists()
    assert printed(run("verify")) == "intact: dcgan\n"
    assert printed(run("register", "dcgan", str(make(fid=13.0)))) == "registered dcgan@3\n"


def test_a_damaged_version_does_not_hide_the_others(run: Run, make, tmp_path: Path):
    for name in ("dcgan", "vae"):
        run("register", name, str(make(fid=14.0)))
    record = tmp_path / "registry/models/dcgan/versions/00001/version.json"
    record.write_bytes(record.read_bytes() + b" ")
    result = run("list", "--json")
    assert result.exit_code == 0
    assert [row["name"] for row in json.loads(result.stdout)] == ["vae"]
    assert "left out: dcgan@1: version.json is altered" in result.stderr


def test_list_of_nothing_says_how_to_begin(run: Run, tmp_path: Path):
    assert f"no models in {tmp_path / 'registry'} yet; see genimg models register" in printed(
        run("list")
    )
    assert json.loads(printed(run("list", "--json"))) == []


def test_register_refuses_a_broken_checkpoint(run: Run, make, tmp_path: Path):
    folder = make(fid=1.0)
    (folder / "weights.safetensors").write_bytes(b"")
    assert "weights.safetensors" in refusal(run("register", "dcgan", str(folder)), InputError)
    assert "nowhere" in refusal(run("register", "dcgan", str(tmp_path / "nowhere")), InputError)
    assert json.loads(printed(run("list", "--json"))) == []


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["promote", "dcgan", "best", "--gate", "fid<=12", "--gate", "psnr>1"], GateFailed,
         "fid<=12 (it is 14), psnr>1 (there is no psnr); its metrics: fid 14"),
        (["promote", "dcgan", "best", "--gate", "fid=12"], RegistryError, "as in 'fid<=12'"),
        (["promote", "dcgan", "best", "--better", "fid"], InputError, "METRIC:min or METRIC:max"),
        (["promote", "dcgan", "best", "--better", "fid:low"], InputError, "as in fid:min"),
        (["show", "dcgna"], RegistryError, "there is no model 'dcgna'"),
        (["list", "dcgna"], RegistryError, "there is no model 'dcgna'"),
        (["rollback", "dcgan", "best"], RegistryError, "no alias 'best'"),
        (["rm", "dcgan"], RegistryError, "say which version, as in dcgan@1"),
        (["list", "--registry", "s3://A"], StorageError, "give s3://BUCKET/PREFIX"),
    ],
)  # fmt: skip
def test_refusals(run: Run, make, arguments: list[str], kind: type[Exception], message: str):
    run("register", "dcgan", str(make(fid=14.0)))
    assert message in refusal(run(*arguments), kind)


def test_rm_force_takes_the_alias_along(run: Run, make):
    run("register", "dcgan", str(make(fid=14.0)))
    run("promote", "dcgan", "production")
    assert printed(run("rm", "dcgan@production", "--force")) == "removed dcgan@production\n"
    assert json.loads(printed(run("list", "--json"))) == []


def test_importing_the_verbs_loads_neither_torch_nor_ray():
    code = "import sys, jobs.models; print(sorted({'torch', 'ray'} & sys.modules.keys()))"
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=root, capture_output=True, text=True).stdout == "[]\n"
