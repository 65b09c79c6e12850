"""Images that a person names: files, folders, s3:// prefixes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from cluster.places import everywhere, open_storage, settled, split
from cluster.storage import NotFound, Storage, StorageError, check_key
from genimg import images
from genimg.data.remote import is_remote
from genimg.errors import InputError
from jobs.offline.job import Item, Job, Source, Written, key_of


def listed(named: Sequence[str]) -> tuple[tuple[Source, ...], list[Item]]:
    """(sources, their images): files by themselves, and what folders and prefixes have at any
    depth, sorted; hidden ones are left out. Raises InputError.
    """
    sources: list[Source] = []
    items: list[Item] = []
    for each in named:
        place, name = split(everywhere(each))
        if is_remote(each):
            names = open_storage(each).list("")
            single = not names and open_storage(place).exists(name)
        elif not Path(each).exists():
            raise InputError(f"{each}: no such file or folder")
        else:
            single = Path(each).is_file()
            names = [] if single else sorted(beneath(each))
        place = place if single else everywhere(each)
        found = [name] if single else [name for name in names if is_image(name)]
        if not found:
            raise InputError(f"{each}: no images in it")
        items += [(len(sources), name) for name in found]
        sources.append(Source(each, place, single))
    return tuple(sources), items


def beneath(folder: str) -> Iterator[str]:
    """Names of files in a folder, at any depth."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = os.path.relpath(place, folder)
        prefix = "" if inside == "." else f"{inside}/"
        yield from (prefix + name for name in files if not name.startswith("."))


def is_image(name: str) -> bool:
    return Path(name).suffix.lower() in images.READABLE_SUFFIXES


def refuse_same_names(
    sources: Sequence[Source], items: Sequence[Item], output: str, format: Written = "png"
) -> None:
    """InputError where two images, as a.jpg and a.png, would become one."""
    taken: set[str] = set()
    for item in items:
        key = key_of(item, format)
        try:
            check_key(key)
        except StorageError:
            told = ascii(sources[item[0]].told(item[1]))
            raise InputError(f"{told}: no result can have such a name; rename it") from None
        if key in taken:
            both = [
                sources[at].told(name) for at, name in items if key_of((at, name), format) == key
            ]
            raise InputError(
                f"{both[0]} and {both[1]} would both become {output.rstrip('/')}/{key};"
                " rename one of them"
            )
        taken.add(key)


def refuse_among_sources(
    sources: Sequence[Source], items: Sequence[Item], output: str, format: Written = "png"
) -> None:
    """InputError where results would come to lie among the images that are read, or take the place
    of one, by whatever way both are named."""
    target = settled(output).rstrip("/")
    for source in sources:
        inside = f"{target}/".startswith(settled(source.place).rstrip("/") + "/")
        if inside and not source.file:
            raise InputError(
                f"-o {output}: lies in {source.named}, whose images are read; name another"
            )
    for item in items:
        source = sources[item[0]]
        if source.file and settled(f"{target}/{key_of(item, format)}") == settled(source.named):
            raise InputError(f"-o {output}: {source.named} would be replaced; name another folder")


def files_of(job: Job, item: Item) -> dict[str, bytes]:
    """What an image brings: itself as `image`, and what goes with it. Raises InputError."""
    source, name = item
    try:
        files = {"image": bytes_at(job.sources[source].place, name)}
    except (FileNotFoundError, NotFound):
        raise InputError("no such file any more") from None
    except OSError as error:
        raise InputError(error.strerror or str(error)) from None
    for what, place in job.beside.items():
        files[what] = bytes_beside(place, item, what)
    return files


def bytes_beside(place: str, item: Item, what: str) -> bytes:
    """What goes with an image: a file that goes with all, or in a folder that of its name, or of
    the PNG that results of such a name are. Raises InputError, saying what it is."""
    where = [split(place)] if is_image(place) else [(place, item[1]), (place, key_of(item))]
    for folder, name in where:
        try:
            return bytes_at(folder, name)
        except (FileNotFoundError, NotFound):
            continue
        except OSError as error:
            raise InputError(f"{what}: {error.strerror or error}") from None
    missing = place if is_image(place) else " or ".join(dict.fromkeys(name for _, name in where))
    raise InputError(f"{what}: there is no {missing}")


def bytes_at(place: str, name: str) -> bytes:
    return storage_at(place).read(name)[0] if is_remote(place) else Path(place, name).read_bytes()


@lru_cache(maxsize=8)
def storage_at(place: str) -> Storage:
    return open_storage(place)


@lru_cache(maxsize=1)
def latents_in(path: str) -> np.ndarray:
    """float32 [N, D] of a .npy, .json or .jsonl file as `genimg encode` writes them."""
    try:
        if path.endswith(".jsonl"):
            lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
            array = np.array([line.get("encode", line.get("invert")) for line in lines])
        elif path.endswith(".json"):
            array = np.array(list(json.loads(Path(path).read_text()).values()))
        else:
            array = np.asarray(np.load(path, allow_pickle=False))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except (ValueError, EOFError, KeyError, TypeError, AttributeError):
        array = np.empty(0)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiu":
        raise InputError(f"{path}: no rows of numbers; give what `genimg encode` writes")
    return np.ascontiguousarray(array, np.float32)
