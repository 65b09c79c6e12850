"""Where pictures of a scene come from: files, of folders one by chance, masks; plain colours."""

from __future__ import annotations

from abc import abstractmethod
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import ExifTags, ImageColor
from pydantic import AfterValidator, Field
from torch import Tensor

from genimg import images, masks
from genimg.errors import InputError, nearest
from genimg.pillow_arrays import narrowed
from genimg.ranges import word
from genimg.rng import fold, integers
from genimg.section import Section

MAX_PIXELS = 64_000_000  # of a picture, and of a canvas


def _colour(text: str) -> str:
    try:
        ImageColor.getrgb(text)
    except ValueError:
        raise ValueError("give a colour as #c8c8c8, or by its name in CSS, as red") from None
    return text


Colour = Annotated[str, AfterValidator(_colour)]


class Picture(Section):
    """One kind of picture. Paths are relative to the folder of the scene's file."""

    @abstractmethod
    def check(self, base: Path) -> None:
        """InputError for what can be found wrong before anything is composed."""

    @abstractmethod
    def drawn(self, base: Path, key: Tensor) -> np.ndarray:
        """uint8 [H, W, 4]: RGB and alpha, for a key int64 [1]. Raises InputError."""


class File(Picture):
    """An image in a file; a folder stands for one of its images, by chance."""

    kind: Literal["file"] = "file"
    """an image, or one of a folder of images"""
    path: str
    """the file or folder"""
    mask: str | None = None
    """what of it is seen: an image of equal sides, white there; for a folder one of equal names"""
    of: int | None = Field(None, ge=0, le=254)
    """the mask holds classes, as `genimg segment --show mask` writes them: this one is seen"""

    def check(self, base: Path) -> None:
        if self.of is not None and self.mask is None:
            raise InputError(f"of={self.of}: a class of which mask? give mask")
        files = files_at(base, self.path)
        if self.mask is None:
            if (base / self.path).is_file():
                sides_of(files[0])
            return
        partners = self.partners(base)
        alone = [file for file in files if self.named(base, file) not in partners]
        if alone:
            raise InputError(
                f"{self.mask}: no mask for {len(alone)} of the {len(files)} images in {self.path},"
                f" as {alone[0].name}; masks have the names of their images"
            )
        if (base / self.path).is_file():
            refuse_sides(files[0], partners[self.named(base, files[0])])

    def drawn(self, base: Path, key: Tensor) -> np.ndarray:
        files = files_at(base, self.path)
        first = int(integers(fold(key, word("file")), len(files)))
        for file in (*files[first:], *files[:first]):
            picture = self.masked(base, file)
            if picture[..., 3].any():
                return picture
        what = "all of it is transparent" if self.of is None else f"nothing is of class {self.of}"
        raise InputError(f"{self.mask or self.path}: {what}")

    def masked(self, base: Path, file: Path) -> np.ndarray:
        picture = rgba_of(file)
        if self.mask is None:
            return picture
        mask = self.partners(base)[self.named(base, file)]
        refuse_sides(file, mask)
        return np.dstack([picture[..., :3], np.minimum(picture[..., 3], self.shown(mask))])

    def shown(self, mask: Path) -> np.ndarray:
        """uint8 [H, W]: how far each pixel is."""
        if self.of is None:
            return images.load(mask, channels=1)[..., 0]
        with images.reading(mask):
            classes = masks.decode(mask.read_bytes(), MAX_PIXELS)[..., 0]
        return np.where(classes == self.of, 255, 0).astype(np.uint8)

    def partners(self, base: Path) -> dict[str, Path]:
        """Masks by the names of their images."""
        assert self.mask is not None
        return named_at(base, self.mask)

    def named(self, base: Path, file: Path) -> str:
        assert self.mask is not None
        if (base / self.mask).is_file() and (base / self.path).is_file():
            return ""
        return name_in(base / self.path if (base / self.path).is_dir() else file.parent, file)


class Plain(Picture):
    """A single pixel, which is as large as it is wanted."""

    kind: Literal["plain"] = "plain"
    """one colour"""
    colour: Colour
    """as #c8c8c8 or #c8c8c880 (with alpha), or a name of CSS's"""

    def check(self, base: Path) -> None:
        pass

    def drawn(self, base: Path, key: Tensor) -> np.ndarray:
        values = ImageColor.getcolor(self.colour, "RGBA")
        return np.array([[values]], np.uint8)


def from_text(value: Any) -> Any:
    """A picture that is only named: #rrggbb is a colour, all else a file or folder."""
    if isinstance(value, str):
        return Plain.validated({"colour": value}) if value[:1] == "#" else File(path=value)
    return value


@lru_cache(maxsize=64)
def files_at(base: Path, path: str) -> tuple[Path, ...]:
    """The image at a path, or those of a folder at any depth, by their names; InputError."""
    where = base / path
    if where.is_file():
        return (where,)
    if not where.is_dir():
        beside = where.parent
        known = [each.name for each in beside.iterdir()][:1000] if beside.is_dir() else []
        hint = nearest(where.name, known)
        hint = hint if hint.startswith("did you mean") else f"looked in {beside}"
        raise InputError(f"{path}: no such file or folder; {hint}")
    found = (each for each in where.rglob("*") if each.suffix.lower() in images.READABLE_SUFFIXES)
    shown = (
        each
        for each in found
        if not any(part.startswith(".") for part in each.relative_to(where).parts)
    )
    files = tuple(sorted(shown))
    if not files:
        raise InputError(f"{path}: no images in it")
    return files


@lru_cache(maxsize=64)
def named_at(base: Path, path: str) -> dict[str, Path]:
    """What files_at gives, by names within the folder, without suffixes; that of a file is ""."""
    where, files = base / path, files_at(base, path)
    return {"": files[0]} if where.is_file() else {name_in(where, file): file for file in files}


def name_in(folder: Path, file: Path) -> str:
    return file.relative_to(folder).with_suffix("").as_posix()


def sides_of(file: Path) -> tuple[int, int]:
    """(width, height) of an image upright; InputError where it is none, or too large."""
    with images.reading(file), file.open("rb") as opened:
        image = images.opened(opened, MAX_PIXELS)
        lying = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return image.size[::-1] if lying else image.size


def refuse_sides(file: Path, mask: Path) -> None:
    image, other = sides_of(file), sides_of(mask)
    if image != other:
        raise InputError(
            f"{mask}: is {other[0]}x{other[1]}, but its image {file} {image[0]}x{image[1]}"
        )


@lru_cache(maxsize=4)  # what all images of a scene have in common is decoded once
def rgba_of(file: Path) -> np.ndarray:
    """uint8 [H, W, 4], not to be written to. Raises InputError."""
    array = images.load(file, keep_alpha=True, animated=False)
    if array.dtype == np.uint16:
        array = narrowed(array)
    height, width, channels = array.shape
    alpha = array[..., -1:] if channels in (2, 4) else np.full((height, width, 1), 255, np.uint8)
    colours = array[..., : channels - (channels in (2, 4))]
    made = np.concatenate([np.broadcast_to(colours, (height, width, 3)), alpha], axis=2)
    made.setflags(write=False)
    return made
