"""Parquet shards on disk: how those of a set are found, checked and read.

A shard is a Parquet file with the column `image` (an encoded image), `name`, and any others of
genimg.data.columns, as `label` (integer). Its metadata holds, as JSON under `genimg`, the version
of this format and the names of the classes, and under `genimg.broken` what was left out as
unreadable. Other programs' Parquet files with these columns are read as well.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from genimg.data.arrays import Split
from genimg.data.columns import COLUMNS, decoded
from genimg.data.listing import SPLITS
from genimg.errors import InputError
from genimg.images import BrokenImage

FORMAT = 2
PLAIN_FORMAT = 1  # of shards with no other columns than these, as it always was
PLAIN = ("image", "name", "label")
ABOUT, BROKEN = b"genimg", b"genimg.broken"
SUFFIX = ".parquet"
ATTEMPTS = 8  # to read a row group from a store
FOOTER_THREADS = 16  # reading footers is waiting, where they come over a network
EXPECTED = "image (binary: encoded images), name (string) and perhaps label (integer)"

Row = Mapping[str, Any]  # `image`, `name`, and other columns as they are stored


@dataclass(frozen=True)
class RowGroup:
    """Rows of a shard in memory, still encoded.

    columns: {name: its values [N]}, `image` always
    """

    number: int
    columns: Mapping[str, pa.Array]
    nbytes: int

    def row(self, number: int, columns: Iterable[str]) -> Row:
        """These columns of one row, as they are stored."""
        return {name: self.columns[name][number].as_py() for name in columns}


def find_shards(where: str, split: Split, filesystem: fs.FileSystem) -> list[fs.FileInfo]:
    """The shards of a split: one file, a folder's, or those of its folders `train`, `test`, `val`.

    Without such folders every split is everything. Sorted by name; hidden files are passed over.
    """
    info = filesystem.get_file_info(where)
    if info.type == fs.FileType.NotFound:
        raise InputError(f"{where}: no such file or folder")
    if info.type == fs.FileType.File:
        return [info]
    if loose := _shards_in(where, filesystem):
        return loose
    entries = filesystem.get_file_info(fs.FileSelector(where))
    folders = {e.base_name: e.path for e in entries if e.type == fs.FileType.Directory}
    parts = {name: _shards_in(folders[name], filesystem) for name in SPLITS if name in folders}
    parts = {name: files for name, files in parts.items() if files}
    if not parts:
        raise InputError(f"{where}: no *{SUFFIX} in it, nor in folders {', '.join(SPLITS)} of it")
    if split == "all" or list(parts) == ["train"]:
        return [file for files in parts.values() for file in files]
    wanted = "train" if split == "train" else "test" if "test" in parts else "val"
    if wanted not in parts:
        raise InputError(f"{where}: has no folder {wanted}, only {', '.join(parts)}; name that one")
    return parts[wanted]


def _shards_in(folder: str, filesystem: fs.FileSystem) -> list[fs.FileInfo]:
    found = filesystem.get_file_info(fs.FileSelector(folder))
    files = [f for f in found if f.type == fs.FileType.File and f.base_name.endswith(SUFFIX)]
    return sorted((f for f in files if f.base_name[0] not in "._"), key=lambda f: f.path)


def read_footer(path: str, filesystem: fs.FileSystem) -> pq.FileMetaData:
    """The footer alone: row groups, their sizes, metadata. Raises InputError naming the file."""
    try:
        with pq.ParquetFile(path, filesystem=filesystem) as file:
            return file.metadata
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error})") from error


def broken_of(footer: pq.FileMetaData) -> list[str]:
    """Names of the images that were left out of a shard of ours."""
    return json.loads((footer.metadata or {}).get(BROKEN, b"[]"))


class ShardFiles:
    """The row groups of several shards, numbered through; only footers are held.

    columns:     those of genimg.data.columns that there are; of them `wanted` are read, and labels,
                 by which images are chosen: files must have these alike
    rows, sizes: int64 [G], the number of rows and the bytes in memory of each row group
    starts:      int64 [G], the number of the first row of each
    """

    def __init__(
        self,
        files: list[fs.FileInfo],
        filesystem: fs.FileSystem,
        wanted: tuple[str, ...] = ("image",),
    ) -> None:
        self.filesystem = filesystem
        self.wanted = wanted
        self.paths = [file.path for file in files]
        with ThreadPoolExecutor(FOOTER_THREADS) as pool:
            self.footers = list(pool.map(lambda p: read_footer(p, filesystem), self.paths))
        self.columns = checked_columns(self.paths[0], self.footers[0], wanted)
        self._read, self.classes = self._agreed()
        self._groups = [
            (file, group)
            for file, footer in enumerate(self.footers)
            for group in range(footer.num_row_groups)
        ]
        groups = [self.footers[file].row_group(group) for file, group in self._groups]
        self.rows = np.array([group.num_rows for group in groups], np.int64)
        self.sizes = np.array([group.total_byte_size for group in groups], np.int64)
        self.starts = np.cumsum(self.rows) - self.rows
        about = [
            (file.base_name, file.size, footer.num_rows)
            for file, footer in zip(files, self.footers, strict=True)
        ]
        content = json.dumps([about, self.rows.tolist(), self.classes.get("label", ())])
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()

    def read(self, number: int) -> RowGroup:
        """One row group. Safe from several threads. Raises InputError naming the file."""
        table = self._table(number, [*self._read])
        columns = {name: table[name].combine_chunks() for name in self._read}
        return RowGroup(number, columns, table.nbytes)

    def labels(self, number: int) -> np.ndarray:
        """int64: the labels of one row group, without its images. Safe from several threads."""
        return self._table(number, ["label"])["label"].to_numpy().astype(np.int64, copy=False)

    def texts(self, number: int) -> list[str]:
        """Those of one row group, without its images; rows that have none are passed over."""
        return [text for text in self._table(number, ["text"])["text"].to_pylist() if text]

    def highest(self, column: str, number: int) -> int:
        """The highest class in a column of one row group, -1 where nothing can be read of it."""
        highest = -1
        for stored in self._table(number, [column])[column]:
            with suppress(BrokenImage):  # which comes to light when its row is read
                value = decoded(column, stored.as_py())
                highest = max(highest, COLUMNS[column].highest(value))
        return highest

    @property
    def middles(self) -> np.ndarray:
        """float [G]: between the lowest and the highest label of each row group; 0 without."""
        if "label" not in self.columns:
            return np.zeros(len(self.rows))
        column = {
            file: [footer.schema.column(i).path for i in range(footer.num_columns)].index("label")
            for file, footer in enumerate(self.footers)
        }
        found = [
            self.footers[file].row_group(group).column(column[file]).statistics if rows else None
            for (file, group), rows in zip(self._groups, self.rows.tolist(), strict=True)
        ]
        return np.array([(each.min + each.max) / 2 if each else 0 for each in found], float)

    def _table(self, number: int, columns: list[str]) -> pa.Table:
        """These columns of one row group, tried again where a store fails."""
        file, inside = self._groups[number]
        path = self.paths[file]
        # Arrow's own patience with a store that fails ends after seconds.
        attempts = 1 if isinstance(self.filesystem, fs.LocalFileSystem) else ATTEMPTS
        try:
            for attempt in Retrying(
                stop=stop_after_attempt(attempts),
                wait=wait_random_exponential(max=10),
                retry=retry_if_exception_type(OSError),
                reraise=True,
            ):
                with (
                    attempt,
                    pq.ParquetFile(
                        path, filesystem=self.filesystem, metadata=self.footers[file]
                    ) as parquet,
                ):
                    return parquet.read_row_group(inside, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: row group {inside} cannot be read ({error})") from error
        raise AssertionError("the last attempt returns or raises")

    def place_of(self, group: RowGroup, row: int) -> str:
        """Where a row is, for messages: the file, the number of the row in it, and its name."""
        file, inside = self._groups[group.number]
        before = sum(self.footers[file].row_group(g).num_rows for g in range(inside))
        place = f"{self.paths[file]}[{before + row}]"
        return f"{place} ({group.columns['name'][row]})" if "name" in group.columns else place

    def _agreed(self) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
        """(columns to read, names of their classes), which all files must have alike."""
        first = None
        for path, footer in zip(self.paths, self.footers, strict=True):
            has = checked_columns(path, footer, self.wanted)
            ours = tuple(name for name in has if name in {*PLAIN, *self.wanted})
            found = (ours, declared_classes(path, footer))
            if first is not None and found != first:
                raise InputError(
                    f"{path}: differs from {self.paths[0]} in its columns or classes;"
                    " shards of one set are alike"
                )
            first = found
        assert first is not None, "a set of shards has at least one file"
        columns, declared = first
        classes = {name: its for name, its in (declared or {}).items() if name in columns}
        if "label" not in columns:
            return columns, classes
        highest = max(highest_label(*pair) for pair in zip(self.paths, self.footers, strict=True))
        if declared is None:
            return columns, {"label": tuple(str(label) for label in range(highest + 1))}
        if highest >= len(classes["label"]):
            raise InputError(
                f"{self.paths[0]}: label {highest}, but only {len(classes['label'])} classes"
            )
        return columns, classes


def checked_columns(
    path: str, footer: pq.FileMetaData, wanted: Iterable[str] = ()
) -> tuple[str, ...]:
    """Which of our columns a file has; InputError naming what it has where it cannot be read.

    What is neither in it nor `wanted` may be of any type: other programs call other things so.
    """
    schema = footer.schema.to_arrow_schema()
    types = dict(zip(schema.names, schema.types, strict=True))
    fits = {name: column.accepts for name, column in COLUMNS.items()} | {"name": accepts_name}
    ours = [name for name in types if name in fits and fits[name](types[name])]
    must = {*PLAIN, *wanted}
    wrong = [name for name in types if name in fits and name in must and name not in ours]
    if "image" not in types or wrong:
        listed = ", ".join(f"{name} ({kind})" for name, kind in islice(types.items(), 20))
        more = "".join(f", {name} ({COLUMNS[name].stored})" for name in wrong if name not in PLAIN)
        raise InputError(f"{path}: has the columns {listed or 'none'}; must have {EXPECTED}{more}")
    return tuple(name for name in fits if name in ours)


def accepts_name(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def declared_classes(path: str, footer: pq.FileMetaData) -> dict[str, tuple[str, ...]] | None:
    """Class names that a shard of ours declares, by column; None in other programs' files."""
    text = (footer.metadata or {}).get(ABOUT)
    if text is None:
        return None
    try:
        told = json.loads(text)
        version = int(told["format"])
        names = {"label": told["classes"]} | told.get("classes_of", {})
        classes = {name: tuple(map(str, its)) for name, its in names.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: its metadata cannot be understood ({error!r})") from None
    if version > FORMAT:
        raise InputError(f"{path}: format {version} of shards is newer than this genimg's {FORMAT}")
    return classes


def highest_label(path: str, footer: pq.FileMetaData) -> int:
    """The highest label by the footer's statistics, -1 in an empty file."""
    paths = [footer.schema.column(i).path for i in range(footer.num_columns)]
    column = paths.index("label")
    highest = -1
    groups = [footer.row_group(group) for group in range(footer.num_row_groups)]
    for group in groups:
        if not group.num_rows:  # other programs write such ones for what had no rows
            continue
        found = group.column(column).statistics
        if found is None or not found.has_min_max or found.null_count:
            raise InputError(
                f"{path}: labels are missing, or have no statistics; write it with genimg prepare"
            )
        if found.min < 0:
            raise InputError(f"{path}: has label {found.min}; labels count from 0")
        highest = max(highest, found.max)
    return highest
