"""Data in S3: shards are streamed from there, every other form is copied to this machine once.

Credentials, region and endpoint come from the usual AWS variables, or from the machine's role.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath

import pyarrow as pa
from filelock import FileLock
from pyarrow import fs

from genimg.errors import InputError

SCHEME = "s3://"


def is_remote(path: str) -> bool:
    """Whether a path is an address; InputError for one of a kind that is not known."""
    if "://" in path and not path.startswith(SCHEME):
        raise InputError(f"{path}: give a local path or {SCHEME}BUCKET/PREFIX")
    return path.startswith(SCHEME)


def locate(path: str) -> tuple[fs.FileSystem, str]:
    """(filesystem, the path as it spells it) of a local path or an address."""
    if not is_remote(path):
        return fs.LocalFileSystem(), str(Path(path).expanduser().absolute())
    bucket = path.removeprefix(SCHEME).partition("/")[0]
    if not bucket:
        raise InputError(f"{path}: give {SCHEME}BUCKET/PREFIX")
    with reported(path):
        return _bucket(bucket), path.removeprefix(SCHEME).rstrip("/")


@lru_cache(maxsize=8)  # a connection each; it finds out the bucket's region
def _bucket(name: str) -> fs.FileSystem:
    return fs.FileSystem.from_uri(SCHEME + name)[0]


@contextmanager
def reported(path: str) -> Iterator[None]:
    """Turns what the store refuses into an InputError that names the path."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = str(error).split(" Detail:")[0]
        raise InputError(
            f"{path}: {reason}; check the address, the AWS variables and the rights"
        ) from error


def files_at(path: str) -> list[fs.FileInfo]:
    """The files beneath a path, or the file itself, sorted; none where nothing is there."""
    filesystem, where = locate(path)
    with reported(path):
        info = filesystem.get_file_info(where)
        if info.type == fs.FileType.File:
            return [info]
        selector = fs.FileSelector(where, recursive=True, allow_not_found=True)
        found = filesystem.get_file_info(selector)
    return sorted((f for f in found if f.type == fs.FileType.File), key=lambda f: f.path)


def cache_home() -> Path:
    """Where copies are kept on this machine."""
    return Path(os.environ.get("GENIMG_CACHE", "~/.cache/genimg")).expanduser()


def on_this_machine(path: str) -> Path:
    """A local path as it is; of an address a copy beneath GENIMG_CACHE (~/.cache/genimg).

    It is copied again only when names, sizes or times of its files change, and by one process of
    a machine, for which the others wait.
    """
    if not is_remote(path):
        return Path(path).expanduser()
    files = files_at(path)
    if not files:
        raise InputError(f"{path}: nothing is there")
    if any(".." in PurePosixPath(file.path).parts for file in files):
        raise InputError(f"{path}: holds a name with '..', which would lead elsewhere here")
    about = [path, *((file.path, file.size, file.mtime_ns) for file in files)]
    digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    filesystem, where = locate(path)
    home = cache_home()
    place = home / "data" / digest / where.rpartition("/")[2]
    if place.exists():
        return place
    part = place.parent.with_name(f".{digest}.part")
    target = part / place.name
    try:
        place.parent.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.parent.with_name(f".{digest}.lock")):  # its holder's end frees it
            if place.exists():  # another process copied it meanwhile
                return place
            shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
            single = [file.path for file in files] == [where]
            (part if single else target).mkdir(parents=True)
            try:
                with reported(path):
                    fs.copy_files(where, str(target), filesystem, fs.LocalFileSystem())
                part.rename(place.parent)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        remedy = "set GENIMG_CACHE to a folder that one can write to"
        raise InputError(f"{home}: {error.strerror}; {remedy}") from error
    return place
