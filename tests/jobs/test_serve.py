"""What `genimg serve` refuses: one line and exit code 2, before Ray starts."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from local_s3 import free_port

from genimg.recipes import RECIPES
from jobs.server.ray_privates import FLAGS

# Of Ray itself, at the first import of ray.serve.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.serve._private.config")

APPLICATION = {
    "name": "genimg",
    "import_path": "serving.deployments:build",
    "args": {"registry": "registry", "models": [{"ref": "dcgan@best"}]},
}


def config(**changes: object) -> dict[str, object]:
    return {"http_options": {"port": free_port()}, "applications": [APPLICATION]} | changes


def with_args(**changes: object) -> dict[str, object]:
    return config(applications=[APPLICATION | {"args": APPLICATION["args"] | changes}])


def with_application(**changes: object) -> dict[str, object]:
    return config(applications=[APPLICATION | changes])


@pytest.fixture
def place(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a registry, which is also the working directory."""
    from cluster.places import open_storage
    from cluster.promotion import promote
    from cluster.registry import Registry

    shutil.copytree(models / "registry", tmp_path / "registry")
    promote(Registry(open_storage(str(tmp_path / "registry"))), "dcgan", "best")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENIMG_REGISTRY", raising=False)
    return tmp_path


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that would start or join a cluster fails the test."""

    def connect() -> None:
        raise AssertionError("Ray was about to be started")

    monkeypatch.setattr("cluster.local.connect", connect)
    flags = FLAGS | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    for name, value in flags.items():  # so that what the command sets is taken back
        monkeypatch.setenv(name, value)


# (options, what the line must say)
OPTIONS = [
    ("--model dcgna", "there is no model 'dcgna'", "did you mean 'dcgan'?"),
    ("--model dcgan@bset", "dcgan has no alias 'bset'", "did you mean 'best'?"),
    ("--model dcgan@4", "dcgan has no version 4", "known: 1"),
    ("--model dcgan@", "--model 'dcgan@'", "NAME, NAME@ALIAS or NAME@7"),
    ("--discover *@7", "--discover '*@7': behind the @ give an alias", "gan-*@production"),
    ("--discover 'a b' --open", "--discover 'a b': give a NAME with * and ? in it"),
    ("--model dcgan --model dcgan", "dcgan is given twice", "leave one out"),
    ("--model dcgan --registry elsewhere", "there is no model 'dcgan' in", "elsewhere"),
    ("--model dcgan --registry s3://never-made", "there is no bucket 'never-made'"),
    ("--model dcgan --precision half", "--precision 'half'", "'float32' or 'bfloat16'"),
    ("--model dcgan --log-format xml", "--log-format 'xml'", "'json' or 'text'"),
    ("--model dcgan --replicas two", "--replicas 'two'", "MIN..MAX as in 1..4"),
    ("--model dcgan --replicas -1", "--replicas '-1'", "give a number"),
    ("--model dcgan --replicas 0", "--replicas '0'", "greater than or equal to 1"),
    ("--model dcgan --replicas 4..1", "min_replicas=4 is more than max_replicas=1"),
    (
        "--model dcgan --open --host 192.0.2.254",
        "192.0.2.254:8000: cannot listen there: Cannot assign",
        "--host",
    ),
    (
        "--model dcgan --open --host nowhere.invalid",
        "nowhere.invalid:8000: cannot listen there: Name or",
        "--host",
    ),
    (
        "--model dcgan --host 0.0.0.0",
        "--host 0.0.0.0: everybody who reaches it",
        "`genimg keys add NAME` and give --keys FILE, or say --open",
    ),
    ("--model dcgan --host ::", "--host ::: everybody who reaches it"),
    ("--config outside.yaml", "--host 0.0.0.0: everybody who reaches it"),
    ("--model dcgan --keys none.json", "none.json: there is no key in it", "genimg keys add NAME"),
    ("--model dcgan --keys good.yaml", "good.yaml: not keys"),
    ("--model dcgan --keys none.json --open", "keys_file (--keys) are both given", "leave one"),
    ("--config serve.yaml", "serve.yaml: cannot be read", "No such file"),
    ("--config registry", "registry: cannot be read", "Is a directory"),
    ("--config binary.yaml", "binary.yaml: cannot be read"),
    ("--config odd.yaml", "odd.yaml: not YAML", "line 1"),
    ("--config good.yaml --model dcgan", "both given", "leave one of them out"),
    ("--config good.yaml --discover", "--discover and --config", "say it in the file"),
    ("--config good.yaml --registry elsewhere", "there is no model 'dcgan' in", "elsewhere"),
]

# (content of the config file, what the line must say)
CONFIGS = [
    (["applications"], "serve.yaml: not a mapping of", "applications"),
    (None, "serve.yaml: not a mapping of", "applications"),
    (config(aplications=[]), "unknown key 'aplications'", "did you mean 'applications'?"),
    (config(http_options={"prot": 1}), "'http_options.prot'", "did you mean 'port'?"),
    (config(http_options=[8000]), "http_options=[8000]", "valid dictionary"),
    (config(http_options={"port": "many"}), "http_options.port='many'", "valid integer"),
    (config(http_options={"port": 70000}), "http_options.port=70000", "65535"),
    (config(http_options={"host": 1}), "http_options.host=1"),
    (config(applications=[]), "applications must be one: 0 are given"),
    (config(applications=[APPLICATION] * 2), "applications must be one: 2 are given"),
    (with_application(arg={}), "unknown key 'applications.0.arg'", "did you mean 'args'?"),
    (with_application(deployments=[]), "unknown key 'applications.0.deployments'", "known: args"),
    (with_application(args=[1]), "applications.0.args=[1]", "valid dictionary"),
    (with_application(name=""), "applications.0.name=''", "at least 1"),
    (with_application(route_prefix="api"), "applications.0.route_prefix='api'", "'^/'"),
    (with_application(import_path="serving.nothing:build"), "'serving.nothing:build'", "No mod"),
    (with_application(import_path="serving.app"), "import_path='serving.app'", "cannot be"),
    (with_application(import_path="os:getcwd"), "import_path='os:getcwd'", "not a function of"),
    (with_args(models=[]), "nothing is served", "give models, or discover"),
    (with_args(models="dcgan"), "models='dcgan'"),
    (with_args(modles=[]), "unknown key 'modles'", "did you mean 'models'?"),
    (with_args(models=[{"name": "dcgan"}]), "models.0.ref is missing"),
    (with_args(models=[{"ref": "dcgan", "max_batch": 3}]), "'models.0.max_batch'", "max_batch_"),
    (with_args(models=[{"ref": "dcgan", "num_gpus": 1}]), "no effect in the ingress", "'own'"),
    (with_args(limits={"timout_s": 3}), "unknown key 'limits.timout_s'", "'timeout_s'"),
    (with_args(limits={"timeout_s": 0}), "limits.timeout_s=0", "greater than 0"),
    (with_args(ingress={"replicas": "many"}), "ingress.replicas='many'", "valid integer"),
    (with_args(ingress={"replicas": 2, "autoscaling": {}}), "both given", "leave one of them out"),
    (with_args(registry=3), "registry=3", "valid string"),
    (with_args(models=[{"ref": "ffdnet@best"}]), "ffdnet has no alias 'best'"),
]  # fmt: skip


def only_line(outcome) -> str:
    assert outcome.code == 2, outcome
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: "), line
    assert outcome.out == ""
    return line


@pytest.mark.parametrize(("options", "parts"), [(line, parts) for line, *parts in OPTIONS])
def test_wrong_options_are_refused_in_one_line(s3, place, command, options, parts):
    (place / "good.yaml").write_text(yaml.safe_dump(config()))
    outside = config(http_options={"host": "0.0.0.0"})
    (place / "outside.yaml").write_text(yaml.safe_dump(outside))
    (place / "odd.yaml").write_text("a: [")
    (place / "binary.yaml").write_bytes(b"\xff\xfe\x80")
    line = only_line(command(f"serve {options}"))
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("content", "parts"),
    [(content, parts) for content, *parts in CONFIGS],
    ids=[parts[0] for _, *parts in CONFIGS],
)
def test_wrong_config_files_are_refused_in_one_line(place, command, content, parts):
    (place / "serve.yaml").write_text(yaml.safe_dump(content))
    line = only_line(command("serve --config serve.yaml"))
    for part in parts:
        assert part in line


@pytest.mark.parametrize("recipe", RECIPES)
def test_examples_are_of_what_a_recipes_models_can(recipe):
    from jobs.serve import examples

    can = RECIPES[recipe]().can()
    lines = examples("http://here:1", {"judge": (), "one": can, "two": can})
    assert len(lines) == 1
    assert "model=one" in lines[0]
    assert any(f"/{each}" in lines[0] for each in can)


def test_a_port_that_is_taken_is_refused(place, command):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = only_line(command(f"serve --model dcgan --port {port}"))
    assert f"127.0.0.1:{port}: cannot listen there: Address already in use;" in line


def test_keys_are_also_those_of_the_environment(place, command, monkeypatch):
    monkeypatch.setenv("GENIMG_KEYS", '{"keys": []}')
    line = only_line(command("serve --model dcgan --host 0.0.0.0"))
    assert "GENIMG_KEYS: there is no key in it" in line
    monkeypatch.setenv("GENIMG_KEYS", "{")
    assert "GENIMG_KEYS: not keys" in only_line(command("serve --model dcgan"))
    assert "GENIMG_KEYS are both given" in only_line(command("serve --model dcgan --open"))


def test_with_a_key_others_may_reach_it(place, command, monkeypatch):
    made = command("keys add alice")
    (text,) = made.lines
    assert text.startswith("genimg_")
    with pytest.raises(AssertionError, match="Ray was about to be started"):
        command(f"serve --model dcgan --host 0.0.0.0 --keys keys.json --port {free_port()}")
    monkeypatch.setenv("GENIMG_KEYS_FILE", str(place / "keys.json"))
    with pytest.raises(AssertionError, match="Ray was about to be started"):
        command(f"serve --model dcgan --host 0.0.0.0 --port {free_port()}")
    assert command("keys revoke alice").code == 0
    assert "there is no key in it" in only_line(command("serve --model dcgan --host 0.0.0.0"))


@pytest.fixture
def with_haproxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """There is one, wherever this is; what is set in the environment meanwhile is taken back."""
    monkeypatch.setattr("jobs.server.ray_privates.haproxy", lambda: "/usr/sbin/haproxy")
    before = dict(os.environ)
    os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_haproxy_listens_for_serve_which_stays_inside(with_haproxy):
    from jobs.server.ray_privates import inside, private_places

    assert inside("0.0.0.0") == "0.0.0.0"
    with private_places(60, "0.0.0.0"):
        assert os.environ["GENIMG_HOST"] == "0.0.0.0"
        assert inside("0.0.0.0") == "127.0.0.1"
        admin = Path(os.environ["RAY_SERVE_HAPROXY_SOCKET_PATH"])
        assert stat.S_IMODE(admin.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("host", [None, "127.0.0.1", "localhost"])
def test_where_serve_listens_itself_haproxy_is_told_nothing(with_haproxy, host):
    from jobs.server.ray_privates import inside, private_places

    with private_places(60, host):
        assert inside("here") == "here"


def test_there_are_ports_for_many_replicas_and_none_of_those_that_clients_are_given():
    from jobs.server.ray_privates import private_places

    for _ in range(20):
        with private_places(60):
            first, last = (
                int(os.environ[f"RAY_SERVE_DIRECT_INGRESS_{end}_HTTP_PORT"])
                for end in ("MIN", "MAX")
            )
        assert 20_000 < first < last - 500 < last <= 32_000


@pytest.mark.parametrize("path", [None, "/nowhere"])
def test_what_starts_there_does_without_pandas_and_what_starts_later_does_not(monkeypatch, path):
    from jobs.server.ray_privates import private_places, without_pandas

    monkeypatch.delenv("PYTHONPATH", raising=False)
    if path:
        monkeypatch.setenv("PYTHONPATH", path)

    def imported() -> bool:
        return not subprocess.run(
            [sys.executable, "-c", "import pandas"], stderr=subprocess.DEVNULL
        ).returncode

    with private_places(60, pandas=False):
        assert not imported()
        assert os.environ["PYTHONPATH"].split(os.pathsep)[1:] == ([path] if path else [])
    assert os.environ.get("PYTHONPATH") == path
    assert imported()
    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    with without_pandas(), pytest.raises(ImportError):
        import pandas  # noqa: F401
    assert "pandas" not in sys.modules


def test_haproxy_that_cannot_be_told_where_to_listen_is_refused(with_haproxy, monkeypatch):
    from genimg.errors import InputError
    from jobs.server import ray_privates

    monkeypatch.setattr("os.access", lambda path, mode: False)
    with (
        pytest.raises(InputError, match=r"noexec.*RAY_SERVE_ENABLE_HA_PROXY=0"),
        ray_privates.private_places(60, "0.0.0.0"),
    ):
        pass


def test_the_config_file_of_the_house_is_one_for_ray_serve_too():
    from ray.serve.schema import ServeDeploySchema

    from jobs.server.config_file import builder_of, parse, read_tree

    path = Path(__file__).parents[2] / "serving" / "config.yaml"
    content = yaml.safe_load(path.read_text())
    schema = ServeDeploySchema.model_validate(content)
    assert [each.name for each in schema.applications] == ["genimg"]
    assert schema.http_options.host == "127.0.0.1"
    file = parse(read_tree(path), str(path))
    _, kind = builder_of(file.application.import_path)
    settings = kind.validated(file.application.args)
    assert [(model.ref, model.placement) for model in settings.models] == [
        ("figures@production", "ingress"),
        ("denoiser@production", "own"),
    ]
    cpus, gpus = settings.least()
    assert cpus <= 2, "a laptop must be able to serve it"
    assert gpus == 0


def test_what_is_to_be_found_needs_no_name(place):
    from jobs.serve import references
    from jobs.server.options import read_options
    from serving.settings import Settings

    def settings(*models: str) -> Settings:
        file = read_options(None, [*models], None, None, None, None, "float32", discover=["*"])
        return Settings.validated(file.application.args)

    assert settings().models == ()
    assert {each.precision for each in settings().discover} == {"float32"}
    found = references(settings())
    assert {"dcgan", "ffdnet"} <= set(found)
    named = settings("denoise")
    assert references(named) == ["denoise", *found]
    assert {each.precision for each in named.models} == {"float32"}


@pytest.mark.parametrize("side", ["canary", "shadow"])
def test_a_version_beside_another_that_is_not_there_is_told_at_the_start(
    place, command, capsys, side
):
    beside = {"version": "next", "share": 0.5}
    content = with_args(models=[{"ref": "dcgan@best", side: beside}])
    (place / "serve.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(AssertionError, match="Ray was about to be started"):
        command("serve --config serve.yaml")
    told = capsys.readouterr().err
    assert f"dcgan@best is served without its {side} until that is there: dcgan has no" in told


def test_a_pattern_that_nothing_fits_is_told_at_the_start(place, command, capsys):
    with pytest.raises(AssertionError, match="Ray was about to be started"):
        command(f"serve --discover '*@production' --port {free_port()}")
    assert "fits *@production yet; see `genimg models list`" in capsys.readouterr().err
    with pytest.raises(AssertionError, match="Ray was about to be started"):
        command(f"serve --discover --registry regisrty --port {free_port()}")
    assert "regisrty, which is not there yet, fits *" in capsys.readouterr().err


def test_without_a_name_what_comes_with_genimg_is_loaded_once_it_is_asked_for(place):
    from genimg import bundled
    from jobs.server.options import read_options
    from serving.settings import Settings

    def resident(*models: str) -> dict[str, bool]:
        file = read_options(None, [*models], None, None, None, None)
        return {
            each.ref: each.resident for each in Settings.validated(file.application.args).models
        }

    assert resident() == dict.fromkeys(bundled.names(), False)
    assert resident("digits") == {"digits": True}


def test_the_storage_of_jobs_lies_where_the_command_was_started(place):
    from jobs.server.options import read_options

    (place / "serve.yaml").write_text(yaml.safe_dump(with_args(jobs={"storage": "mine"})))
    file = read_options(place / "serve.yaml", [], None, None, None, None)
    assert file.application.args["jobs"] == {"storage": str(place / "mine")}
