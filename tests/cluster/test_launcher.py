"""cluster.yaml: what Ray's launcher accepts, and what it must not do: expose, leak, waste."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.command_runner import _with_environment_variables, _with_interactive
from ray.autoscaler._private.updater import LABELS_ENVIRONMENT_VARIABLE
from ray.autoscaler._private.util import prepare_config, validate_config, with_head_node_ip

from jobs.server.ray_privates import FLAGS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "cluster.yaml").read_text()


@pytest.fixture
def written() -> dict[str, Any]:
    return yaml.safe_load(TEXT)


@pytest.fixture
def config(written: dict[str, Any]) -> dict[str, Any]:
    """What the launcher makes of the file: with its own defaults where the file says nothing."""
    return prepare_config(written)


class Node:
    """A machine that runs the launcher's commands as over SSH, with a `ray` that only tells."""

    def __init__(self, home: Path) -> None:
        self.home = home
        tells = home / "venv" / "bin" / "ray"
        tells.parent.mkdir(parents=True)
        tells.write_text('#!/bin/sh\necho "called: $*"\nenv\n')
        tells.chmod(0o755)

    def run(self, command: str) -> tuple[list[str], dict[str, str]]:
        """The arguments of the last call of `ray` in the command, and its environment."""
        done = subprocess.run(
            ["bash", "-c", " ".join(_with_interactive(command))],
            env={"HOME": str(self.home), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
            start_new_session=True,
        )
        told = [line for line in done.stdout.splitlines() if "=" in line or "called:" in line]
        calls = [number for number, line in enumerate(told) if line.startswith("called: ")]
        if not calls:
            return [], {}
        environment = dict(line.split("=", 1) for line in told[calls[-1] + 1 :])
        return told[calls[-1]].removeprefix("called: ").split(), environment


def started(config: dict[str, Any], role: str, home: Path) -> tuple[list[str], dict[str, str]]:
    """How Ray is started on the head or on a worker that has been set up."""
    node = Node(home)
    for command in config[f"{role}_setup_commands"]:
        if "genimg.env" in command:
            node.run(command)
    start = with_head_node_ip(config[f"{role}_start_ray_commands"], "10.0.0.1")[-1]
    own = {"RAY_USAGE_STATS_ENABLED": 1, LABELS_ENVIRONMENT_VARIABLE: {}}
    return node.run(_with_environment_variables(start, own))


def test_rays_validator_accepts_the_file(config: dict[str, Any]):
    validate_config(config)


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        ({"max_worker": 3}, "Additional properties"),
        ({"idle_timeout_minutes": "ten"}, "is not of type 'number'"),
        ({"setup_commands": "pip install genimg"}, "is not of type 'array'"),
        ({"auth": {"ssh_proxy_use_node_id": True}}, "'ssh_proxy_command' is a required"),
    ],
)
def test_rays_validator_refuses_a_broken_copy(config, broken: dict[str, Any], complaint: str):
    with pytest.raises(jsonschema.ValidationError, match=complaint):
        validate_config(config | broken)


def test_rays_validator_refuses_a_head_type_that_is_not_there(config: dict[str, Any]):
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(config | {"head_node_type": "boss"})


def test_the_head_takes_no_work_and_is_not_on_spot(config: dict[str, Any]):
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert head["max_workers"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]
    assert not is_gpu(head)


