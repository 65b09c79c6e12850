"""The folder that shards are written to: claimed for one plan, and what is finished in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from uuid import uuid4

from pyarrow import fs

from genimg.data.remote import files_at, is_remote, locate, reported
from genimg.data.shard_files import SUFFIX, broken_of, read_footer
from genimg.errors import InputError
from jobs.shards.plan import Plan, Shard

PLAN = "prepare.json"  # beside the shards: what they were made of, so that a second start goes on


@dataclass(frozen=True)
class Outcome:
    """What has become of a shard. `broken` are the names and reasons of what was left out."""

    images: int
    bytes: int
    broken: list[str]
    complete: bool = True
    refused: str = ""  # why it could not be written


def claim(folder: str, plan: Plan, overwrite: bool) -> None:
    """Make a folder ready for a plan: new, empty, or left by the same plan, which then goes on.

    Raises InputError where something else is there. `overwrite` removes shards and nothing else.
    """
    filesystem, where = locate(folder)
    with reported(folder):
        if filesystem.get_file_info(where).type == fs.FileType.File:
            raise InputError(f"{folder}: is a file; name a folder")
        names = [file.path[len(where) + 1 :] for file in files_at(folder)]
        ours = [name for name in names if is_ours(PurePosixPath(name))]
        if foreign := sorted(set(names) - set(ours)):
            name = foreign[0].rpartition("/")[2]
            raise InputError(f"{folder}: holds {name}, which is no shard; name a new folder")
        recorded = f"{where}/{PLAN}"
        same = PLAN in names and read_text(filesystem, recorded) == plan.text()
        shards = [name for name in ours if name.endswith(SUFFIX)]
        if shards and not same and not overwrite:
            raise InputError(
                f"{folder}: holds shards of another source or other options;"
                " --overwrite replaces them"
            )
        for name in ours:
            if overwrite or name.endswith(".part"):  # what a killed process was writing
                filesystem.delete_file(f"{where}/{name}")
        if not is_remote(folder):  # S3 has no folders
            for split in plan.counts:
                filesystem.create_dir(where if split == "all" else f"{where}/{split}")
        part = f"{where}/.{PLAN}.{uuid4().hex}.part"
        with filesystem.open_output_stream(part) as stream:
            stream.write(plan.text().encode())
        filesystem.move(part, recorded)


def read_text(filesystem: fs.FileSystem, path: str) -> str:
    with filesystem.open_input_stream(path) as stream:
        return stream.read().decode()


def is_ours(path: PurePosixPath) -> bool:
    """Whether a file, relative to the folder of a plan, is one that `prepare` writes."""
    place = path.parent.as_posix() in (".", "train", "test")
    shard = path.name.startswith("shard-") and path.suffix == SUFFIX
    part = path.name.startswith((".shard-", f".{PLAN}")) and path.suffix == ".part"
    return place and (shard or part or path.as_posix() == PLAN)


def outcome_of(shard: Shard) -> Outcome | None:
    """A shard that is there already and whole, or None."""
    filesystem, path = locate(shard.path)
    with reported(shard.path):
        info = filesystem.get_file_info(path)
    if info.type != fs.FileType.File:
        return None
    try:
        footer = read_footer(path, filesystem)
    except InputError:  # not whole, so it will be written again
        return None
    outcome = Outcome(footer.num_rows, info.size, broken_of(footer))
    return outcome if outcome.images + len(outcome.broken) == shard.stop - shard.start else None
