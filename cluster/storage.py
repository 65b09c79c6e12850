"""Where objects live: named bytes with conditional writes, and folders that appear whole.

Jobs at once never lose one another's work because every change that depends on what was there
before says so: `create` only where there is nothing, `replace` only what was read.
"""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
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


def cache_folder() -> Path:
    """Where copies of what lies elsewhere are kept: GENIMG_CACHE, or ~/.cache/genimg."""
    return Path(os.environ.get("GENIMG_CACHE", "~/.cache/genimg")).expanduser()


class LocalStorage:
    """Objects as files beneath a folder, safe for many processes (and NFS, where flock works).

    Work in progress lies in hidden siblings, under a lock that dies with its holder; so a killed
    process leaves nothing that a reader could see and nothing that keeps others waiting.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        if self.root.exists() and not self.root.is_dir():
            raise StorageError(f"{self.root} is a file; give a folder")

    def __str__(self) -> str:
        return str(self.root)

    def read(self, key: str) -> tuple[bytes, str]:
        path = self._path(key)
        with reported(path):
            try:
                data = path.read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise NotFound(f"there is no {key} in {self}") from None
        return data, hashlib.sha256(data).hexdigest()

    def exists(self, key: str) -> bool:
        path = self._path(key)
        with reported(path):
            return path.is_file()

    def create(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with reported(path), _locked(path):
            if path.exists():
                raise AlreadyExists(f"{key} exists in {self} already")
            _swap_in(path, data)

    def replace(self, key: str, data: bytes, etag: str) -> None:
        path = self._path(key)
        with reported(path), _locked(path):
            try:
                current = self.read(key)[1]
            except NotFound:
                raise Changed(f"{key} in {self} was deleted meanwhile") from None
            if current != etag:
                raise Changed(f"{key} in {self} was replaced meanwhile")
            _swap_in(path, data)

    def write(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with reported(path), _locked(path):
            _swap_in(path, data)

    def delete(self, prefix: str) -> None:
        path = self._path(prefix)
        if not path.parent.is_dir():
            return
        with reported(path), _locked(path):
            trash = _part(path)
            _clear(trash)
            with suppress(FileNotFoundError):
                path.rename(trash)  # all of it disappears at once
            _clear(trash)

    def upload(self, folder: Path, prefix: str, without: Collection[str] = ()) -> None:
        names = [name for name in files_beneath(folder) if name not in without]
        if not names:
            raise StorageError(f"{folder} is not a folder with files in it")
        target = self._path(prefix)
        with reported(target), staged(target) as staging:
            _copy(folder, names, staging)

    def download(self, prefix: str, folder: Path) -> Path:
        source = self._path(prefix)
        names = files_beneath(source)
        if not names:
            raise NotFound(f"there is nothing beneath {prefix} in {self}")
        with reported(folder), staged(folder) as staging:
            _copy(source, names, staging)
        return folder

    def local_path(self, prefix: str) -> Path | None:
        return self._path(prefix)

    def children(self, prefix: str) -> list[str]:
        folder = self._path(prefix) if prefix else self.root
        return sorted({name.partition("/")[0] for name in files_beneath(folder)})

    def list(self, prefix: str) -> list[str]:
        folder = self._path(prefix) if prefix else self.root
        return [f"{prefix}/{name}" if prefix else name for name in files_beneath(folder)]

    def _path(self, key: str) -> Path:
        check_key(key)
        return self.root / key


def check_key(key: str) -> None:
    """StorageError unless `key` can be a key or prefix."""
    for name in key.split("/"):
        if not name or name.startswith(".") or "\\" in name or not name.isprintable():
            raise StorageError(
                f"{key!r} is no key: give names joined by '/', none empty or starting with '.'"
            )


def files_beneath(folder: Path) -> list[str]:
    """Sorted names of a folder's files, relative to it; none if the folder is not there.

    Hidden files, and all in hidden folders, are left out.
    """

    def walk(path: str, prefix: str) -> Iterator[str]:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    yield from walk(entry.path, f"{prefix}{entry.name}/")
                else:
                    yield prefix + entry.name

    return sorted(walk(str(folder), ""))


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """An empty hidden sibling to fill, which becomes `folder` when the block ends well.

    Whoever is killed in between leaves a hidden sibling, cleared by the next to write beside it.
    Raises AlreadyExists if the folder holds something.
    """
    _sweep(folder.parent)
    with _locked(folder):
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise AlreadyExists(f"{folder} exists already")
        staging = _part(folder)
        _clear(staging)
        staging.mkdir()
        try:
            yield staging
            for path in [*staging.rglob("*"), staging]:
                _sync(path)
            staging.rename(folder)
        except BaseException:
            _clear(staging)
            raise
        _sync(folder.parent)


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turns what the system refuses (a full disk, missing rights) into a StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{error.filename or path}: {error.strerror or error}") from error


@contextmanager
def _locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Holds the lock of a path against all other threads and processes.

    The lock is a hidden sibling, deleted by its holder; who waited for a deleted one tries again.
    Raises BlockingIOError if it is taken and one should not wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.genimg-lock")
    while True:
        with lock.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_open_at(handle.fileno(), lock):
                try:
                    yield
                finally:
                    lock.unlink(missing_ok=True)
                return


def _is_open_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _part(path: Path) -> Path:
    """The hidden sibling for work in progress on a path; belongs to the holder of its lock."""
    return path.with_name(f".{path.name}.genimg-part")


def _swap_in(path: Path, data: bytes) -> None:
    """Replace a file at once and for good; the caller holds its lock."""
    part = _part(path)
    _clear(part)
    part.write_bytes(data)
    _sync(part)
    part.replace(path)
    _sync(path.parent)


def _copy(source: Path, names: list[str], target: Path) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def _sweep(folder: Path) -> None:
    """Clear what killed processes left in a folder: parts whose lock nobody holds.

    What may not be cleared (another user's) is no reason to stop.
    """
    for part in folder.glob(".*.genimg-part"):
        name = part.name.removeprefix(".").removesuffix(".genimg-part")
        with suppress(BlockingIOError, PermissionError), _locked(folder / name, wait=False):
            _clear(part)


def _clear(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Have the disk confirm a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
