"""Parquet shards as they are written; see genimg.data.shard_files for what is in one."""

import json
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from genimg.data.columns import COLUMNS
from genimg.data.shard_files import ABOUT, BROKEN, FORMAT, PLAIN, PLAIN_FORMAT, Row

GROUP_ROWS = 512  # in a row group, the unit that is read at a time
GROUP_BYTES = 6 << 20  # of images in a row group, where 512 of them are more: 64 may be open


def write_shard(
    path: str,
    rows: Iterable[Row],
    *,
    columns: tuple[str, ...],
    classes: Mapping[str, tuple[str, ...]],
    broken: list[str],
    filesystem: fs.FileSystem,
) -> int:
    """Write one shard, whole or not at all; the number of its rows.

    columns: what rows have besides `name`
    broken: names of images that were left out; it may be filled while `rows` are drawn.
    Images are compressed already and are stored as they are.
    """
    more = [name for name in columns if name not in PLAIN]
    names = [name for name in PLAIN if name == "name" or name in columns] + more
    types = {name: pa.string() if name == "name" else COLUMNS[name].stored for name in names}
    schema = pa.schema(list(types.items()), metadata={ABOUT: about(classes, bool(more))})
    as_it_is = {name for name, kind in types.items() if pa.types.is_binary(innermost(kind))}
    folder, _, file = path.rpartition("/")
    # What is written to S3 appears when it is closed, so there it needs no other name.
    local = isinstance(filesystem, fs.LocalFileSystem)
    part = f"{folder}/.{file}.{uuid4().hex}.part" if local else path
    count = 0
    try:
        with (
            filesystem.open_output_stream(part) as stream,
            pq.ParquetWriter(
                stream,
                schema,
                compression={
                    leaf(name, kind): "none" if name in as_it_is else "zstd"
                    for name, kind in types.items()
                },
                use_dictionary=False,
                write_statistics=["label"] if "label" in names else False,
            ) as writer,
        ):
            for group in grouped(rows, as_it_is):
                table = [[row[name] for row in group] for name in names]
                writer.write_table(pa.table(table, schema=schema), row_group_size=len(group))
                count += len(group)
            writer.add_key_value_metadata({BROKEN: json.dumps(broken).encode()})
        if local:
            filesystem.move(part, path)
    except BaseException:
        if filesystem.get_file_info(part).type == fs.FileType.File:
            filesystem.delete_file(part)
        raise
    return count


def about(classes: Mapping[str, tuple[str, ...]], more: bool) -> bytes:
    """What the metadata says of a shard; `more`: whether it has columns besides PLAIN."""
    told: dict[str, Any] = {"format": PLAIN_FORMAT, "classes": classes.get("label", ())}
    if more:
        told |= {"format": FORMAT, "classes_of": dict(classes)}
    return json.dumps(told).encode()


def innermost(kind: pa.DataType) -> pa.DataType:
    """What is in lists of a type."""
    while pa.types.is_list(kind):
        kind = kind.value_type
    return kind


def leaf(name: str, kind: pa.DataType) -> str:
    """What Parquet calls a column, or what is in its lists."""
    while pa.types.is_list(kind):
        name, kind = f"{name}.list.element", kind.value_type
    return name


def grouped(rows: Iterable[Row], weighed: Iterable[str] = ("image",)) -> Iterable[list[Row]]:
    """Rows in lists of at most GROUP_ROWS, and of GROUP_BYTES (of `weighed`) and one row more."""
    group: list[Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sum(weight(row[name]) for name in weighed)
        if len(group) == GROUP_ROWS or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def weight(stored: bytes | list[bytes]) -> int:
    """Bytes of an encoded image, or of several."""
    return len(stored) if isinstance(stored, bytes) else sum(map(len, stored))
