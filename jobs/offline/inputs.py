"""Images that a person names: files, folders, s3:// prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cluster.places import everywhere, open_storage
from genimg import images
from genimg.data.remote import is_remote
from genimg.errors import InputError


def listed(sources: Sequence[str]) -> list[str]:
    """Images: files by themselves, and what is in folders and prefixes, at any depth, sorted."""
    found: list[str] = []
    for source in sources:
        if is_remote(source):
            folder = source.rstrip("/")
            names = open_storage(folder).list("")
            inside = [f"{folder}/{name}" for name in names if is_image(name)]
            if not inside:
                folder, _, file = folder.rpartition("/")
                inside = [source] if is_image(file) and open_storage(folder).exists(file) else []
        elif not Path(source).exists():
            raise InputError(f"{source}: no such file or folder")
        elif Path(source).is_file():
            inside = [source]
        else:
            folder_path = Path(source)
            inside = [
                str(path) for path in sorted(folder_path.rglob("*"))
                if is_image(path.name) and not hidden(path.relative_to(folder_path))
            ]  # fmt: skip
        if not inside:
            raise InputError(f"{source}: no images in it")
        found += inside
    return found


def is_image(name: str) -> bool:
    return Path(name).suffix.lower() in images.READABLE_SUFFIXES


def hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def parted(path: str) -> tuple[str, str]:
    """(folder or prefix, name in it) of a file, by an address that any process understands."""
    place, _, name = everywhere(path).rpartition("/")
    return place or "/", name
