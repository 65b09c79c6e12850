"""`genimg keys`: who may ask a server, and for what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.console import run, say
from jobs.wording import Verbs

app = Verbs(
    no_args_is_help=True,
    help="""Say who may ask a server, and for what.

    The file (--keys, or GENIMG_KEYS_FILE; here or in S3) has hashes, not the keys. Servers look at
    it every few seconds: a new key works, and a revoked one does not, without a restart.""",
)

FileOption = Annotated[
    str,
    typer.Option("--keys", envvar="GENIMG_KEYS_FILE", help="File with the keys, here or s3://."),
]
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Whose it is: the name in metrics, never secret.")
]


@app.command()
def add(
    name: Name,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A model that it may use, as it is served (NAME@ALIAS) or NAME; may be repeated.  "
            "\\[default: all]"
        ),
    ] = None,
    requests: Annotated[
        int | None, typer.Option(help="Requests for images a minute.  \\[default: any number]")
    ] = None,
    megapixels: Annotated[
        float | None,
        typer.Option(
            help="Megapixels a minute, given or made, whichever are more.  \\[default: any number]"
        ),
    ] = None,
    days: Annotated[
        float | None, typer.Option(min=0, help="Days until it expires.  \\[default: never]")
    ] = None,
    file: FileOption = "keys.json",
) -> None:
    """Make a key, and print it: once, for only its hash is kept.

    Example: genimg keys add alice --model figures --requests 60 --days 90
    """
    from cluster import keys
    from genimg.errors import InputError

    expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    try:
        key, text = keys.new(
            name,
            models=tuple(model or ()),
            requests_per_minute=requests,
            megapixels_per_minute=megapixels,
            expires=expires,
        )
    except keys.KeysError as error:
        raise InputError(str(error).replace("_per_minute: ", ": ")) from None
    keys.KeyFile(file).add(key)
    say(f"the key of {name}, which is kept nowhere; servers of --keys {file} take it in seconds:")
    typer.echo(text)


@app.command("list")
def list_(file: FileOption = "keys.json") -> None:
    """List all keys: what each may do, and the part of it that is no secret.

    Example: genimg keys list
    """
    from cluster import keys

    table = Table()
    for heading in (
        "name",
        "begins with",
        "models",
        "requests a minute",
        "megapixels a minute",
        "expires",
    ):
        table.add_column(heading, overflow="fold", no_wrap=heading == "begins with")
    for key in keys.KeyFile(file).read():
        expires = "never" if key.expires is None else f"{key.expires:%Y-%m-%d %H:%M} UTC"
        limits = (key.requests_per_minute, key.megapixels_per_minute)
        cells = (
            key.name,
            f"{keys.PREFIX}_{key.id}_",
            ", ".join(key.models) or "all",
            *("" if limit is None else f"{limit:g}" for limit in limits),
            f"{expires}, which is past" if key.expired else expires,
        )
        table.add_row(*map(escape, cells))
    Console().print(table)


@app.command()
def revoke(name: Name, file: FileOption = "keys.json") -> None:
    """Take a key back. Servers refuse it within seconds; what it has begun still ends.

    Example: genimg keys revoke alice
    """
    from cluster import keys

    keys.KeyFile(file).revoke(name)
    say(f"revoked {name}")


if __name__ == "__main__":
    run(app)
