"""The words of the command line: what is wrong names options as a person writes them, and help is
as wide as the terminal."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption
from typer.models import CommandFunctionType

from genimg.errors import InputError

# `key=value: `, or `key: `, with which a message begins; or key.0.part
_VALUE = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^:;]*"""
_ABOUT = re.compile(rf"(?P<key>\w+)(?:\.(?P<part>\d[\w.]*))?(?:=(?P<value>{_VALUE}))?[:;] ")

BARE = {"--discover": "*"}  # options that may be given without a value, and what is meant then


class Verb(TyperCommand):
    """A command whose InputErrors name its options, and whose paragraphs are not wrapped twice."""

    def __init__(self, *args: Any, help: str | None = None, **more: Any) -> None:
        super().__init__(*args, help=unwrapped(help or ""), **more)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ours = BARE.keys() & {flag for each in self.params for flag in each.opts}
        for place, flag in enumerate(args):
            if flag in ours and all(after.startswith("-") for after in args[place + 1 : place + 2]):
                args[place] = f"{flag}={BARE[flag]}"
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            options = [each for each in self.params if isinstance(each, TyperOption)]
            flags = {each.name: max(each.opts, key=len) for each in options}
            given = {name: ctx.params.get(name) for name in flags if name}
            raise InputError(worded(str(error), flags, given)) from None


class Verbs(typer.Typer):
    """An app whose commands are verbs."""

    def __init__(self, *, help: str = "", **more: Any) -> None:
        super().__init__(help=unwrapped(help), **more)

    def command(
        self, name: str | None = None, **more: Any
    ) -> Callable[[CommandFunctionType], CommandFunctionType]:
        return super().command(name, **({"cls": Verb} | more))


def worded(message: str, flags: dict[str, str], given: dict[str, Any]) -> str:
    """A message about a key, as one about the option that it is of, if it is.

    flags, given: options as they are written, and what was given, by their keys

    >>> worded("scale='7': at most 4", {"scale": "--scale"}, {"scale": "7"})
    "--scale '7': at most 4"
    >>> worded("of=None: give one, as of=7", {"of": "--of"}, {"of": None})
    '--of: give one, as --of 7'
    """
    if given.get("config"):  # of which all other keys are
        flags = {key: flag for key, flag in flags.items() if given.get(key)}
    if not flags:
        return message
    about = _ABOUT.match(message)
    head = ""
    if about and about["part"] and given.get(about["key"]):
        key, message = about["key"], f"{about['part']}{message[about.end('part') :]}"
        head = f"{flags[key]}: "
    elif about and about["key"] in flags and not about["part"]:
        key, message = about["key"], message[about.end() :]
        value = given.get(key)
        text = about["value"] if isinstance(value, list | tuple) else repr(value)
        said = value is not None and not isinstance(value, bool)
        head = f"{flags[key]} {text}: " if said else f"{flags[key]}: "
    keys = "|".join(map(re.escape, flags))
    return head + re.sub(rf"(?<![\w.])({keys})=(?=\w)", lambda key: f"{flags[key[1]]} ", message)


def unwrapped(text: str) -> str:
    """With each paragraph in one line."""
    return "\n\n".join(" ".join(each.split()) for each in text.split("\n\n"))
