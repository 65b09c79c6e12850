"""Which version is in use: aliases promoted past gates, and rolled back."""

from __future__ import annotations

from collections.abc import Iterable
from types import EllipsisType

from cluster.aliases import Aliases, Promotion, author, now
from cluster.gates import Direction, Gate, require, require_better
from cluster.moves import Conflict, in_words, move_alias
from cluster.registry import Registry
from cluster.versions import RegistryError, Unknown, check_name


def promote(
    registry: Registry,
    reference: str,
    alias: str,
    gates: Iterable[str] = (),
    better_than_holder: tuple[str, Direction] | None = None,
    expect: int | EllipsisType | None = ...,
) -> Promotion:
    """Let an alias name a version, if every gate (`fid<=12`) lets it.

    better_than_holder: a metric in which the version must be strictly better than the one that
        the alias names now, and whether less ('min') or more ('max') is better
    expect: the version that the alias must name now (None: nothing); by default, whatever it
        names when this call begins

    Raises GateFailed, or Conflict if the alias moves while this goes on: of simultaneous
    promotions of one alias, one wins and the others are told. An alias that names the version
    already stays as it is, and its history too.
    """
    check_name("alias", alias)
    demands = [Gate.parse(gate) for gate in gates]
    version = registry.resolve(reference)
    require(version, demands)

    def move(aliases: Aliases) -> Promotion:
        holder = aliases.holders.get(alias)
        if expect is not ... and holder != expect:
            raise Conflict(
                f"{version.name}@{alias} names {in_words(holder)}, not {in_words(expect)}"
            )
        if version.number in aliases.removed:
            raise Unknown(f"{version.reference} was removed meanwhile")
        if better_than_holder:
            rival = None
            if holder is not None and holder != version.number:
                rival = registry.get(version.name, holder)
            require_better(version, rival, *better_than_holder)
        return Promotion("promote", alias, version.number, holder, author(), now())

    return move_alias(registry.storage, version.name, alias, move)


def rollback(registry: Registry, name: str, alias: str) -> Promotion:
    """Let an alias name what it named before its last promotion.

    Repeated, it leads further back, one promotion at a time; it never undoes a rollback (for
    that, promote again). Versions removed since are passed over. Raises RegistryError when there
    is nothing further back, Conflict if the alias moves while this goes on.
    """
    existing = registry.numbers(name)

    def move(aliases: Aliases) -> Promotion:
        holder = aliases.holder(name, alias)
        earlier = [
            number
            for number in aliases.stack(alias)[:-1]
            if number in existing and number not in aliases.removed and number != holder
        ]
        if not earlier:
            raise RegistryError(
                f"{name}@{alias} names version {holder}, and there is none to go back to"
            )
        return Promotion("rollback", alias, earlier[-1], holder, author(), now())

    return move_alias(registry.storage, name, alias, move)
