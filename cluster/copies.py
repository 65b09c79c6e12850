"""Copies on this machine of what a storage has elsewhere: made once, verified at each use."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cluster.disk import LocalStorage
from cluster.storage import AlreadyExists, Storage


def cache_folder() -> Path:
    """Where copies are kept: GENIMG_CACHE, or ~/.cache/genimg."""
    return Path(os.environ.get("GENIMG_CACHE", "~/.cache/genimg")).expanduser()


def copy_of(
    storage: Storage,
    prefix: str,
    folder: Path,
    verify: Callable[[Path], object],
    spoilt: type[Exception],
) -> Path:
    """`folder` with a copy of all beneath a prefix: downloaded once, and anew where it is spoilt.

    verify: raises `spoilt` where a folder is not as it should be; so does this, of a new copy.
    Raises NotFound if nothing is there.
    """
    if folder.is_dir():
        try:
            verify(folder)
            return folder
        except spoilt:
            LocalStorage(folder.parent).delete(folder.name)
    with suppress(AlreadyExists):  # another process downloads it too
        storage.download(prefix, folder)
    verify(folder)
    return folder