def test_gpus_are_on_spot_and_only_they(config: dict[str, Any]):
    types = config["available_node_types"].values()
    spot = [t for t in types if "InstanceMarketOptions" in t["node_config"]]
    assert spot == [t for t in types if is_gpu(t)]
    assert spot
    for one in spot:
        assert one["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
        assert one["min_workers"] == 0 < one["max_workers"] <= config["max_workers"]
    assert config["provider"]["cache_stopped_nodes"] is False  # spot cannot be stopped
    assert 0 < config["idle_timeout_minutes"] <= 30


def is_gpu(node_type: dict[str, Any]) -> bool:
    return node_type["node_config"]["InstanceType"].startswith(("g", "p"))


def test_nodes_have_private_addresses_roles_and_a_security_group_of_ours(config: dict[str, Any]):
    """Without a group in the file, the launcher makes one with SSH open to every address."""
    assert config["provider"]["use_internal_ips"] is True
    assert "security_group" not in config["provider"]
    for one in config["available_node_types"].values():
        node = one["node_config"]
        assert node["SecurityGroupIds"]
        assert node["SubnetIds"]
        assert node["IamInstanceProfile"]["Name"].startswith("genimg-")
        assert node["MetadataOptions"]["HttpTokens"] == "required"
        assert "ImageId" in node  # the launcher's own default is from 2018


def test_the_dashboard_listens_on_the_head_alone(config: dict[str, Any], tmp_path: Path):
    called, _ = started(config, "head", tmp_path)
    assert called[:2] == ["start", "--head"]
    options = dict(option.split("=", 1) for option in called[2:])
    assert options == {
        "--port": "6379",
        "--object-manager-port": "8076",
        "--dashboard-host": "127.0.0.1",
        "--dashboard-port": "8265",
        "--autoscaling-config": "~/ray_bootstrap_config.yaml",
    }


def test_workers_find_the_head(config: dict[str, Any], tmp_path: Path):
    called, _ = started(config, "worker", tmp_path)
    assert called == ["start", "--address=10.0.0.1:6379", "--object-manager-port=8076"]


def test_the_launchers_own_start_command_would_expose_the_dashboard(written, tmp_path: Path):
    del written["head_start_ray_commands"]
    called, _ = started(prepare_config(written), "head", tmp_path)
    assert "--dashboard-host=0.0.0.0" in called


@pytest.mark.parametrize("role", ["head", "worker"])
def test_ray_starts_with_the_token_and_our_settings(role: str, config, tmp_path: Path):
    _, environment = started(config, role, tmp_path)
    wanted = {
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_JOB_STOP_SIGNAL": "SIGINT",
        "RAY_JOB_STOP_WAIT_TIME_S": "30",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": f"{tmp_path}/venv/bin/genimg-haproxy",
        **FLAGS,
        "AWS_REGION": config["provider"]["region"],
        "AWS_DEFAULT_REGION": config["provider"]["region"],
        "GENIMG_REGISTRY": "s3://BUCKET/registry",
    }
    assert {name: environment.get(name) for name in wanted} == wanted
    assert "OMP_NUM_THREADS" not in environment  # the launcher exports 1
    assert "RAY_AUTH_TOKEN" not in environment


def test_the_token_travels_as_a_file_to_where_ray_looks(config: dict[str, Any]):
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for role in ("head", "worker"):
        assert any(
            "chmod 600 ~/.ray/auth_token" in command for command in config[f"{role}_setup_commands"]
        )


def test_nodes_install_this_code_and_the_ray_that_runs_here(config: dict[str, Any]):
    for role in ("head", "worker"):
        installs = [c for c in config[f"{role}_setup_commands"] if "pip install" in c]
        assert len(installs) == 1
        assert re.findall(r"ray\[default\]==([\d.]+)", installs[0]) == [ray.__version__]
        assert installs[0].split()[-1] == "~/genimg"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {
        "pyproject.toml",
        project["project"]["readme"],
        *project["project"]["license-files"],
        *project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"],
    }
    carried = {here: there for there, here in config["file_mounts"].items() if "auth" not in here}
    assert carried == {name: f"~/genimg/{name}" for name in needed}
    assert all((ROOT / name).exists() for name in needed)


SECRET = re.compile(
    r"(AKIA|ASIA)[0-9A-Z]{16}"
    r"|(?i:secret|password|auth_token|access_key)\w*\s*[:=]\s*(?!~)\S+"
    r"|-----BEGIN"
)


def test_the_file_holds_no_secret():
    assert not SECRET.search(TEXT.replace("auth_token: ~", ""))
    assert "aws_credentials" not in TEXT


@pytest.mark.parametrize(
    "leak",
    [
        "key: AKIAABCDEFGHIJKLMNOP",
        "export AWS_SECRET_ACCESS_KEY=abc/def",
        "RAY_AUTH_TOKEN=5f3a",
        "aws_secret_access_key: abc",
        "-----BEGIN RSA PRIVATE KEY-----",
    ],
)
def test_a_secret_would_be_noticed(leak: str):
    assert SECRET.search(leak)


def test_placeholders_cannot_be_taken_for_real_names(config: dict[str, Any]):
    """An unedited file fails at its first call of AWS; S3 has no bucket with capitals."""
    for node in (one["node_config"] for one in config["available_node_types"].values()):
        assert node["ImageId"] == "ami-REPLACE"
        assert node["SubnetIds"] == ["subnet-REPLACE"]
        assert node["SecurityGroupIds"] == ["sg-REPLACE"]
    assert set(re.findall(r"s3://([^/\s]+)", TEXT)) == {"BUCKET"}
