"""The registry: checkpoints become numbered, immutable model versions.

Layout, the same in every storage (`.claim` files keep numbers from being given twice):

    models/NAME/versions/00007/...files, version.json     a version, from version.json on
    models/NAME/versions/00007.claim                      who took the number
    models/NAME/aliases.json                              see cluster.aliases, cluster.promotion
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cluster.aliases import Aliases, Promotion, author, now
from cluster.copies import cache_folder, copy_of
from cluster.moves import read_aliases, write_aliases
from cluster.storage import AlreadyExists, Changed, NotFound, Storage, StorageError
from cluster.versions import (
    MARKER,
    Damage,
    Damaged,
    RegistryError,
    Unknown,
    Version,
    check_name,
    decode,
    encode,
    fingerprint,
    inspect,
    numeric,
    parse_reference,
    refuse_damaged,
)


class Registry:
    """Model versions and aliases in a storage; any number of processes may use it at once."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def names(self) -> list[str]:
        """Sorted names of the models that have a version."""
        keys = (key.split("/") for key in self.storage.list("models"))  # fewer answers than names
        return sorted({key[1] for key in keys if _is_marker(key)})

    def numbers(self, name: str) -> list[int]:
        """Numbers of a model's versions, ascending. Raises Unknown."""
        check_name("model", name)
        numbers = self._committed(name)
        if not numbers:
            raise Unknown(f"there is no model {name!r} in {self.storage}", name, self.names())
        return numbers

    def get(self, name: str, number: int) -> Version:
        """One version. Raises Unknown, or Damaged if its version.json is altered."""
        return self.resolve(f"{name}@{number}")

    def resolve(self, reference: str) -> Version:
        """The version of `NAME` (the newest one), `NAME@ALIAS` or `NAME@7`."""
        return self._load(*self._locate(reference))

    def aliases(self, name: str) -> Aliases:
        """Which version each alias of a model names, and how that came to be. Raises Unknown."""
        check_name("model", name)
        aliases = read_aliases(self.storage, name)[0]
        if not aliases.holders:
            self.numbers(name)
        return aliases

    def register(
        self,
        name: str,
        folder: Path,
        metrics: Mapping[str, float],
        lineage: Mapping[str, Any],
        above: int = 0,
    ) -> Version:
        """Copy a checkpoint folder into the registry as the next version of a model.

        above: its number is higher than this one, besides

        A registration that fails leaves no version behind, only an unused number; one that is
        killed perhaps files as well, which cluster.leftovers finds and clears.
        """
        check_name("model", name)
        files = fingerprint(folder)
        if not files:
            raise RegistryError(f"{folder} is not a folder with files in it; give a checkpoint")
        draft = Version(name, 0, now(), numeric(metrics), dict(lineage), files)
        encode(draft)  # what cannot be written is refused before a number is taken
        number, claim = self._claim(name, above)
        version = replace(draft, number=number)
        try:
            self.storage.upload(folder, _prefix(name, number), without=[MARKER])
            self._refuse_cleared(version, claim)
            self.storage.create(_marker(name, number), encode(version))
            self._refuse_cleared(version, claim)  # who changes it from now on sees the marker
        except AlreadyExists:  # somebody else's, and not ours to clear
            raise
        except BaseException:
            with suppress(StorageError):
                self._clear(name, number)
            raise
        return version

    def fetch(self, version: Version, cache: Path | None = None) -> Path:
        """A local folder with a version's files, verified; in place where the storage is local.

        Otherwise it lies in `cache` (default: `models` in the cache folder), downloaded once.
        Raises Damaged naming every file that is not as it was registered.
        """
        verify = partial(refuse_damaged, version=version)
        prefix = _prefix(version.name, version.number)
        folder = self.storage.local_path(prefix)
        if folder is not None:
            verify(folder)
            return folder
        place = cache or cache_folder() / "models"
        folder = place / version.name / f"{version.number:05d}-{version.digest[:16]}"
        return copy_of(self.storage, prefix, folder, verify, Damaged)

    def read(self, version: Version, file: str) -> bytes:
        """One file of a version, without the others. Raises Damaged."""
        try:
            data, _ = self.storage.read(f"{_prefix(version.name, version.number)}/{file}")
        except NotFound:
            raise Damaged(f"{version.reference}: {file} is missing") from None
        known = version.files.get(file)
        if known is None or hashlib.sha256(data).hexdigest() != known.sha256:
            raise Damaged(f"{version.reference}: {file} is not as it was registered")
        return data

    def place_of(self, reference: str) -> str:
        """Of the storage that what a reference names is read from."""
        return str(self.storage)

    def address(self, version: Version) -> str:
        """Where a version's files are: of a folder, or s3://."""
        return f"{self.storage}/{_prefix(version.name, version.number)}"

    def remove(self, reference: str, force: bool = False) -> None:
        """Delete a version for good; its number is not given again.

        Refused while an alias names it, unless `force`, which drops those aliases. A plain NAME
        is refused: which version goes has to be said.
        """
        name, selector = parse_reference(reference)
        if selector is None:
            newest = self.numbers(name)[-1]
            raise RegistryError(f"{name!r}: say which version, as in {name}@{newest} (the newest)")
        number = self._locate(reference)[1]
        while True:
            aliases, etag = read_aliases(self.storage, name)
            held = aliases.held_by(number)
            if held and not force:
                names = " and ".join(f"{name}@{alias}" for alias in held)
                raise RegistryError(f"{name}@{number} is in use as {names}; promote another first")
            drops = [Promotion("drop", alias, None, number, author(), now()) for alias in held]
            after = Aliases((*aliases.history, *drops), aliases.removed | {number})
            with suppress(Changed, AlreadyExists):
                write_aliases(self.storage, name, after, etag)
                break
        self._clear(name, number)

    def verify(self, reference: str) -> list[Damage]:
        """All that is not as it was registered: in `NAME` (all versions and aliases) or `NAME@7`.

        Reads every byte and compares sizes and sha256. Also finds an altered version.json.
        """
        name, selector = parse_reference(reference)
        if selector is not None:
            return self._verify_version(*self._locate(reference))
        numbers = self.numbers(name)
        found = [damage for number in numbers for damage in self._verify_version(name, number)]
        try:
            holders = read_aliases(self.storage, name)[0].holders
        except Damaged:
            return [*found, Damage(name, "aliases.json", "is altered")]
        return found + [
            Damage(f"{name}@{alias}", "aliases.json", f"names version {number}, which is missing")
            for alias, number in holders.items()
            if number not in numbers
        ]

    def _verify_version(self, name: str, number: int) -> list[Damage]:
        try:
            version = self._load(name, number)
        except Damaged:
            return [Damage(f"{name}@{number}", MARKER, "is altered")]
        with self._on_this_machine(version) as folder:
            return inspect(folder, version)

    @contextmanager
    def _on_this_machine(self, version: Version) -> Iterator[Path]:
        """A version's folder as the storage holds it, without any cache in between."""
        prefix = _prefix(version.name, version.number)
        folder = self.storage.local_path(prefix)
        if folder is not None:
            yield folder
            return
        with tempfile.TemporaryDirectory() as place:
            yield self.storage.download(prefix, Path(place) / "version")

    def _committed(self, name: str) -> list[int]:
        keys = (key.split("/") for key in self.storage.list(f"models/{name}/versions"))
        return sorted(int(key[3]) for key in keys if _is_marker(key))

    def _load(self, name: str, number: int) -> Version:
        try:
            data, _ = self.storage.read(_marker(name, number))
        except NotFound:
            raise Unknown(f"{name} has no version {number} any more") from None
        return replace(decode(data, f"{name}@{number}"), place=str(self.storage))

    def _locate(self, reference: str) -> tuple[str, int]:
        """(name, number) of a reference; does not look into version.json."""
        name, selector = parse_reference(reference)
        numbers = self.numbers(name)
        if selector is None:
            return name, numbers[-1]
        if isinstance(selector, str):
            return name, read_aliases(self.storage, name)[0].holder(name, selector)
        if selector not in numbers:
            known = ", ".join(map(str, numbers))
            raise Unknown(f"{name} has no version {selector}; known: {known}")
        return name, selector

    def _refuse_cleared(self, version: Version, claim: bytes) -> None:
        """RegistryError where somebody took a registration under way for a dead one."""
        if self.storage.read(f"{_prefix(version.name, version.number)}.claim")[0] != claim:
            raise RegistryError(
                f"{version.reference} took so long that it was cleared away; register again"
            )

    def _clear(self, name: str, number: int) -> None:
        self.storage.delete(_marker(name, number))  # first, so that no reader sees half a version
        self.storage.delete(_prefix(name, number))
        self.storage.discard(_prefix(name, number))

    def _claim(self, name: str, above: int) -> tuple[int, bytes]:
        """The next number of a model, taken for good, and what says who took it."""
        entries = self.storage.children(f"models/{name}/versions")
        taken = [entry.removesuffix(".claim") for entry in entries]
        number = 1 + max([above, *(int(entry) for entry in taken if entry.isdecimal())])
        claim = json.dumps({"by": author(), "at": now()}).encode()
        while True:
            try:
                self.storage.create(f"{_prefix(name, number)}.claim", claim)
            except AlreadyExists:
                number += 1
            else:
                return number, claim


def _prefix(name: str, number: int) -> str:
    return f"models/{name}/versions/{number:05d}"


def _marker(name: str, number: int) -> str:
    return f"{_prefix(name, number)}/{MARKER}"


def _is_marker(key: Sequence[str]) -> bool:
    """Whether a key, of its names, says that a version exists."""
    return key[2:3] == ["versions"] and key[4:] == [MARKER] and key[3].isdecimal()
