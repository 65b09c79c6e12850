"""What a verb of an operation reads and writes: files and folders in, results out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from genimg import images, moving
from genimg.errors import InputError
from genimg.operations import Kind, Operation
from genimg.results import Frames, Latents, Pictures, Values
from jobs.console import Meter, say

if TYPE_CHECKING:
    from genimg.engine import Engine

Work = tuple[Path, Path | None]  # a file, and where its result goes


@dataclass(frozen=True)
class Drawing:
    """An operation on nothing, or on latents in a file; a grid, an animation, or a folder."""

    output: Path
    columns: int | None
    latents: Path | None

    @property
    def folder(self) -> Path | None:
        """What must be there to write to."""
        return self.output.parent if self.output.suffix else self.output

    def run(self, engine: Engine, operation: Operation) -> None:
        inputs: dict[str, Any] = (
            {} if self.latents is None else {"latents": latents_in(self.latents)}
        )
        made: Pictures = engine(operation, **inputs)
        if made.seeds and getattr(operation, "seed", 0) == -1:
            say(f"drawn at random: --seed {made.seeds[0]}")
        if not self.output.suffix:
            self.output.mkdir(parents=True, exist_ok=True)
            seeds = made.seeds if len(made.seeds) == len(made.images) else ()
            for i, image in enumerate(made.images):
                name = f"seed-{seeds[i]:06d}.png" if seeds else f"{i:06d}.png"
                images.save(image, self.output / name)
            typer.echo(f"{self.output}: {len(made.images)} images")
            return
        self.output.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(made, Frames):
            format: moving.Format = "gif" if self.output.suffix.lower() == ".gif" else "webp"
            self.output.write_bytes(moving.encode(made.images, format))
        else:
            columns = self.columns or math.ceil(math.sqrt(len(made.images)))
            images.save(images.grid(images.to_tensor(made.images), columns), self.output)
        typer.echo(self.output)


@dataclass(frozen=True)
class Files:
    """An operation on image files; each result is a file of its own, or they are told together."""

    work: Sequence[Work]
    output: Path | None
    folder: Path | None

    def run(self, engine: Engine, operation: Operation) -> None:
        told: dict[str, Any] = {}
        with Meter(operation.name, len(self.work)) as meter:
            for done, (path, target) in enumerate(self.work, start=1):
                made = engine(operation, image=images.load(path, keep_alpha=True))
                if isinstance(made, Pictures):
                    assert target is not None, "pictures are written"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    profile = images.profile(path.read_bytes())
                    images.save(made.images[0], target, profile=profile)
                else:
                    told[str(path)] = made
                meter.update(done, {})
        if told:
            self._tell(told)
        else:
            typer.echo(self.output)

    def _tell(self, told: dict[str, Any]) -> None:
        if self.output is not None and self.output.suffix == ".npy":
            np.save(self.output, np.concatenate([made.array for made in told.values()]))
            typer.echo(self.output)
            return
        text = json.dumps({path: as_json(made) for path, made in told.items()}, indent=2)
        if self.output is None:
            typer.echo(text)
        else:
            self.output.write_text(text + "\n")
            typer.echo(self.output)


def as_json(made: Latents | Values) -> Any:
    """What was said of one image."""
    return made.array[0].tolist() if isinstance(made, Latents) else made.values[0]


def prepared(
    operation: type[Operation], sources: list[str] | None, output: Path | None, columns: int | None
) -> Drawing | Files:
    """What is to be read and written. InputError where it cannot be."""
    if operation.gives in (Kind.PICTURES, Kind.FRAMES):
        assert output is not None, "it has a default"
        if columns is not None and columns < 1:
            raise InputError(f"--columns {columns}: at least 1")
        suffixes = images.WRITABLE_SUFFIXES
        known = [".webp", ".gif"] if operation.gives is Kind.FRAMES else [*suffixes]
        if output.suffix and output.suffix.lower() not in known:
            raise InputError(
                f"-o {output}: {output.suffix} is not an image; known: {' '.join(known)}"
            )
        return Drawing(output, columns, Path(sources[0]) if sources else None)
    files = [Path(source) for source in sources or ()]
    for file in files:
        if not file.exists():
            raise InputError(f"{file}: no such file or folder")
    if operation.gives is Kind.PICTURE:
        return restored(files, output)
    work = [(path, None) for file in files for path in ([file] if file.is_file() else found(file))]
    return Files(work, output, None if output is None else output.parent)


def restored(files: list[Path], output: Path | None) -> Files:
    """Image files that become image files."""
    if output is None:
        raise InputError("-o is missing; give an image, or a folder for several")
    if len(files) == 1 and files[0].is_file():
        if output.suffix.lower() not in images.WRITABLE_SUFFIXES:
            known = " ".join(images.WRITABLE_SUFFIXES)
            raise InputError(f"-o {output}: give a name that ends in one of {known}")
        return Files([(files[0], output)], output, output.parent)
    if output.suffix.lower() in images.WRITABLE_SUFFIXES:
        raise InputError(f"-o {output}: give a folder, as the source is one")
    work: list[Work] = []
    for file in files:
        if file.is_file():
            work.append((file, output / Path(file.name).with_suffix(".png")))
        else:
            work += [
                (path, output / path.relative_to(file).with_suffix(".png")) for path in found(file)
            ]
    refuse_same_names(work)
    return Files(work, output, output)


def found(folder: Path) -> list[Path]:
    """The images in a folder, at any depth."""
    paths = [
        path for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in images.READABLE_SUFFIXES
    ]  # fmt: skip
    if not paths:
        raise InputError(f"{folder}: no images in it")
    return paths


def refuse_same_names(work: Sequence[Work]) -> None:
    """InputError where two images of a folder, as a.jpg and a.png, would become one."""
    taken: dict[Path | None, Path] = {}
    for path, target in work:
        if (other := taken.setdefault(target, path)) != path:
            raise InputError(f"{other} and {path} would both become {target}; rename one of them")


def latents_in(path: Path) -> np.ndarray:
    """float32 [N, D] of a .npy file. Raises InputError."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a .npy file of numbers ({error})") from None
