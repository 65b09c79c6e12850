"""Where objects live: named bytes with conditional writes, and folders that appear whole.

Jobs at once never lose one another's work because every change that depends on what was there
before says so: `create` only where there is nothing, `replace` only what was read.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class StorageError(Exception):
    """The store cannot do what was asked. Commands print it as one line and exit with 2."""


class NotFound(StorageError):
    """There is no such object."""


class AlreadyExists(StorageError):
    """Something is there that must not be replaced."""


class Refused(StorageError):
    """There is no such place, or no right to it; trying again would not help."""


class Changed(StorageError):
    """Somebody replaced or deleted the object after it was read."""


@dataclass(frozen=True)
class Entry:
    """An object, or what is there already of one that is being written."""

    key: str
    size: int  # bytes
    modified: float  # seconds since 1970


class Storage(Protocol):
    """Objects (bytes) under keys: names joined by '/', none of them empty or starting with '.'.

    A prefix is a key that objects lie beneath: `a/b` stands for `a/b/...`, never for `a/bc`. No
    key is also a prefix. All methods raise StorageError for keys that are not of this form.
    """

    def read(self, key: str) -> tuple[bytes, str]:
        """(content, etag). The etag changes with the content. Raises NotFound."""
        ...

    def exists(self, key: str) -> bool:
        """Whether there is an object under exactly this key."""
        ...

    def find(self, key: str) -> Entry | None:
        """What is under exactly this key, if there is anything."""
        ...

    def create(self, key: str, data: bytes) -> None:
        """Write an object that is not there yet (S3: If-None-Match: *). Raises AlreadyExists."""
        ...

    def replace(self, key: str, data: bytes, etag: str) -> None:
        """Write over what `read` gave (S3: If-Match). Raises Changed when it is that no more.

        Where a network lies between, that may also mean: written, but the answer got lost, and
        somebody wrote over it since.
        """
        ...

    def write(self, key: str, data: bytes) -> None:
        """Write an object, whatever was there."""
        ...

    def delete(self, prefix: str) -> None:
        """Delete the object of this key and all beneath; nothing there is no error."""
        ...

    def upload(self, folder: Path, prefix: str, without: Collection[str] = ()) -> None:
        """Publish a folder's files beneath a prefix, except hidden ones and those in `without`.

        A reader sees the whole folder or none of it. Where a store has no rename to do that with,
        it takes a marker that the caller creates last, as the registry does with version.json.
        Raises AlreadyExists if anything lies beneath the prefix.
        """
        ...

    def download(self, prefix: str, folder: Path) -> Path:
        """Copy all beneath a prefix into a new folder, which appears whole or not at all.

        Raises NotFound if nothing is there, AlreadyExists if the folder holds something.
        """
        ...

    def local_path(self, prefix: str) -> Path | None:
        """The folder where a prefix lies on this machine, to be read in place; None if remote."""
        ...

    def children(self, prefix: str) -> list[str]:
        """Sorted names directly beneath a prefix ('' for the root) that are or hold objects."""
        ...

    def list(self, prefix: str) -> list[str]:
        """Sorted keys beneath a prefix ('' for the root)."""
        ...

    def entries(self, prefix: str) -> Sequence[Entry]:
        """As `list`, with sizes and times."""
        ...

    def unfinished(self, prefix: str) -> Sequence[Entry]:
        """Writes to keys beneath a prefix that may have died: what no reader sees, but fills the
        store. Where it can be known that a writer lives, its work is not among them.
        """
        ...

    def discard(self, prefix: str) -> None:
        """Clear what `unfinished` names; a writer that is alive after all will fail."""
        ...


def check_key(key: str) -> None:
    """StorageError unless `key` can be a key or prefix."""
    for name in key.split("/"):
        if not name or name.startswith(".") or "\\" in name or not name.isprintable():
            raise StorageError(
                f"{key!r} is no key: give names joined by '/', none empty or starting with '.'"
            )
