"""What a verb of an operation does: it reads and writes one thing at once, or many as a job."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import typer

from cluster.places import everywhere, open_storage, split
from genimg import images, moving
from genimg.errors import InputError
from genimg.operations import AnySize, Kind, Operation
from genimg.results import Frames, Pictures, Values
from jobs.console import Meter, say
from jobs.model import address_of
from jobs.offline.inputs import latents_in
from jobs.offline.job import Form, Item, Job, Source, Written
from jobs.offline.perform import perform
from jobs.offline.record import FAILURES, claim, release
from jobs.offline.told import as_array, as_text, heard, lines_of, tell
from jobs.runs.addressed import digest_of

if TYPE_CHECKING:
    from genimg.contracts import Ability
    from jobs.model import Model
    from jobs.offline.making import Maker

TOLD = (".json", ".jsonl")  # files that hold what is told of images
MOVING: dict[str, moving.Format] = {".webp": "webp", ".gif": "gif"}


@dataclass(frozen=True)
class Asked:
    """What a person wants read and written, and how."""

    sources: list[str]
    output: str | None
    columns: int | None = None
    workers: int | None = None
    overwrite: bool = False
    shard_rows: int | None = None
    beside: Mapping[str, str] = field(default_factory=dict)
    format: str | None = None
    save_quality: int | None = None


@dataclass(frozen=True)
class Drawing:
    """An operation on nothing, or on what is in one file: a grid, an animation, a few images."""

    output: Path
    columns: int | None
    source: Path | None

    def run(self, model: Model, operation: Operation, ability: Ability) -> None:
        inputs: dict[str, Any] = {}
        if self.source is not None:
            if has_latents(operation, self.source):
                inputs = {"latents": latents_in(str(self.source))}
            elif Kind.FRAMES in operation.takes.values():
                inputs = {"image": moving.load(self.source)}
            else:
                inputs = {"image": images.load(self.source, keep_alpha=True, animated=False)}
        operation.check(inputs)
        for name in inputs.keys() & operation.reads.keys() - ability.takes:
            told = f"{name}: {model.name} reads none; {operation.instead[name]}"
            raise InputError(told)
        made: Pictures = model.engine()(operation, **inputs)
        tell_seed(operation, made.seeds)
        if isinstance(made, Frames) and made.rows:
            say(f"rows, from above: {', '.join(made.rows)}")
        self.write(made)

    def write(self, made: Pictures) -> None:
        """What was drawn, where it is wanted."""
        if not self.output.suffix:
            self.output.mkdir(parents=True, exist_ok=True)
            seeds = made.seeds if len(made.seeds) == len(made.images) else ()
            for i, image in enumerate(made.images):
                name = f"seed-{seeds[i]:06d}.png" if seeds else f"{i:06d}.png"
                images.save(image, self.output / name)
            typer.echo(f"{self.output}: {len(made.images)} images")
            return
        self.output.parent.mkdir(parents=True, exist_ok=True)
        format = MOVING.get(self.output.suffix.lower())
        if isinstance(made, Frames) and format:
            images.write(self.output, moving.encode(made.images, format))
        else:
            images.save(made.sheet(self.columns), self.output)
        typer.echo(self.output)


@dataclass(frozen=True)
class Single:
    """An operation on an image that makes another."""

    source: Path
    output: Path
    beside: Mapping[str, Path] = field(default_factory=dict)
    quality: int | None = None

    def run(self, model: Model, operation: Operation, ability: Ability) -> None:
        pixels = images.load(self.source, keep_alpha=True, animated=False)
        inputs: dict[str, Any] = {"image": pixels}
        for name, path in self.beside.items():
            inputs[name] = images.load(path, keep_alpha=True, animated=False)
        operation.check(inputs)
        format = images.WRITABLE_SUFFIXES.get(self.output.suffix.lower())
        if format and operation.gives is Kind.PICTURE:
            height, width = (ability.scale * side for side in pixels.shape[:2])
            images.refuse_sides(format, width, height)
        if format and isinstance(operation, AnySize):
            # what it cannot hold is refused now
            images.encode(operation.pixel(ability, inputs), format, self.quality)
        tell_tile(operation, ability, max(pixels.shape[:2]))
        engine = model.engine()
        with ExitStack() as stack:
            meters: list[Meter] = []

            def progress(done: int, count: int) -> None:
                if count > 1 and not meters:  # a large image, in tiles
                    meters.append(stack.enter_context(Meter(f"{self.source.name}, tiles", count)))
                for meter in meters:
                    meter.update(done, {})

            made: Pictures | Values = engine(operation, progress=progress, **inputs)
        self.output.parent.mkdir(parents=True, exist_ok=True)
        profile = images.profile(self.source.read_bytes())
        images.save(made.only(), self.output, self.quality, profile)
        typer.echo(self.output)


def tell_seed(operation: Operation, seeds: Sequence[int]) -> None:
    """The seed with which the same will come again, where it was drawn at random."""
    named = operation.option("seeds")
    if seeds and not named and operation.option("seed", 0) in (-1, None):
        say(f"drawn at random: --seed {seeds[0]}")


def tell_tile(operation: Operation, ability: Ability, longest: float = math.inf) -> None:
    """Where tiles are not as asked for, since a model could not work in them.

    longest: side of the images, pixels
    """
    tile = getattr(operation, "tile", "auto")
    if isinstance(tile, int) and 0 < tile < longest:
        from genimg.tiled import fitting_tile  # with which PyTorch comes

        side = fitting_tile(tile, ability.margin, ability.stride)
        if side != tile:
            say(
                f"--tile {tile}: tiles of {side} pixels are used, the next that this model works in"
            )


@dataclass(frozen=True)
class Many:
    """An operation on images, or one that draws them, each with a result of its own."""

    asked: Asked
    form: Form
    sources: tuple[Source, ...]
    items: Sequence[Item]
    count: int
    rows: int  # things in a chunk
    format: Written = "png"

    def run(self, model: Model, operation: Operation, ability: Ability) -> None:
        def here(job: Job) -> Maker:
            from jobs.offline.by_engine import ByEngine  # which imports PyTorch

            return ByEngine(job, model.engine(job.precision))

        tell_tile(operation, ability)
        address = address_of(model.name, model.registry)
        self.do(operation, address, here, digest_of(model.folder), model.precision)

    def do(
        self,
        operation: Operation,
        model: str,
        here: Callable[[Job], Maker],
        digest: str = "",
        precision: str = "auto",
    ) -> None:
        """All of it, or what is left of it. here: what makes results, where there are no workers.

        model, digest, precision: as in Job
        """
        asked = self.asked
        output = self._folder()
        job = Job(
            operation=operation.name,
            options=operation.model_dump(),
            model=model,
            digest=digest,
            precision=precision,
            sources=self.sources,
            output=everywhere(output),
            form=self.form,
            rows=self.rows,
            beside={name: everywhere(place) for name, place in asked.beside.items()},
            format=self.format,
            save_quality=asked.save_quality,
        )
        try:
            given = job.options.get("seed")
            job = claim(job, asked.overwrite)
            if given == -1:
                say(f"drawn at random: --seed {job.options['seed']}")
            failed = perform(job, self.items, self.count, here=here, workers=asked.workers)
            written = self.form != "lines" or self._write(job, bool(failed))
            release(job, failed)
        except KeyboardInterrupt:
            if asked.output is not None:
                say("interrupted; the same command goes on from there")
            raise
        finally:
            if asked.output is None:
                open_storage(str(Path(output).parent)).delete(Path(output).name)
        tell(failed, f"{output}/{FAILURES}" if failed and asked.output else "")
        if asked.output is not None and self.form == "lines" and not failed:
            folder, name = split(everywhere(output))
            open_storage(folder).delete(name)
        if asked.output is not None and written:
            done = f": {self.count - len(failed):,} images" if not self.items else ""
            typer.echo(f"{asked.output}{done}")
        if failed:
            raise typer.Exit(1)

    def _folder(self) -> str:
        """Where results, or parts of them, are written."""
        import tempfile

        if self.form != "lines":
            assert self.asked.output is not None, "pictures are written"
            return self.asked.output.rstrip("/")
        if self.asked.output is None:
            return str(Path(tempfile.gettempdir(), f"genimg-{uuid4().hex}"))
        return f"{self.asked.output}.parts"

    def _write(self, job: Job, failed: bool) -> bool:
        """What was told, as one file, or printed; whether it was."""
        output, name = self.asked.output, job.operation
        if failed and output is not None and output.endswith(".npy"):
            say(f"{output} is not written: its rows would be of other images; .jsonl names them")
            return False
        told = heard(lines_of(job, self.items))
        if output is None:
            typer.echo(as_text(told, name, ".json"), nl=False)
            return True
        suffix = Path(output).suffix
        data = as_array(told, name) if suffix == ".npy" else as_text(told, name, suffix).encode()
        folder, file = split(everywhere(output))
        open_storage(folder).write(file, data)
        return True


def has_latents(operation: Operation, source: Path) -> bool:
    """Whether a file that an operation takes is one of latents."""
    kinds = operation.takes.values()
    told = source.suffix.lower() in (*TOLD, ".npy")
    return Kind.LATENTS in kinds and (told or Kind.PICTURE not in kinds)
