"""`genimg models`: keep trained models as numbered versions, and say which one is in use."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.console import RegistryOption, run, say
from jobs.runs.registration import WithTrainingState, register_checkpoint
from jobs.versions import as_text, describe, figure, print_move, sentence
from jobs.wording import Verbs

if TYPE_CHECKING:
    from cluster.registry import Registry

app = Verbs(
    no_args_is_help=True,
    help="""Keep trained models as numbered versions, and say which one is in use.

    A reference reads NAME (the newest version), NAME@7 or NAME@ALIAS. The registry is a folder or
    S3 prefix (--registry, or GENIMG_REGISTRY) that any number of jobs may use at once.""",
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
Reference = Annotated[
    str, typer.Argument(metavar="REF", help="NAME (the newest version), NAME@ALIAS or NAME@7.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")]
Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="Name to use, as in production.")]


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One model only.")] = None,
    registry: RegistryOption = "registry",
    as_json: JsonOption = False,
) -> None:
    """List all versions, newest first, with their aliases and metrics.

    Example: genimg models list figures
    """
    from cluster.versions import Damaged, Unknown
    from genimg import bundled

    store = open_registry(registry)
    rows = []
    for model in [name] if name else store.names():
        aliases = store.aliases(model)
        for number in reversed(store.numbers(model)):
            try:
                version = store.get(model, number)
            except Unknown:  # removed meanwhile
                continue
            except Damaged as error:  # which must not hide the others
                say(f"left out: {error}")
                continue
            rows.append(describe(version, aliases.held_by(number)))
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    beneath = f"bundled with genimg: {', '.join(bundled.names())}"
    if not rows:
        typer.echo(f"there are no models in {store.storage} yet; see genimg models register --help")
        typer.echo(beneath)
        return
    table = Table()
    for heading in ("model", "version", "aliases", "created (UTC)", "metrics"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        metrics = ", ".join(f"{key} {figure(value)}" for key, value in row["metrics"].items())
        created = row["created"][:16].replace("T", " ")
        cells = (row["name"], str(row["version"]), ", ".join(row["aliases"]), created, metrics)
        table.add_row(*map(escape, cells))
    Console().print(table)
    typer.echo(beneath)


@app.command()
def show(
    reference: Reference,
    registry: RegistryOption = "registry",
    as_json: JsonOption = False,
) -> None:
    """Show one version: metrics, where it comes from, its files, and the history of its aliases.

    Example: genimg models show figures@production
    """
    from cluster.fallback import over
    from genimg import bundled
    from genimg.compact import CARD

    store = over(registry, bundled.FOLDER)
    version = store.resolve(reference)
    aliases = store.aliases(version.name)
    row = describe(version, aliases.held_by(version.number))
    row["lineage"] = version.lineage
    row["files"] = {name: vars(file) for name, file in version.files.items()}
    row["history"] = [
        vars(move) for move in aliases.history if version.number in (move.version, move.previous)
    ]
    if as_json:
        typer.echo(json.dumps(row, indent=2))
        return
    table = Table(title=escape(version.reference), show_header=False)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    table.add_row("created", row["created"])
    table.add_row("aliases", ", ".join(row["aliases"]) or "none")
    groups = {
        "metric": {name: figure(value) for name, value in row["metrics"].items()},
        "lineage": {name: as_text(value) for name, value in version.lineage.items()},
        "file": {
            name: f"{file.size:,} bytes, sha256 {file.sha256[:12]}…"
            for name, file in version.files.items()
        },
    }
    for kind, entries in groups.items():
        table.add_section()
        for name, text in entries.items():
            table.add_row(escape(f"{kind} {name}"), escape(text))
    table.add_section()
    for move in row["history"]:
        table.add_row(escape(move["at"]), escape(sentence(version.name, move)))
    Console().print(table)
    if CARD in version.files:
        typer.echo((store.fetch(version) / CARD).read_text())


@app.command()
def register(
    name: Name,
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Checkpoint folder of a run, here or s3://.")
    ],
    with_training_state: WithTrainingState = False,
    half: Annotated[
        bool, typer.Option("--half", help="Weights in float16, folded: half the bytes or fewer.")
    ] = False,
    card: Annotated[
        Path | None,
        typer.Option(help="A Markdown file: data, licence, figures, what it is not good at."),
    ] = None,
    registry: RegistryOption = "registry",
) -> None:
    """Copy what serving needs of a checkpoint into the registry, as the model's next version.

    The checkpoint is verified first; its metrics and lineage are kept with it, for gates and for
    the question where a model came from. The registry holds a copy: the run may be deleted, unless
    its training should go on.

    Example: genimg models register figures runs/first/checkpoints/000000100000
    """
    from genimg import checkpoint
    from genimg.errors import InputError
    from jobs.runs.addressed import fetch_checkpoint

    if with_training_state and (half or card):
        raise InputError(
            "--with-training-state: a training goes on from a checkpoint as it is; leave out"
            f" {'--half' if half else '--card'}"
        )
    try:
        text = None if card is None else card.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--card {card}: {reason}") from None
    if folder.startswith("s3://"):
        place = fetch_checkpoint(folder)
    else:
        place = Path(folder).expanduser()
        checkpoint.verify(place)
    version = register_checkpoint(
        name, place, registry, with_training_state=with_training_state, half=half, card=text
    )
    typer.echo(f"registered {version.reference}")


@app.command()
def promote(
    reference: Reference,
    alias: Alias,
    gate: Annotated[
        list[str] | None,
        typer.Option(help="A demand on the metrics, as in 'psnr>=28.5'; may be repeated."),
    ] = None,
    better: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC:min|max",
            help="Demand a better METRIC than the version in use has; min: less is better.",
        ),
    ] = None,
    registry: RegistryOption = "registry",
) -> None:
    """Let an alias name a version, if it passes every gate.

    Example: genimg models promote dcgan production --gate 'fid<=12' --better fid:min

    Of two promotions of an alias at the same instant one wins, and the other is told.
    """
    from cluster import promotion

    move = promotion.promote(
        open_registry(registry),
        reference,
        alias,
        gates=gate or [],
        better_than_holder=comparison(better),
    )
    print_move(reference.partition("@")[0], move)


@app.command()
def rollback(name: Name, alias: Alias, registry: RegistryOption = "registry") -> None:
    """Let an alias name what it named before its last promotion.

    Once more leads one promotion further back. Versions removed since are passed over.

    Example: genimg models rollback figures production
    """
    from cluster import promotion

    print_move(name, promotion.rollback(open_registry(registry), name, alias))


@app.command()
def rm(
    reference: Annotated[str, typer.Argument(metavar="REF", help="NAME@7; NAME alone is refused.")],
    force: Annotated[
        bool, typer.Option("--force", help="Also if an alias names it; the alias goes as well.")
    ] = False,
    registry: RegistryOption = "registry",
) -> None:
    """Delete a version for good. Refused while an alias names it. Numbers are never reused.

    Example: genimg models rm figures@3
    """
    open_registry(registry).remove(reference, force=force)
    typer.echo(f"removed {reference}")


@app.command()
def verify(
    reference: Annotated[
        str | None,
        typer.Argument(metavar="REF", help="NAME (all its versions) or NAME@7; default: all."),
    ] = None,
    registry: RegistryOption = "registry",
) -> None:
    """Read every file again and compare sizes and sha256 with what was registered.

    Names every file that is altered, missing or extra, and then exits with 1. Also names what
    registrations that died, or are under way, have left; `genimg models clean` clears it.

    Example: genimg models verify figures@3
    """
    store = open_registry(registry)
    references = [reference] if reference else store.names()
    found = [damage for each in references for damage in store.verify(each)]
    for damage in found:
        typer.echo(str(damage))
    if not reference or "@" not in reference:
        from cluster.leftovers import leftovers

        for left in leftovers(store.storage, reference):
            typer.echo(str(left))
    if found:
        raise typer.Exit(1)
    typer.echo(f"intact: {', '.join(references) or 'there are no models yet'}")


@app.command()
def clean(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One model only.")] = None,
    older_than: Annotated[
        float,
        typer.Option(min=0, metavar="HOURS", help="Leave alone what was written to since."),
    ] = 1.0,
    registry: RegistryOption = "registry",
) -> None:
    """Delete what registrations that died have left: files that belong to no version.

    One that is under way is told from them by its age alone: it writes every few seconds.

    Example: genimg models clean --older-than 24
    """
    from cluster.leftovers import HOUR, clear, leftovers

    storage = open_registry(registry).storage
    freed = 0
    for left in leftovers(storage, name):
        if left.age < older_than * HOUR:
            typer.echo(f"left alone, perhaps under way: {left}")
        elif clear(storage, left):
            freed += left.size
            typer.echo(f"removed {left}")
    typer.echo(f"freed {freed:,} bytes")


def open_registry(place: str) -> "Registry":
    from cluster.places import open_storage
    from cluster.registry import Registry

    return Registry(open_storage(place))


def comparison(text: str | None) -> Any:
    """(metric, 'min' | 'max') of `METRIC:min|max`."""
    from genimg.errors import InputError

    if text is None:
        return None
    metric, _, direction = text.rpartition(":")
    if not metric or direction not in ("min", "max"):
        raise InputError(f"--better {text!r}: give METRIC:min or METRIC:max, as in fid:min")
    return metric, direction


if __name__ == "__main__":
    run(app)
