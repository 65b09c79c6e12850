"""cluster/manifests/: fields that KubeRay and Kubernetes take as they are, checked one by one.

What only a Kubernetes cluster can tell (that pods start) is not tested here.
"""

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import typer
import yaml
from pydantic import ValidationError
from typer.core import TyperGroup

from genimg.errors import InputError
from jobs.cli import app
from jobs.server.ray_privates import FLAGS
from serving.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "cluster" / "manifests"
KINDS = ("RayCluster", "RayJob", "RayService")
SERVE = FLAGS | {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",  # which `genimg serve` tests for
    "RAY_SERVE_HAPROXY_BINARY_PATH": "/usr/local/bin/genimg-haproxy",  # where it writes a script
}
STOP = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "30"}
ENVIRONMENT = {
    "RayCluster": {**SERVE, **STOP, "GENIMG_REGISTRY": "s3://BUCKET/registry"},
    "RayJob": STOP,
    "RayService": SERVE,
}
CREDENTIAL = re.compile(r"(?i)secret|password|token|access_key|credential")


def manifest(kind: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{kind.lower()}.yaml").read_text())


def cluster_of(kind: str) -> dict[str, Any]:
    spec = manifest(kind)["spec"]
    return spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec


def groups(kind: str) -> dict[str, dict[str, Any]]:
    """The head and the worker groups by name."""
    spec = cluster_of(kind)
    return {"head": spec["headGroupSpec"]} | {g["groupName"]: g for g in spec["workerGroupSpecs"]}


def pod(group: dict[str, Any]) -> dict[str, Any]:
    return group["template"]["spec"]


def container(group: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod(group)["containers"]
    return only


GROUPS = [(kind, name) for kind in KINDS for name in groups(kind)]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_group = pytest.mark.parametrize(("kind", "name"), GROUPS)


def test_the_kinds_are_what_the_files_are_called_and_the_names_differ():
    """KubeRay calls the service of a head NAME-head-svc, whatever the kind."""
    assert [(manifest(kind)["apiVersion"], manifest(kind)["kind"]) for kind in KINDS] == [
        ("ray.io/v1", kind) for kind in KINDS
    ]
    assert len({manifest(kind)["metadata"]["name"] for kind in KINDS}) == len(KINDS)


@every_kind
def test_ray_is_the_version_that_runs_here_and_in_the_image(kind: str):
    assert cluster_of(kind)["rayVersion"] == ray.__version__
    images = {container(group)["image"] for group in groups(kind).values()}
    assert images == {container(groups("RayCluster")["head"])["image"]}
    assert re.fullmatch(rf"REGISTRY/genimg:[\w.]+-ray{re.escape(ray.__version__)}", *images)


@every_kind
def test_every_cluster_asks_for_the_token_scales_and_keeps_work_off_its_head(kind: str):
    assert cluster_of(kind)["authOptions"] == {"mode": "token"}
    assert cluster_of(kind)["enableInTreeAutoscaling"] is True
    assert groups(kind)["head"]["rayStartParams"] == {"num-cpus": "0"}  # strings only, in KubeRay


@every_kind
def test_gpus_are_on_spot_and_only_they(kind: str):
    for name, group in groups(kind).items():
        capacity = pod(group)["nodeSelector"]["eks.amazonaws.com/capacityType"]
        gpus = container(group)["resources"]["limits"].get("nvidia.com/gpu", "0")
        tolerated = [(t["key"], t["effect"]) for t in pod(group).get("tolerations", [])]
        if name == "gpu":
            assert (capacity, gpus) == ("SPOT", "1")
            assert tolerated == [("nvidia.com/gpu", "NoSchedule"), ("spot", "NoSchedule")]
        else:
            assert (capacity, gpus, tolerated) == ("ON_DEMAND", "0", [])
        if name != "head":
            assert 0 <= group["minReplicas"] < group["maxReplicas"]


@every_group
def test_limits_equal_requests_and_shared_memory_fits_in(kind: str, name: str):
    group = groups(kind)[name]
    limits = container(group)["resources"]["limits"]
    assert container(group)["resources"]["requests"] == limits
    assert limits.keys() >= {"cpu", "memory"}
    (mount,) = container(group)["volumeMounts"]
    (volume,) = pod(group)["volumes"]
    assert mount == {"name": volume["name"], "mountPath": "/dev/shm"}
    assert volume["emptyDir"]["medium"] == "Memory"
    sizes = volume["emptyDir"]["sizeLimit"], limits["memory"]
    shared, whole = (int(size.removesuffix("Gi")) for size in sizes)
    assert 0 < shared < whole / 2


@every_group
def test_pods_run_as_a_user_without_privileges(kind: str, name: str):
    group = groups(kind)[name]
    confined = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert container(group)["securityContext"] == confined
    assert cluster_of(kind)["autoscalerOptions"]["securityContext"] == confined
    user = pod(group)["securityContext"]
    assert user["runAsNonRoot"] is True
    assert user["runAsUser"] == 1000
    assert user["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod(group)["serviceAccountName"] == "genimg"
    if name != "head":  # only the autoscaler, on the head, speaks to Kubernetes
        assert pod(group)["automountServiceAccountToken"] is False


@every_group
def test_the_environment_holds_our_settings_and_no_credential(kind: str, name: str):
    only = container(groups(kind)[name])
    environment = {one["name"]: one["value"] for one in only["env"]}
    assert environment == {"RAY_USAGE_STATS_ENABLED": "0"} | ENVIRONMENT[kind]
    assert only["envFrom"] == [{"secretRef": {"name": "genimg-s3", "optional": True}}]


def literals(tree: Any, path: str = "") -> Iterator[str]:
    """Where a value is written out under a name that sounds like a credential."""
    if isinstance(tree, list):
        for number, one in enumerate(tree):
            yield from literals(one, f"{path}[{number}]")
    elif isinstance(tree, dict):
        if "value" in tree and CREDENTIAL.search(f"{path} {tree.get('name', '')}"):
            yield path
        for key, one in tree.items():
            yield from literals(one, f"{path}.{key}")


@every_kind
def test_secrets_are_named_never_written(kind: str):
    assert list(literals(manifest(kind))) == []
    assert not re.search(r"(AKIA|ASIA)[0-9A-Z]{16}", str(manifest(kind)))


@pytest.mark.parametrize(
    "leak",
    [
        {"env": [{"name": "AWS_SECRET_ACCESS_KEY", "value": "abc"}]},
        {"env": [{"name": "RAY_AUTH_TOKEN", "value": "abc"}]},
        {"redisPassword": {"value": "abc"}},
    ],
)
def test_a_secret_would_be_noticed(leak: dict[str, Any]):
    assert len(list(literals(manifest("RayCluster") | leak))) == 1


def test_a_job_tries_again_and_leaves_nothing_behind():
    spec = manifest("RayJob")["spec"]
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"] is True
    assert 0 < spec["ttlSecondsAfterFinished"] <= 3600


def parsed(command: str) -> dict[str, Any]:
    """What `python -m jobs.VERB ...` understands of a command."""
    python, minus_m, module, *rest = shlex.split(command)
    assert (python, minus_m) == ("python", "-m")
    assert importlib.util.find_spec(module)
    room, verb = module.split(".")
    assert room == "jobs"
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return group.commands[verb].make_context(verb, rest).params  # raises on what is not taken


def test_the_jobs_command_is_one_that_training_takes():
    from jobs.train import complete_recipe, worker_range

    spec = manifest("RayJob")["spec"]
    given = parsed(spec["entrypoint"])
    complete_recipe(given["recipe"], given["overrides"] or [], None)
    low, high = worker_range(given["workers"])
    assert 0 < low <= high <= groups("RayJob")["gpu"]["maxReplicas"]
    assert given["name"]  # the same in every retry, which therefore resumes
    assert given["gpu"] is True  # no GPU is there yet when the command starts
    assert given["autoscale"] is True
    for place in ("storage", "registry", "data"):
        assert given[place].startswith("s3://BUCKET/")


def test_a_command_that_training_does_not_take_is_refused():
    from jobs.train import complete_recipe

    entrypoint = manifest("RayJob")["spec"]["entrypoint"]
    with pytest.raises(Exception, match="No such option: --worker-count"):
        parsed(entrypoint + " --worker-count 4")
    with pytest.raises(InputError, match="dcgam"):
        complete_recipe("dcgam", [], None)


def test_a_service_outlives_its_head_and_its_upgrades():
    spec = manifest("RayService")["spec"]
    assert spec["upgradeStrategy"] == {"type": "NewCluster"}
    assert spec["excludeHeadPodFromServeSvc"] is True
    redis = spec["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert redis["redisAddress"]
    assert redis["redisPassword"]["valueFrom"]["secretKeyRef"].keys() == {"name", "key"}
    for name in ("cpu", "gpu"):
        group = groups("RayService")[name]
        assert group["minReplicas"] >= 1
        assert container(group)["ports"] == [{"name": "serve", "containerPort": 8000}]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # that Serve gives when imported
def test_serve_accepts_the_services_configuration_and_refuses_a_broken_one():
    from ray.serve.schema import ServeDeploySchema

    config = ServeDeploySchema.model_validate(serve_config())
    (application,) = config.applications
    assert (application.name, application.route_prefix) == ("genimg", "/")
    assert application.import_path == "serving.deployments:build"
    assert config.http_options.port == 8000
    with pytest.raises(ValidationError, match="proxy_location"):
        ServeDeploySchema.model_validate(serve_config() | {"proxy_location": "Everywhere"})


def test_our_settings_accept_the_services_arguments():
    (application,) = serve_config()["applications"]
    given = Settings.model_validate(application["args"])
    assert [model.ref for model in given.models] == ["figures@production", "denoiser@production"]
    own = given.models[1]
    assert own.num_gpus * own.autoscaling.max_replicas <= groups("RayService")["gpu"]["maxReplicas"]
    with pytest.raises(ValidationError):
        Settings.model_validate(application["args"] | {"modells": []})


def serve_config() -> dict[str, Any]:
    return yaml.safe_load(manifest("RayService")["spec"]["serveConfigV2"])


def test_the_image_holds_this_code_and_this_ray():
    text = (FOLDER / "Dockerfile").read_text()
    assert re.search(rf"^ARG RAY={re.escape(ray.__version__)}$", text, re.MULTILINE)
    assert re.search(r"^ENV GENIMG_COMMIT=\$\{GENIMG_COMMIT\}$", text, re.MULTILINE)
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE) == ["1000"]
    copied = {
        source
        for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE)
        for source in line.split()[:-1]
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert copied == {
        "pyproject.toml",
        project["project"]["readme"],
        *project["project"]["license-files"],
        *project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"],
    }
