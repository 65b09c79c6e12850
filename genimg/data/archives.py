"""Trees of image files and notes about them: a folder, a zip, a tar, all read the same way."""

import lzma
import os
import shlex
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from genimg.data.machine import Memory, this_machines
from genimg.errors import InputError
from genimg.images import READABLE_SUFFIXES, BrokenImage

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar",)
PACKED_TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")

CAPTIONS = "captions.jsonl"
CLASSES = "classes.txt"
ANNOTATIONS = "annotations"  # a folder of JSON files, or one such file beside the images
NOTES = (CAPTIONS, CLASSES, f"{ANNOTATIONS}.json")

MAX_MEMBER_BYTES = 256 << 20  # of one unpacked member; no image of bearable size needs more
MAX_UNPACKED_BYTES = 8 << 30  # of a compressed tar, which is kept in memory


Span = tuple[int, ...]  # where a file is in its archive; what is in it, depends on the kind


class Tree(Protocol):
    """Image files, and notes about them, by path; reads may be concurrent.

    paths, notes: relative, with slashes, unsorted; nothing hidden, nor any other kind of file
    nbytes:       of files that are in memory
    """

    paths: list[str]
    notes: list[str]
    nbytes: int

    def read(self, path: str) -> bytes:
        """The bytes of one file. Raises BrokenImage, without a name, where they cannot be had."""
        ...

    def span(self, path: str) -> Span:
        """Where genimg.data.parts finds it."""
        ...

    def state(self, path: str) -> Span:
        """What changes with its content: size and time, or checksum."""
        ...


