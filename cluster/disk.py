"""Objects as files beneath a folder of this machine, or of one that it mounts."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from cluster.storage import (
    AlreadyExists,
    Changed,
    Entry,
    NotFound,
    StorageError,
    check_key,
)


class LocalStorage:
    """Objects as files beneath a folder, safe for many processes (and NFS, where flock works).

    Work in progress lies in hidden siblings, under locks that die with their holders; so a killed
    process leaves nothing that a reader could see and nothing that keeps others waiting. A file's
    sibling is its own lock: once it has its name, nothing of its making is left.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        if self.root.exists() and not self.root.is_dir():
            raise StorageError(f"{self.root} is a file; give a folder")

    def __str__(self) -> str:
        return str(self.root)

    def read(self, key: str) -> tuple[bytes, str]:
        path = self._path(key)
        with disk_errors(path):
            try:
                data = path.read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise NotFound(f"there is no {key} in {self}") from None
        return data, hashlib.sha256(data).hexdigest()

    def exists(self, key: str) -> bool:
        return self.find(key) is not None

    def find(self, key: str) -> Entry | None:
        path = self._path(key)
        with disk_errors(path), suppress(FileNotFoundError, NotADirectoryError):
            found = path.stat()
            if stat.S_ISREG(found.st_mode):
                return Entry(key, found.st_size, found.st_mtime)
        return None

    def create(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with disk_errors(path), _making(path) as part:
            if path.exists():
                raise AlreadyExists(f"{key} exists in {self} already")
            _swap_in(part, path, data)

    def replace(self, key: str, data: bytes, etag: str) -> None:
        path = self._path(key)
        with disk_errors(path), _making(path) as part:
            try:
                current = self.read(key)[1]
            except NotFound:
                raise Changed(f"{key} in {self} was deleted meanwhile") from None
            if current != etag:
                raise Changed(f"{key} in {self} was replaced meanwhile")
            _swap_in(part, path, data)

    def write(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with disk_errors(path), _making(path) as part:
            _swap_in(part, path, data)

    def delete(self, prefix: str) -> None:
        path = self._path(prefix)
        if not path.parent.is_dir():
            return
        if path.is_file():
            with disk_errors(path), _making(path):
                path.unlink(missing_ok=True)
            return
        with disk_errors(path), _lock(path):
            trash = _part(path)
            if not (path.is_dir() or trash.is_dir()):  # a part that is a file is a writer's
                return
            _clear(trash)
            with suppress(FileNotFoundError):
                path.rename(trash)  # all of it disappears at once
            _clear(trash)

    def upload(self, folder: Path, prefix: str, without: Collection[str] = ()) -> None:
        names = [name for name in files_beneath(folder) if name not in without]
        if not names:
            raise StorageError(f"{folder} is not a folder with files in it")
        target = self._path(prefix)
        with disk_errors(target), staging_for(target) as staging:
            _copy(folder, names, staging)

    def download(self, prefix: str, folder: Path) -> Path:
        source = self._path(prefix)
        names = files_beneath(source)
        if not names:
            raise NotFound(f"there is nothing beneath {prefix} in {self}")
        with disk_errors(folder), staging_for(folder) as staging:
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

    def entries(self, prefix: str) -> Sequence[Entry]:
        return list(_entries({key: self._path(key) for key in self.list(prefix)}))

    def unfinished(self, prefix: str) -> Sequence[Entry]:
        """(A writer holds the lock of its path while it lives.)"""
        parts = {
            path.relative_to(self.root).as_posix(): _part(path) for path in self._parts(prefix)
        }
        return list(_entries({key: part for key, part in parts.items() if not _is_locked(part)}))

    def discard(self, prefix: str) -> None:
        for path in self._parts(prefix):
            with disk_errors(path):
                _discard(path)

    def _parts(self, prefix: str) -> Sequence[Path]:
        """Paths at or beneath a prefix with work in progress, of the living and the dead."""
        place = self._path(prefix)
        parts = [*place.rglob(".*.genimg-part"), _part(place)]
        return [_whole(part) for part in sorted(parts) if part.exists()]

    def _path(self, key: str) -> Path:
        check_key(key)
        return self.root / key


@contextmanager
def staging_for(folder: Path) -> Iterator[Path]:
    """An empty hidden sibling to fill, which becomes `folder` when the block ends well.

    Whoever is killed in between leaves a hidden sibling, cleared by the next to write beside it.
    Raises AlreadyExists if the folder holds something.
    """
    _sweep(folder.parent)
    with _lock(folder):
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
def disk_errors(path: Path) -> Iterator[None]:
    """Turns what the system refuses (a full disk, missing rights) into a StorageError."""
    try:
        yield
    except OSError as error:
        place = error.filename2 or error.filename or path  # of a copy, where it should go
        raise StorageError(f"{place}: {error.strerror or error}") from error


def _lock(path: Path, wait: bool = True) -> AbstractContextManager[Path]:
    """Holds the lock of a folder against all other threads and processes; as `_held`."""
    return _held(path.with_name(f".{path.name}.genimg-lock"), wait)


def _making(path: Path, wait: bool = True) -> AbstractContextManager[Path]:
    """The part that is to become a file, held as its lock; as `_held`.

    What another wrote to it who was killed may be in it.
    """
    if _part(path).is_dir():
        _discard(path)
    return _held(_part(path), wait)


@contextmanager
def _held(lock: Path, wait: bool) -> Iterator[Path]:
    """A locked file, deleted in the end unless it was renamed.

    Who waited for one that has lost its name tries again. Raises BlockingIOError if it is taken
    and one should not wait.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with lock.open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_open_at(handle.fileno(), lock):
                continue
            try:
                yield lock
            finally:
                if _is_open_at(handle.fileno(), lock):  # else the name may be another's by now
                    lock.unlink()
            return


def _is_locked(part: Path) -> bool:
    """Whether somebody works on a part; also where one may not look."""
    lock = part.with_name(f".{_whole(part).name}.genimg-lock") if part.is_dir() else part
    try:
        with lock.open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except (BlockingIOError, PermissionError):
        return True
    return False


def _discard(path: Path) -> None:
    """Clear the part of a path, unless somebody works on it."""
    with suppress(BlockingIOError):
        if _part(path).is_dir():
            with _lock(path, wait=False):
                _clear(_part(path))
        else:
            with _making(path, wait=False):
                pass


def _entries(paths: Mapping[str, Path]) -> Iterator[Entry]:
    """Those of paths by their keys, without what was deleted or renamed meanwhile."""
    for key, path in paths.items():
        with suppress(FileNotFoundError):
            yield Entry(key, *_extent(path))


def _extent(path: Path) -> tuple[int, float]:
    """(bytes, time of the last change) of a file or folder, hidden files included."""
    found = [each.stat() for each in (path, *path.rglob("*"))]
    return sum(s.st_size for s in found if stat.S_ISREG(s.st_mode)), max(s.st_mtime for s in found)


def _is_open_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _part(path: Path) -> Path:
    """The hidden sibling for work in progress on a path; belongs to the holder of its lock."""
    return path.with_name(f".{path.name}.genimg-part")


def _whole(part: Path) -> Path:
    """The path that a part is to become."""
    return part.with_name(part.name.removeprefix(".").removesuffix(".genimg-part"))


def _swap_in(part: Path, path: Path, data: bytes) -> None:
    """Replace a file at once and for good, by way of its part, which the caller holds."""
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
        with suppress(PermissionError):
            _discard(_whole(part))


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
