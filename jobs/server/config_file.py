"""What `genimg serve` is told: Ray Serve's config file, as far as it concerns one application."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from genimg.errors import InputError
from genimg.section import Section, problem
from jobs.console import parse_count


class Http(Section):
    host: str = Field("127.0.0.1", min_length=1)
    """address to listen on; 0.0.0.0 for all"""
    port: int = Field(8000, ge=1, le=65535)
    """port to listen on"""


class Application(Section):
    name: str = Field("genimg", min_length=1)
    """what Ray calls it"""
    route_prefix: str = Field("/", pattern=r"^/")
    """what all its paths begin with"""
    import_path: str = "serving.deployments:build"
    """module:function that makes the application of its args"""
    args: dict[str, Any] = Field(default_factory=dict)
    """the models and how they are served"""


class ServeFile(Section):
    """The keys that `genimg serve` takes; `serve deploy` takes more."""

    proxy_location: Literal["EveryNode", "HeadOnly"] = "EveryNode"
    """on which nodes there is somebody who takes requests"""
    http_options: Http = Http()
    """where to listen"""
    applications: tuple[Application, ...] = Field(min_length=1, max_length=1)
    """one, of which everything else is said"""

    @property
    def application(self) -> Application:
        return self.applications[0]

    @property
    def url(self) -> str:
        """Where this machine finds what is served."""
        host = self.http_options.host
        host = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
        prefix = self.application.route_prefix.rstrip("/")
        return f"http://{host}:{self.http_options.port}{prefix}"


def read_tree(path: Path) -> dict[str, Any]:
    """The tree of a config file. Raises InputError."""
    try:
        tree = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"{path}: cannot be read: {reason}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: not a mapping of {', '.join(ServeFile.model_fields)}")
    return tree


def parse(tree: dict[str, Any], source: str) -> ServeFile:
    """A checked config file, or InputError naming the first wrong key."""
    try:
        return ServeFile.model_validate(tree)
    except ValidationError as error:
        found = problem(error, ServeFile)
        if found.key == "applications" and isinstance(found.value, list | tuple):
            reason = f"{len(found.value)} are given; `serve deploy` takes any number"
            raise InputError(f"{source}: applications must be one: {reason}") from None
        raise InputError(f"{source}: {found}") from None


def with_replicas(ingress: object, text: str) -> dict[str, Any]:
    """The settings of the ingress with another number of replicas: '2', or '1..4'."""
    low, high = parse_count("--replicas", text, example="1..4")
    changed = dict(ingress) if isinstance(ingress, dict) else {}
    scaling = changed.pop("autoscaling", None)
    changed.pop("replicas", None)
    if high is None:
        return changed | {"replicas": low}
    scaling = dict(scaling) if isinstance(scaling, dict) else {}
    scaling |= {"min_replicas": low, "max_replicas": high}
    return changed | {"autoscaling": scaling}


def with_precision(models: object, precision: str) -> object:
    """The settings of all models, or of all that are to be found, with another precision."""
    if not isinstance(models, list):
        return models  # which is refused, with its reason, where settings are checked
    models = [{"names": each} if isinstance(each, str) else each for each in models]
    return [each | {"precision": precision} if isinstance(each, dict) else each for each in models]


def builder_of(import_path: str) -> tuple[Any, Any]:
    """(builder, its type of settings), by the name by which Ray Serve would import it."""
    module, _, name = import_path.partition(":")
    try:
        builder = getattr(importlib.import_module(module), name)
        parameters = list(inspect.signature(builder).parameters.values())
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"import_path={import_path!r}: cannot be imported: {error}") from None
    if len(parameters) != 1 or not hasattr(parameters[0].annotation, "validated"):
        raise InputError(f"import_path={import_path!r}: not a function of checked settings")
    return builder, parameters[0].annotation
