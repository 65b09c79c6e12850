"""What the options of `genimg serve` say, as its config file would."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.places import everywhere
from genimg import bundled
from genimg.errors import InputError
from jobs.server.config_file import ServeFile, parse, read_tree, with_precision, with_replicas

_SET_BY = {  # keys of settings, and options that set them
    r"models\.\d+\.ref": "model",
    r"discover\.\d+\.names": "discover",
    r"ingress\.replicas": "replicas",
    r"(models|discover)\.\d+\.precision": "precision",
}


def read_options(
    config: Path | None,
    models: list[str],
    port: int | None,
    host: str | None,
    registry: str | None,
    replicas: str | None,
    precision: str | None = None,
    keys: str | None = None,
    open: bool = False,
    log_format: str | None = None,
    discover: Sequence[str] = (),
) -> ServeFile:
    """The config file with what the options say instead. Raises InputError."""
    if port is not None and not 0 <= port < 2**16:
        raise InputError(f"--port {port}: there is none such; give one below {2**16}")
    if config and models:
        raise InputError(f"--model and --config {config} are both given; leave one of them out")
    if config and discover:
        raise InputError(f"--discover and --config {config} are both given; say it in the file")
    tree: dict[str, Any] = read_tree(config) if config else {"applications": [{}]}
    source = str(config or "options")
    file = parse(tree, source)

    args = dict(file.application.args)
    if models:
        args["models"] = [{"ref": reference} for reference in models]
    elif not (config or discover):  # each is loaded once it is asked for: the first image is sooner
        args["models"] = [{"ref": name, "resident": False} for name in bundled.names()]
    if discover:
        args["discover"] = [*discover]
    default = os.environ.get("GENIMG_REGISTRY", "registry")
    place = registry or args.get("registry") or default
    if isinstance(place, str):  # anything else is refused, with its reason, with the settings
        place = everywhere(place)  # replicas start in other folders
    args["registry"] = place
    told = args.get("jobs")
    if isinstance(told, dict) and isinstance(told.get("storage"), str):
        args["jobs"] = told | {"storage": everywhere(told["storage"])}
    if replicas:
        args["ingress"] = with_replicas(args.get("ingress"), replicas)
    if precision:
        for key in ("models", "discover"):
            if key in args:
                args[key] = with_precision(args[key], precision)
    keys = keys or args.get("keys_file") or os.environ.get("GENIMG_KEYS_FILE")
    if isinstance(keys, str):
        args["keys_file"] = everywhere(keys)
    if open:
        args["open"] = True
    if log_format:
        args["log_format"] = log_format
    if isinstance(log_file := args.get("log_file"), str):
        args["log_file"] = everywhere(log_file)
    http = file.http_options.model_dump()
    http |= {key: value for key, value in (("port", port), ("host", host)) if value is not None}
    application = file.application.model_dump() | {"args": args}
    return parse(tree | {"http_options": http, "applications": [application]}, source)


def as_option(message: str, given: Mapping[str, object]) -> str:
    """What is wrong with a setting, as a message about the option that has set it, if one has.

    given: options that may have been given, by their names
    """
    for key, option in _SET_BY.items():
        if given[option]:
            message = re.sub(f"^{key}(?==)", option, message)
    return message
