"""Parquet shards on disk: how one is written, and how those of a set are found, checked and read.

A shard is a Parquet file with the columns `image` (an encoded image), `label` (integer, left out
where there are no classes) and `name`. Its metadata holds, as JSON under `genimg`, the version of
this format and the names of the classes, and under `genimg.broken` what was left out as unreadable.
Other programs' Parquet files with these columns are read as well.
"""

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from genimg.data.arrays import Split
from genimg.data.sources import SPLITS
from genimg.errors import InputError

FORMAT = 1
ABOUT, BROKEN = b"genimg", b"genimg.broken"
SUFFIX = ".parquet"
GROUP_ROWS = 512  # in a row group, the unit that is read at a time
GROUP_BYTES = 6 << 20  # of images in a row group, where 512 of them are more: 64 may be open
ATTEMPTS = 8  # to read a row group from a store
FOOTER_THREADS = 16  # reading footers is waiting, where they come over a network
EXPECTED = "image (binary: encoded images), name (string) and perhaps label (integer)"


@dataclass(frozen=True)
class Row:
    """One image of a shard. `label` counts where the shard has classes."""

    image: bytes
    label: int
    name: str


@dataclass(frozen=True)
class RowGroup:
    """Rows of a shard in memory, still encoded."""

    number: int
    images: pa.Array  # binary [N]
    labels: np.ndarray  # int64 [N], zeros where there are none
    names: pa.Array | None  # string [N]
    nbytes: int


def write_shard(
    path: str,
    rows: Iterable[Row],
    *,
    labelled: bool,
    classes: tuple[str, ...],
    broken: list[str],
    filesystem: fs.FileSystem,
) -> int:
    """Write one shard, whole or not at all; the number of its rows.

    broken: names of images that were left out; it may be filled while `rows` are drawn.
    Images are compressed already and are stored as they are.
    """
    fields = [pa.field("image", pa.binary()), pa.field("name", pa.string())]
    fields += [pa.field("label", pa.int64())] if labelled else []
    about = json.dumps({"format": FORMAT, "classes": classes})
    schema = pa.schema(fields, metadata={ABOUT: about.encode()})
    folder, _, name = path.rpartition("/")
    # What is written to S3 appears when it is closed, so there it needs no other name.
    local = isinstance(filesystem, fs.LocalFileSystem)
    part = f"{folder}/.{name}.{uuid4().hex}.part" if local else path
    count = 0
    try:
        with (
            filesystem.open_output_stream(part) as stream,
            pq.ParquetWriter(
                stream,
                schema,
                compression={field.name: "none" if field.name == "image" else "zstd"
                             for field in fields},
                use_dictionary=False,
                write_statistics=["label"] if labelled else False,
            ) as writer,
        ):  # fmt: skip
            for group in grouped(rows):
                columns = [[row.image for row in group], [row.name for row in group]]
                columns += [[row.label for row in group]] if labelled else []
                writer.write_table(pa.table(columns, schema=schema), row_group_size=len(group))
                count += len(group)
            writer.add_key_value_metadata({BROKEN: json.dumps(broken).encode()})
        if local:
            filesystem.move(part, path)
    except BaseException:
        if filesystem.get_file_info(part).type == fs.FileType.File:
            filesystem.delete_file(part)
        raise
    return count


def grouped(rows: Iterable[Row]) -> Iterable[list[Row]]:
    """Rows in lists of at most GROUP_ROWS, and of GROUP_BYTES and one image more."""
    group: list[Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row.image)
        if len(group) == GROUP_ROWS or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


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

    rows, sizes: int64 [G], the number of rows and the bytes in memory of each row group
    starts:      int64 [G], the number of the first row of each
    """

    def __init__(self, files: list[fs.FileInfo], filesystem: fs.FileSystem) -> None:
        self.filesystem = filesystem
        self.paths = [file.path for file in files]
        with ThreadPoolExecutor(FOOTER_THREADS) as pool:
            self.footers = list(pool.map(lambda p: read_footer(p, filesystem), self.paths))
        self.columns, self.classes = self._agreed()
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
        content = json.dumps([about, self.rows.tolist(), self.classes])
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()

    def read(self, number: int) -> RowGroup:
        """One row group. Safe from several threads. Raises InputError naming the file."""
        table = self._table(number, self.columns)
        columns = {name: table[name].combine_chunks() for name in self.columns}
        labels = columns["label"].to_numpy() if "label" in columns else np.zeros(len(table))
        return RowGroup(
            number=number,
            images=columns["image"],
            labels=labels.astype(np.int64, copy=False),
            names=columns.get("name"),
            nbytes=table.nbytes,
        )

    def labels(self, number: int) -> np.ndarray:
        """int64: the labels of one row group, without its images. Safe from several threads."""
        return self._table(number, ["label"])["label"].to_numpy().astype(np.int64, copy=False)

    @property
    def middles(self) -> np.ndarray:
        """float [G]: between the lowest and the highest label of each row group; 0 without."""
        if not self.classes:
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
        return f"{place} ({group.names[row]})" if group.names is not None else place

    def _agreed(self) -> tuple[list[str], tuple[str, ...]]:
        """(columns to read, class names), which all files must have alike."""
        first = None
        for path, footer in zip(self.paths, self.footers, strict=True):
            found = (checked_columns(path, footer), declared_classes(path, footer))
            if first is not None and found != first:
                raise InputError(
                    f"{path}: differs from {self.paths[0]} in its columns or classes;"
                    " shards of one set are alike"
                )
            first = found
        assert first is not None, "a set of shards has at least one file"
        columns, classes = first
        if "label" not in columns:
            return columns, ()
        highest = max(highest_label(*pair) for pair in zip(self.paths, self.footers, strict=True))
        if classes is None:
            return columns, tuple(str(label) for label in range(highest + 1))
        if highest >= len(classes):
            raise InputError(f"{self.paths[0]}: label {highest}, but only {len(classes)} classes")
        return columns, classes


def checked_columns(path: str, footer: pq.FileMetaData) -> list[str]:
    """Which of our columns a file has; InputError naming what it has where it cannot be read."""
    schema = footer.schema.to_arrow_schema()
    types = dict(zip(schema.names, schema.types, strict=True))
    fits = {
        "image": lambda t: pa.types.is_binary(t) or pa.types.is_large_binary(t),
        "label": pa.types.is_integer,
        "name": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t),
    }
    wrong = [name for name, fit in fits.items() if name in types and not fit(types[name])]
    if "image" not in types or wrong:
        listed = ", ".join(f"{name} ({kind})" for name, kind in islice(types.items(), 20))
        raise InputError(f"{path}: has the columns {listed or 'none'}; must have {EXPECTED}")
    return [name for name in fits if name in types]


def declared_classes(path: str, footer: pq.FileMetaData) -> tuple[str, ...] | None:
    """Class names that a shard of ours declares; None in other programs' files."""
    text = (footer.metadata or {}).get(ABOUT)
    if text is None:
        return None
    try:
        about = json.loads(text)
        version, classes = int(about["format"]), tuple(map(str, about["classes"]))
    except (ValueError, KeyError, TypeError) as error:
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
