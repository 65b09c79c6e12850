"""What every verb shares: how it runs as a command, refuses bad input, and shows progress."""

import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from jobs.wording import Verbs

console = Console(stderr=True, highlight=False)

RegistryOption = Annotated[
    str,
    typer.Option(
        "--registry", envvar="GENIMG_REGISTRY", help="Folder or s3:// of the model registry."
    ),
]

PrecisionOption = Annotated[
    str,
    typer.Option(
        "--precision",
        help="float32 or bfloat16; auto takes bfloat16 where the hardware multiplies it natively.",
    ),
]


def run(command: Callable[..., Any] | typer.Typer) -> None:
    """Run a verb, or an app of verbs, as this process's command line.

    What a person got wrong is one line on stderr and exit code 2, without a traceback.
    """
    from cluster.storage import StorageError
    from cluster.versions import RegistryError, Unknown
    from genimg.errors import InputError, nearest

    if not isinstance(command, typer.Typer):
        app = Verbs(add_completion=False)
        app.command()(command)
        command = app
    try:
        command(standalone_mode=True)
    except (InputError, StorageError, RegistryError) as error:
        told = str(error)
        if isinstance(error, Unknown) and error.given:
            told += f"; {nearest(error.given, error.known)}"
        console.print(f"[bold red]error:[/] {escaped(told)}", soft_wrap=True)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def escaped(text: str) -> str:
    """In one line, for rich."""
    return " ".join(text.split()).replace("[", r"\[")


def say(text: str) -> None:
    """A line for the person at the terminal, on stderr: stdout is for results."""
    console.print(text, soft_wrap=True, markup=False)


def parse_count(option: str, text: str, example: str) -> tuple[int, int | None]:
    """'4' -> (4, None); '2..8' -> (2, 8). InputError, naming the option, for anything else."""
    from genimg.errors import InputError

    match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", text)
    if not match:
        raise InputError(f"{option} {text!r}: give a number, or MIN..MAX as in {example}")
    return int(match[1]), None if match[2] is None else int(match[2])


def refuse_blocked(folder: Path) -> None:
    """InputError where a folder to write to cannot be made, before anything is computed for it."""
    from genimg.errors import InputError

    if folder.parts[:1] == ("s3:",):
        raise InputError("-o: give a path on this machine; s3:// is none")
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise InputError(f"-o: {there} is not a folder that one can write to")


class Meter:
    """Progress in images: a bar on a terminal, else a line every few seconds (as in job logs)."""

    def __init__(self, title: str, total: int, seconds_between_lines: float = 5.0) -> None:
        self.title = title
        self.total = total
        self.interval = seconds_between_lines
        self.printed = 0.0
        self.told = -1  # how many were done at the last line
        self.began: tuple[float, int] | None = None  # when something was first told, and how many
        self.bar: Progress | None = None
        if console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:,}/{task.total:,}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[values]}"),
                console=console,
            )
            self.task = self.bar.add_task(title, total=total, values="")

    def __enter__(self) -> Self:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self.bar:
            self.bar.stop()

    def update(self, done: int, values: Mapping[str, float]) -> None:
        """Show that `done` are done, with what is known of them."""
        text = in_a_line(values)
        if self.bar:
            self.bar.update(self.task, completed=done, values=text)
            return
        now = time.monotonic()
        self.began = self.began or (now, done)
        due = now - self.printed > self.interval or done >= self.total
        if due and done != self.told:
            self.printed, self.told = now, done
            say(f"{self.title}  {done:,}/{self.total:,}  {text}{self.left(now, done)}")

    def left(self, now: float, done: int) -> str:
        """How long it will take to do the rest, once something is known of that."""
        assert self.began is not None, "something was told"
        since, first = self.began
        if not first < done < self.total:
            return ""
        return f"  {lasting((now - since) * (self.total - done) / (done - first))} left"


def lasting(seconds: float) -> str:
    """As a person says it.

    >>> lasting(4.2), lasting(150), lasting(7500)
    ('4 s', '2 min', '2 h 5 min')
    """
    minutes = int(seconds) // 60
    if minutes < 60:
        return f"{minutes} min" if minutes else f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min"


def in_a_line(values: Mapping[str, float], damaged: Mapping[str, float] | None = None) -> str:
    """Values by their names, where there are some beside those of damaged images."""
    beside = {name: f" (damaged {shown(value)})" for name, value in (damaged or {}).items()}
    return "  ".join(
        f"{name} {shown(value)}{beside.get(name, '')}" for name, value in values.items()
    )


def shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