def tree_path(name: str) -> str | None:
    """A path in normal form, or None where it is no visible image or note inside the tree.

    >>> tree_path("./cats/1.PNG"), tree_path("../1.png"), tree_path("cats/.1.png")
    ('cats/1.PNG', None, None)
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    outside_or_hidden = name.startswith("/") or any(part.startswith(".") for part in parts)
    path = "/".join(parts)
    wanted = name.lower().endswith(READABLE_SUFFIXES) or is_note(path)
    return path if wanted and not outside_or_hidden else None


def is_note(path: str) -> bool:
    """Whether a file tells of images: captions, annotations, names of classes.

    >>> is_note("set/captions.jsonl"), is_note("annotations/train.json"), is_note("1.json")
    (True, True, False)
    """
    folder, _, name = path.rpartition("/")
    in_annotations = folder.rpartition("/")[2] == ANNOTATIONS and name.endswith(".json")
    return name in NOTES or in_annotations


def divided(found: Iterable[str]) -> tuple[list[str], list[str]]:
    """(images, notes) of the paths in a tree."""
    paths: list[str] = []
    notes: list[str] = []
    for path in found:
        (notes if path.endswith((".json", ".jsonl", ".txt")) else paths).append(path)
    return paths, notes


class Folder:
    """Files below a folder, at any depth. Links are followed; no folder is read twice."""

    nbytes = 0

    def __init__(self, root: Path) -> None:
        self._root = root
        files_in: list[str] = []
        seen: set[Path] = set()
        for where, folders, files in os.walk(root, followlinks=True):
            here = Path(where)
            if here.resolve() in seen:  # a link that leads back up, or to a sibling
                folders.clear()
                continue
            seen.add(here.resolve())
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inner = here.relative_to(root).as_posix()
            found = (tree_path(f"{inner}/{name}") for name in files)
            files_in += [path for path in found if path]
        self.paths, self.notes = divided(files_in)

    def read(self, path: str) -> bytes:
        try:
            return (self._root / path).read_bytes()
        except OSError as error:
            raise BrokenImage(error.strerror or str(error)) from error

    def span(self, path: str) -> Span:
        return ()

    def state(self, path: str) -> Span:
        try:
            status = (self._root / path).stat()
        except OSError:  # it is broken, which comes to light when it is read
            return ()
        return status.st_size, status.st_mtime_ns


class Zip:
    """Files in a zip, unpacked as they are asked for."""

    nbytes = 0

    def __init__(self, file: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{file}: not a readable zip ({error})") from error
        members = [info for info in self._zip.infolist() if not info.is_dir()]
        self._members = {path: m for m in members if (path := tree_path(m.filename))}
        self.paths, self.notes = divided(self._members)

    def read(self, path: str) -> bytes:
        member = self._members[path]
        if member.file_size > MAX_MEMBER_BYTES:
            raise BrokenImage(f"unpacks to {member.file_size:,} bytes")
        try:
            return self._zip.read(member)
        except (
            zipfile.BadZipFile,
            zlib.error,
            lzma.LZMAError,
            OSError,
            EOFError,
            NotImplementedError,  # an unknown compression
            RuntimeError,  # a password is needed
        ) as error:
            raise BrokenImage(f"cannot be unpacked ({error})") from error

    def span(self, path: str) -> Span:
        """(offset of its header, packed size, size, CRC, method, flags)"""
        m = self._members[path]
        return m.header_offset, m.compress_size, m.file_size, m.CRC, m.compress_type, m.flag_bits

    def state(self, path: str) -> Span:
        member = self._members[path]
        return member.file_size, member.CRC


class Tar:
    """Files in an uncompressed tar: found once, then read at their offsets."""

    nbytes = 0

    def __init__(self, file: Path) -> None:
        self._spans: dict[str, tuple[int, int]] = {}
        self._times: dict[str, int] = {}
        try:
            with tarfile.open(file, "r:") as tar:
                for member in tar:
                    path = tree_path(member.name)
                    if path and member.isreg() and not member.issparse():
                        self._spans[path] = (member.offset_data, member.size)
                        self._times[path] = int(member.mtime)
                    tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all
            self._file = file.open("rb")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise InputError(f"{file}: not a readable tar ({error})") from error
        self.paths, self.notes = divided(self._spans)

    def read(self, path: str) -> bytes:
        offset, size = self._spans[path]
        try:
            return os.pread(self._file.fileno(), size, offset)  # moves no shared position
        except OSError as error:
            raise BrokenImage(error.strerror or str(error)) from error

    def span(self, path: str) -> Span:
        return self._spans[path]

    def state(self, path: str) -> Span:
        return *self._spans[path], self._times[path]


class PackedTar:
    """Files of a compressed tar, unpacked into memory: it can only be read forwards."""

    def __init__(self, file: Path, memory: Memory | None = None) -> None:
        """memory: this machine's, if not given; a third of what is available may be used."""
        self._files: dict[str, bytes] = {}
        memory = memory or this_machines()
        most = min(MAX_UNPACKED_BYTES, memory.available // 3 if memory else MAX_UNPACKED_BYTES)
        total = 0
        try:
            with tarfile.open(file, "r|*") as tar:
                for member in tar:
                    path = tree_path(member.name)
                    if not path or not member.isreg() or member.issparse():
                        continue
                    total += member.size
                    if total > most:
                        command = shlex.join(["genimg", "prepare", str(file), f"{file}-shards"])
                        raise InputError(
                            f"{file}: holds more than {most / 1e9:.3g} GB of images, too much to"
                            f" unpack into memory; stream them instead: {command}"
                        )
                    content = tar.extractfile(member)
                    assert content is not None  # it is a regular file
                    self._files[path] = content.read()
        except (tarfile.TarError, lzma.LZMAError, zlib.error, OSError, EOFError) as error:
            raise InputError(f"{file}: not a readable tar ({error})") from error
        self.paths, self.notes = divided(self._files)
        self.nbytes = sum(map(len, self._files.values()))

    def read(self, path: str) -> bytes:
        return self._files[path]

    def span(self, path: str) -> Span:
        raise AssertionError("it has no places; see genimg.data.parts.at_offsets")

    def state(self, path: str) -> Span:
        return (zlib.crc32(self._files[path]),)
