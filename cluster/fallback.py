"""A registry to be read, whose names fall back on those of another one."""

from pathlib import Path

from cluster.aliases import Aliases
from cluster.moves import read_aliases
from cluster.places import open_storage
from cluster.registry import Registry
from cluster.storage import Storage
from cluster.versions import Unknown, Version, check_name, parse_reference


class Fallback(Registry):
    """What a registry has no version of is looked for in the one beneath; its own come first.

    A number that it has not of a name is looked for beneath too: `register` with `above` leaves
    what is there its numbers.
    """

    def __init__(self, storage: Storage, beneath: Registry) -> None:
        super().__init__(storage)
        self.beneath = beneath

    def numbers(self, name: str) -> list[int]:
        home = self._home(name)
        try:
            return super().numbers(name) if home is self else home.numbers(name)
        except Unknown as error:
            known = sorted({*error.known, *self.beneath.names()})
            message = (
                f"there is no model {name!r} in {self.storage}, nor one that comes with genimg"
            )
            raise Unknown(message, error.given, known) from None

    def resolve(self, reference: str) -> Version:
        home = self._home(*parse_reference(reference))
        return super().resolve(reference) if home is self else home.resolve(reference)

    def aliases(self, name: str) -> Aliases:
        home = self._home(name)
        return super().aliases(name) if home is self else home.aliases(name)

    def fetch(self, version: Version, cache: Path | None = None) -> Path:
        beneath = version.place == str(self.beneath.storage)
        return self.beneath.fetch(version, cache) if beneath else super().fetch(version, cache)

    def read(self, version: Version, file: str) -> bytes:
        beneath = version.place == str(self.beneath.storage)
        return self.beneath.read(version, file) if beneath else super().read(version, file)

    def address(self, version: Version) -> str:
        beneath = version.place == str(self.beneath.storage)
        return self.beneath.address(version) if beneath else super().address(version)

    def place_of(self, reference: str) -> str:
        return str(self._home(*parse_reference(reference)).storage)

    def _home(self, name: str, selector: str | int | None = None) -> Registry:
        """Looks beneath first, which is on this machine."""
        check_name("model", name)
        there = self.beneath._committed(name)
        if not there:
            return self
        own = self._committed(name)
        if own and selector in there and selector not in own:
            removed = read_aliases(self.storage, name)[0].removed
            return self if selector in removed else self.beneath
        return self if own else self.beneath


def over(place: str, beneath: Path) -> Registry:
    """The registry at an address, over one in a folder of this machine."""
    return Fallback(open_storage(place), Registry(open_storage(str(beneath))))
