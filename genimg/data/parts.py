"""A part of a source of files, as it travels to the process that reads it: nothing is listed again.

A file is found by its name in a folder, by its place in an archive. A compressed tar can only be
read forwards, so it is unpacked once a machine, beneath GENIMG_CACHE, where its places then are.
"""

from __future__ import annotations

import bz2
import fcntl
import gzip
import hashlib
import json
import lzma
import os
import shutil
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast
from uuid import uuid4

import numpy as np

from genimg import images
from genimg.data.archives import MAX_MEMBER_BYTES, PACKED_TAR_SUFFIXES, ZIP_SUFFIXES, Span
from genimg.data.buckets import read_object
from genimg.data.columns import decoded
from genimg.data.listing import Names, each_of
from genimg.data.remote import cache_home
from genimg.errors import InputError
from genimg.images import Channels

_LOCAL_HEADER = 30  # bytes of a zip's local file header, without name and extra field


@dataclass(frozen=True)
class Part:
    """Some images of a source, by column: names and places of files, or what notes tell.

    files:  {column: name of each image's file, or of its frames'}; `image` always
    spans:  {column: the place of each file in an archive}
    values: {column: what each image has}, as shards store it
    """

    files: dict[str, list[Names]]
    spans: dict[str, list[Span]]
    values: dict[str, list[Any]]

    def packed(self) -> bytes:
        """Names of files are alike, and shrink to a fifth or less."""
        return zlib.compress(json.dumps([self.files, self.spans, self.values]).encode(), 1)

    @classmethod
    def unpacked(cls, data: bytes) -> Part:
        return cls(*json.loads(zlib.decompress(data)))


class Files(ABC):
    """What sources of encoded files have in common; errors tell the names of files.

    files:  {column: name of each image's file, or of its frames'}
    values: {column: what each image has}, as shards store it
    """

    files: dict[str, list[Names]]
    values: dict[str, Sequence[Any] | np.ndarray]

    @property
    def names(self) -> list[str]:
        return cast("list[str]", self.files["image"])

    @property
    def labels(self) -> np.ndarray | None:
        labels = self.values.get("label")
        return None if labels is None else np.asarray(labels, np.int64)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int, column: str = "image", channels: Channels | None = None) -> Any:
        try:
            return decoded(column, self.encoded(index, column), channels)
        except images.BrokenImage as error:
            raise images.BrokenImage(error.reason, self._name(index, column)) from error

    def measure(self, index: int) -> tuple[int, int]:
        try:
            return images.size(self.encoded(index))
        except images.BrokenImage as error:
            raise images.BrokenImage(error.reason, self.names[index]) from error

    def encoded(self, index: int, column: str = "image") -> Any:
        if column not in self.files:
            return self.values[column][index]
        names = self.files[column][index]
        try:
            return self._bytes(names) if isinstance(names, str) else [*map(self._bytes, names)]
        except images.BrokenImage as error:
            raise images.BrokenImage(error.reason, self._name(index, column)) from error

    def _name(self, index: int, column: str) -> str:
        names = self.files[column][index] if column in self.files else self.names[index]
        return names if isinstance(names, str) else names[0]

    @abstractmethod
    def _bytes(self, name: str) -> bytes:
        """Those of a file. Raises BrokenImage where they cannot be had."""


class PartSource(Files):
    """The Source (see genimg.data.sources) of a part; its order is the part's."""

    nbytes = 0
    has_split = False

    def __init__(
        self, where: Path | str, part: Part, classes: Mapping[str, tuple[str, ...]]
    ) -> None:
        """where: the folder or archive, on this machine, or the address of files in S3."""
        self.files = part.files
        self.values: dict[str, Sequence[Any] | np.ndarray] = {**part.values}
        self.columns = (*part.files, *part.values)
        self.classes = classes
        self._spans = {
            name: span
            for column, files in part.files.items()
            for name, span in zip(each_of(files), part.spans[column], strict=True)
        }
        self._where = where
        self._file: IO[bytes] | None = None
        if isinstance(where, Path) and where.is_file():
            self._file = at_offsets(where).open("rb")
            self._zip = where.name.lower().endswith(ZIP_SUFFIXES)

    def _bytes(self, name: str) -> bytes:
        try:
            if isinstance(self._where, str):
                return read_object(self._where, name)
            if self._file is None:
                return (self._where / name).read_bytes()
            if self._zip:
                return read_zipped(self._file.fileno(), self._spans[name])
            offset, size = self._spans[name]
            return os.pread(self._file.fileno(), size, offset)
        except OSError as error:
            raise images.BrokenImage(error.strerror or str(error)) from error


def read_zipped(file: int, span: Span) -> bytes:
    """A member of a zip, by what its directory says of it; see genimg.data.archives.Zip.span.

    Raises BrokenImage where it cannot be unpacked.
    """
    offset, packed_size, size, checksum, method, flags = span
    if size > MAX_MEMBER_BYTES:
        raise images.BrokenImage(f"unpacks to {size:,} bytes")
    if flags & 1:
        raise images.BrokenImage("cannot be unpacked (a password is needed)")
    header = os.pread(file, _LOCAL_HEADER, offset)
    if header[:4] != b"PK\3\4":
        raise images.BrokenImage("cannot be unpacked (it is not where the directory says)")
    name, extra = struct.unpack("<HH", header[26:30])
    packed = os.pread(file, packed_size, offset + _LOCAL_HEADER + name + extra)
    try:
        match method:
            case zipfile.ZIP_STORED:
                data = packed
            case zipfile.ZIP_DEFLATED:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size + 1)
            case zipfile.ZIP_BZIP2:
                data = bz2.BZ2Decompressor().decompress(packed, size + 1)
            case _:
                raise images.BrokenImage(f"cannot be unpacked (method {method}); use deflate")
    except (zlib.error, OSError, ValueError, EOFError) as error:
        raise images.BrokenImage(f"cannot be unpacked ({error})") from error
    if len(data) != size or zlib.crc32(data) != checksum:
        raise images.BrokenImage("cannot be unpacked (its checksum is another)")
    return data


def at_offsets(archive: Path) -> Path:
    """An archive that can be read at offsets: itself, or a compressed tar's unpacked copy."""
    if not archive.name.lower().endswith(PACKED_TAR_SUFFIXES):
        return archive
    try:
        state = archive.stat()
        about = f"{archive.resolve()} {state.st_size} {state.st_mtime_ns}"
        folder = cache_home() / "unpacked"
        folder.mkdir(parents=True, exist_ok=True)
        copy = folder / f"{hashlib.sha256(about.encode()).hexdigest()[:16]}.tar"
        with copy.with_suffix(".lock").open("w") as lock:  # one process a machine
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not copy.exists():
                unpack(archive, copy)
        return copy
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{archive}: cannot be unpacked to {cache_home()} ({error})") from error


def unpack(archive: Path, copy: Path) -> None:
    """Write what a compressed tar unpacks to, whole or not at all."""
    name = archive.name.lower()
    openers: dict[str, Any] = {"gz": gzip.open, "xz": lzma.open, "z2": bz2.open}  # by the end
    part = copy.with_suffix(f".{uuid4().hex}.part")
    try:
        with openers[name[-2:]](archive) as packed, part.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
        part.replace(copy)
    finally:
        part.unlink(missing_ok=True)
