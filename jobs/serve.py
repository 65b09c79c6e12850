"""`genimg serve`: models of the registry behind HTTP, on Ray Serve."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.console import run, say
from jobs.interrupts import ctrl_c_ends, ctrl_c_waits

if TYPE_CHECKING:
    from jobs.server.config_file import ServeFile


def serve(
    config: Annotated[
        Path | None, typer.Option(help="Config file of Ray Serve, as serving/config.yaml.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME, NAME@ALIAS or NAME@7, instead of a file; may be repeated.  "
            "\\[default: the models that are bundled]"
        ),
    ] = None,
    discover: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[PATTERN]",
            help="Serve what fits of the registry, also what comes later; each is loaded once it "
            "is asked for. 'gan-*': newest versions, promoted or not; '*@production': those with "
            "that alias. May be repeated.  \\[without a pattern: all]",
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on.  \\[default: the file's, or 8000]")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="0.0.0.0: others too, with --keys.  \\[default: the file's, or 127.0.0.1]"
        ),
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(
            help="Folder or s3:// of the model registry.  "
            "\\[default: the file's, $GENIMG_REGISTRY, or registry]"
        ),
    ] = None,
    replicas: Annotated[
        str | None,
        typer.Option(
            help="Processes that take requests: N, or MIN..MAX to follow the load.  "
            "\\[default: the file's, or 1]"
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16, or auto: bfloat16 where the hardware multiplies it natively.  "
            "\\[default: the file's, or auto]"
        ),
    ] = None,
    keys: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Ask for the keys that `genimg keys` has put there; needed, unless --open, where "
            "others reach --host.  \\[default: the file's, or $GENIMG_KEYS_FILE]",
        ),
    ] = None,
    open: Annotated[
        bool, typer.Option("--open", help="Ask nobody for a key, whoever reaches --host.")
    ] = False,
    log_format: Annotated[
        str | None,
        typer.Option(
            help="json or text: a line for each request on stdout.  "
            "\\[default: the file's, or none]"
        ),
    ] = None,
) -> None:
    """Serve models over HTTP, in OpenAI's dialect and on plain routes, until Ctrl-C.

    A changed --config file is read again: limits, keys and models are had without a restart. A
    version that is promoted to a served alias takes over between two requests. On Ray's local
    cluster, or on that of RAY_ADDRESS, where nothing but the application ends with the command.

    SIGTERM stops it as Ctrl-C does. In the background of a script only SIGTERM does: a shell
    starts what it puts there with Ctrl-C's signal, SIGINT, ignored.

    Example: genimg serve --model figures@best --port 8000
    """
    with ctrl_c_ends():
        from genimg.errors import InputError
        from jobs.server.config_file import builder_of
        from jobs.server.options import as_option, read_options

        def read() -> ServeFile:
            return read_options(
                config, model or [], port, host, registry, replicas, precision, keys, open,
                log_format, discover or [],
            )  # fmt: skip

        file = read()

        from jobs.server import on_serve, ray_privates
        from jobs.server.guarding import refuse_unguarded
        from jobs.server.relay import relayed
        from jobs.server.reloading import Reloading

        there = bool(os.environ.get("RAY_ADDRESS"))
        ray_privates.set_flags(within=not there)
        ours = file.application.import_path.startswith("serving.")
        with nullcontext() if there or not ours else ray_privates.without_pandas():
            builder, kind = builder_of(file.application.import_path)

        given = {"model": model, "discover": discover, "replicas": replicas, "precision": precision}

        def checked(file: ServeFile) -> tuple[Any, bool, list[str]]:
            try:
                settings = kind.validated(file.application.args)
            except InputError as error:
                raise InputError(as_option(str(error), given)) from None
            guarded = refuse_unguarded(settings, file.http_options.host)
            served = references(settings)
            for line in absent(settings):
                say(line)
            return settings, guarded, served

        settings, guarded, served = checked(file)
        if not there:
            refuse_taken(file)

        from cluster.changes import published
        from cluster.local import connect

    began = time.monotonic()
    every = ", ".join(served) or "nothing yet"
    resident = ", ".join(each.ref for each in settings.models if each.resident)
    if not served:
        patterns = ", ".join(each.names for each in settings.discover)
        is_there = "://" in settings.registry or Path(settings.registry).is_dir()
        where = settings.registry if is_there else f"{settings.registry}, which is not there yet,"
        say(f"nothing in {where} fits {patterns} yet; see `genimg models list`")
    begins = f"loading {resident}" if resident else "starting"
    say(f"{begins}{'' if there else ', on a Ray that starts here'}")

    def ready(url: str) -> None:
        can = {ref: published(f"can {ref}") for ref in served}
        able = {ref: json.loads(said) for ref, said in can.items() if said}
        say(f"serving {every} at {url} after {time.monotonic() - began:.0f} s")
        for each in settings.discover:
            say(f"  and what else comes into {settings.registry} as {each.names}")
        say(f"  open {url}/ in a browser, or")
        for line in examples(url, able, guarded):
            say(f"  {line}")
        say("Ctrl-C stops it")

    outside = None if there else file.http_options.host
    with (
        ray_privates.private_places(settings.limits.upload_s, outside, there or not ours),
        ExitStack() as stack,
    ):
        with ctrl_c_waits():  # Ray leaves processes behind where its start is cut short
            stack.enter_context(connect())
        on_serve.refuse_infeasible(settings, file.http_options.host, may_grow=there)
        if there:
            refuse_unguarded(settings, ray_privates.host_there() or file.http_options.host)
        own: dict[str, str] = {"changes": f"serve {uuid.uuid4().hex}"} if config else {}
        if settings.log_format and not there:
            own["log_file"] = stack.enter_context(relayed())

        def with_own(settings: Any) -> Any:
            unsaid = {key: value for key, value in own.items() if getattr(settings, key) is None}
            return settings.model_copy(update=unsaid)

        settings = with_own(settings)
        looks: list[Callable[[], None]] = []
        if config:
            watched = Reloading(
                config, file, settings, lambda: ((new := read()), with_own(checked(new)[0]))
            )
            if there:  # what is said on a Ray of ours ends with it
                stack.callback(watched.close)
            looks.append(watched.look)
        on_serve.serve_until_stopped(builder(settings), file, ready, there, looks)


def references(settings: Any) -> list[str]:
    """What is served, as far as it is known before.

    RegistryError where one that is named is not in the registry, before a replica looks for it.
    """
    from cluster.fallback import over
    from genimg import bundled

    registry = over(settings.registry, bundled.FOLDER)
    for model in settings.models:
        registry.resolve(model.ref)
    return [model.ref for model in settings.expanded(registry)]


def absent(settings: Any) -> list[str]:
    """What is said of canaries and shadows that are not there."""
    from cluster.fallback import over
    from cluster.versions import RegistryError
    from genimg import bundled

    registry, told = over(settings.registry, bundled.FOLDER), []
    for model in settings.models:
        for side, beside in model.besides().items():
            try:
                registry.resolve(beside.ref)
            except RegistryError as error:
                told.append(
                    f"{model.ref} is served without its {side} until that is there: {error}"
                )
    return told


def refuse_taken(file: ServeFile) -> None:
    """InputError where the address cannot be listened on."""
    from genimg.errors import InputError
    from jobs.server.ports import refusal_at

    host, port = file.http_options.host, file.http_options.port
    if reason := refusal_at(host, port):
        raise InputError(f"{host}:{port}: cannot listen there: {reason}; see --port and --host")


def examples(url: str, models: Mapping[str, Sequence[str]], guarded: bool = False) -> list[str]:
    """A curl line for each thing that can be asked for there, of the first model that can.

    models: what each can, by its reference; guarded: a key is asked for.
    """
    curl = "curl"
    if guarded:
        curl += ' -H "Authorization: Bearer $GENIMG_API_KEY"'
    restored = ("restore", "deblock", "deblur", "enhance", "colourise", "upscale")
    restores = "curl -F image=@photo.png '{url}/v1/images/NAME?model={model}' -o better.png"
    lines = {
        "sample": "curl -X POST '{url}/v1/images/sample?n=16&model={model}' -o grid.png",
        "denoise": "curl -F image=@noisy.png '{url}/v1/images/denoise?model={model}' -o clean.png",
        **{name: restores.replace("NAME", name) for name in restored},
        "inpaint": "curl -F image=@photo.png -F mask=@mask.png"
        " '{url}/v1/images/inpaint?model={model}' -o filled.png",
        "classify": "curl -F image=@photo.png '{url}/v1/images/classify?model={model}'",
        "translate": "curl -F image=@day.png '{url}/v1/images/translate?model={model}' -o new.png",
        "stylise": "curl -F image=@photo.png -F style=@painting.png"
        " '{url}/v1/images/stylise?model={model}' -o new.png",
        "segment": "curl -F image=@photo.png '{url}/v1/images/segment?model={model}' -o seen.png",
        "detect": "curl -F image=@photo.png '{url}/v1/images/detect?model={model}'",
        "animate": "curl -F image=@clip.gif '{url}/v1/images/animate?model={model}' -o longer.webp",
    }
    first: dict[str, str] = {}
    for model, can in models.items():
        for each in lines.keys() & can:
            first.setdefault(each, model)
    told = [lines[each].format(url=url, model=model) for each, model in first.items()]
    return [line.replace("curl", curl, 1) for line in told]


if __name__ == "__main__":
    run(serve)
