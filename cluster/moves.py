"""How aliases move: their file in the storage, changed by many at once without losing a move."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from cluster.aliases import Aliases, Promotion
from cluster.storage import AlreadyExists, Changed, NotFound, Storage
from cluster.versions import RegistryError


class Conflict(RegistryError):
    """Somebody else moved the alias first."""


def move_alias(
    storage: Storage, name: str, alias: str, decide: Callable[[Aliases], Promotion]
) -> Promotion:
    """Add the move decided on to a model's history; decided anew when only other aliases moved."""
    moves: int | None = None
    tried: Aliases | None = None
    while True:
        aliases, etag = read_aliases(storage, name)
        if tried and aliases.history[: len(tried.history)] == tried.history:
            return tried.history[-1]  # written, but the answer got lost and others followed
        if moves is not None and aliases.moves(alias) != moves:
            last = [move for move in aliases.history if move.alias == alias][-1]
            raise Conflict(
                f"{last.by} moved {name}@{alias} meanwhile: it names {in_words(last.version)} now"
            )
        moves = aliases.moves(alias)
        move = decide(aliases)
        if move.version == move.previous:
            return move
        tried = replace(aliases, history=(*aliases.history, move))
        with suppress(Changed, AlreadyExists):
            write_aliases(storage, name, tried, etag)
            return move


def read_aliases(storage: Storage, name: str) -> tuple[Aliases, str | None]:
    """(aliases, etag); the etag is None where none were written yet."""
    try:
        data, etag = storage.read(f"models/{name}/aliases.json")
    except NotFound:
        return Aliases(), None
    return Aliases.decode(data, name), etag


def write_aliases(storage: Storage, name: str, aliases: Aliases, etag: str | None) -> None:
    """Raises Changed or AlreadyExists if they are not as they were read."""
    key = f"models/{name}/aliases.json"
    if etag is None:
        storage.create(key, aliases.encode())
    else:
        storage.replace(key, aliases.encode(), etag)


def in_words(number: int | None) -> str:
    return "nothing" if number is None else f"version {number}"
