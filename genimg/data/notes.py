"""Notes about images: captions as JSON lines, boxes in COCO's format, names of classes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from genimg.data.archives import ANNOTATIONS, CAPTIONS, CLASSES
from genimg.data.listing import PAIRS, SPLITS
from genimg.errors import InputError
from genimg.images import BrokenImage

Read = Callable[[str], bytes]
BESIDE = ("", *(images for images, _ in PAIRS.values()))  # folders near a note with its images


def caption_files(notes: Iterable[str]) -> list[str]:
    return [note for note in notes if PurePosixPath(note).name == CAPTIONS]


def annotation_files(notes: Iterable[str]) -> list[str]:
    """Those with boxes: annotations.json, and in a folder annotations/ the only JSON file, or
    those named as COCO's are (instances_train2017.json) or as splits."""
    found: list[str] = []
    folders: dict[str, list[str]] = {}
    for note in notes:
        path = PurePosixPath(note)
        if path.name == f"{ANNOTATIONS}.json":
            found.append(note)
        elif path.suffix == ".json":
            folders.setdefault(str(path.parent), []).append(note)
    for inside in folders.values():
        stems = {note: PurePosixPath(note).stem for note in inside}
        named = [n for n, stem in stems.items() if stem.startswith("instances") or stem in SPLITS]
        found += inside if len(inside) == 1 else named
    return sorted(found)


def captions(read: Read, notes: Iterable[str], names: Sequence[str]) -> list[str]:
    """The text of each image, by lines {"file_name": …, "text": …}; InputError without one."""
    index = Index(names)
    texts: dict[int, str] = {}
    files = caption_files(notes)
    for note in files:
        # a text may have other characters in it that Python takes for ends of lines
        for number, line in enumerate(text_of(read, note).split("\n"), 1):
            if not line.strip():
                continue
            try:
                told = json.loads(line)
                name, text = str(told["file_name"]), as_text(told["text"])
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    f'{note}: line {number} is not of the form {{"file_name": "1.png",'
                    ' "text": "…"}'
                ) from None
            index.put(texts, note, name, text)
    return index.complete(texts, files, "text")


def as_text(value: Any) -> str:
    """A text, or a number as one; ValueError for anything else: null is none, and no word."""
    if type(value) not in (str, int, float):
        raise ValueError(f"{value!r} is no text")
    text = str(value)
    text.encode()  # half of a pair of surrogates is no character
    return text


def boxes(
    read: Read, notes: Iterable[str], names: Sequence[str]
) -> tuple[list[list[list[float]]], tuple[str, ...]]:
    """([class, x0, y0, x1, y1] of each image's boxes, names of the classes), in COCO's format.

    Classes are numbered in the order of the categories' ids. Crowds (iscrowd: 1) are left out.
    Raises InputError where an image is not listed; one without boxes must be, too.
    """
    index = Index(names)
    found: dict[int, list[list[float]]] = {}
    classes: dict[str, tuple[str, ...]] = {}
    files = annotation_files(notes)
    for note in files:
        try:
            told = json.loads(text_of(read, note))
            kinds = sorted((int(each["id"]), str(each["name"])) for each in told["categories"])
            number = {identity: place for place, (identity, _) in enumerate(kinds)}
            here: dict[Any, list[list[float]]] = {each["id"]: [] for each in told["images"]}
            for each in told["annotations"]:
                if not each.get("iscrowd"):
                    x, y, width, height = map(float, each["bbox"])
                    box = [float(number[each["category_id"]]), x, y, x + width, y + height]
                    here[each["image_id"]].append(box)
            listed = [(str(each["file_name"]), here[each["id"]]) for each in told["images"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{note}: not COCO's format of boxes ({error!r}): images with id and file_name,"
                " annotations with image_id, category_id and bbox, categories with id and name"
            ) from None
        classes[note] = tuple(name for _, name in kinds)
        for name, its in listed:
            index.put(found, note, name, its)
    if len(set(classes.values())) > 1:
        raise InputError(f"{' and '.join(files[:2])} have different categories; let them be alike")
    return index.complete(found, files, "boxes"), classes[files[0]] if files else ()


def class_names(read: Read, notes: Iterable[str]) -> tuple[str, ...]:
    """The lines of classes.txt, which must be alike where there are several; empty without."""
    files = [note for note in notes if PurePosixPath(note).name == CLASSES]
    found = {
        tuple(line.strip() for line in text_of(read, note).splitlines() if line.strip())
        for note in files
    }
    if len(found) > 1:
        raise InputError(f"{' and '.join(files[:2])} name different classes; let them be alike")
    return next(iter(found), ())


def text_of(read: Read, note: str) -> str:
    try:
        return read(note).decode("utf-8-sig")  # some editors begin files with a mark
    except BrokenImage as error:
        raise InputError(f"{note}: {error.reason}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{note}: is not UTF-8 ({error})") from error


class Index:
    """Images by their paths, as notes near them tell them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.numbers = {name: number for number, name in enumerate(names)}

    def put(self, found: dict[int, Any], note: str, name: str, value: Any) -> None:
        """Note what is told of an image; of others, as those of another split, nothing."""
        path = PurePosixPath(note)
        folder = path.parent
        if folder.name == ANNOTATIONS:
            folder = folder.parent
        beside = (*BESIDE, path.stem.removeprefix("instances_"))
        numbers = {self.numbers.get(str(folder / place / name)) for place in beside} - {None}
        if len(numbers) > 1:
            raise InputError(f"{note}: there are several {name}; give their folders with them")
        for number in numbers:
            assert number is not None
            if number in found:
                raise InputError(f"{note}: {name} is told of twice; let once remain")
            found[number] = value

    def complete(self, found: dict[int, Any], files: list[str], what: str) -> list[Any]:
        """What was found of each image; InputError where that is nothing."""
        missing = [name for number, name in enumerate(self.names) if number not in found]
        if missing:
            raise InputError(
                f"{' and '.join(files[:2])}: nothing about {len(missing)} of the"
                f" {len(self.names)} images, as {missing[0]}; add their {what}, or remove them"
            )
        return [found[number] for number in range(len(self.names))]
