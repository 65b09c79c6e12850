"""Which storage an address means: a folder of this machine, or a prefix of a bucket."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cluster.disk import LocalStorage
from cluster.storage import Storage, StorageError


def open_storage(url: str) -> Storage:
    """The storage at `s3://BUCKET/PREFIX` or at a local path; StorageError for anything else."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", url)
    if scheme and scheme[1].lower() == "s3":
        from cluster.s3 import S3Storage  # takes a while

        return S3Storage(url)
    if scheme:
        raise StorageError(f"{url!r}: {scheme[1]}:// is not supported; give a folder or s3://...")
    if re.match(r"s3:(/|$)", url):
        raise StorageError(f"{url!r}: give s3://BUCKET/PREFIX")
    if not url:
        raise StorageError("the storage has no place: give the path of a folder, or s3://...")
    return LocalStorage(Path(url))


def split(address: str) -> tuple[str, str]:
    """(the storage that it is in, its key there) of a file or folder, by its full address."""
    place, _, key = address.rstrip("/").rpartition("/")
    return place or "/", key


def settled(place: str) -> str:
    """As `everywhere`, but of a path without links and `..`: two that are equal are one place."""
    place = everywhere(place)
    return place if "://" in place or place.startswith("s3:") else os.path.realpath(place)


def everywhere(place: str) -> str:
    """A place by an address that means the same to processes which start in other folders.

    A path in full; anything else, and what is no place at all, as it is.
    """
    if not place or place.startswith("s3:") or "://" in place:
        return place
    return str(Path(place).expanduser().absolute())
