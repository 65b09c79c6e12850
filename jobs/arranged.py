"""What a verb of an operation is to read and write, or why it cannot, before any work starts."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

from cluster.places import everywhere, settled
from genimg import images
from genimg.data.remote import is_remote
from genimg.errors import InputError, nearest
from genimg.operations import DRAWN, Kind, Operation
from jobs.console import refuse_blocked
from jobs.offline.inputs import latents_in, listed, refuse_among_sources, refuse_same_names
from jobs.offline.job import Form, Source, Written, rows_for
from jobs.operated import MOVING, TOLD, Asked, Drawing, Many, Single


def prepared(operation: Operation, asked: Asked) -> Drawing | Single | Many:
    """What is to be read and written. InputError where it cannot be."""
    for name in operation.must_have():
        if name not in asked.beside:
            raise InputError(f"--{name} is missing: {operation.beside[name]}")
    if asked.workers is not None and asked.workers < 1:
        raise InputError(f"--workers {asked.workers}: at least 1, or leave it out")
    if operation.gives in DRAWN:
        return drawing(operation, asked)
    suffix = Path(asked.output or "x.json").suffix
    if operation.gives is Kind.PICTURE or (operation.shows and suffix not in TOLD):
        return restoring(operation, asked)
    for option, value in (("--format", asked.format), ("--save-quality", asked.save_quality)):
        if value is not None:
            raise InputError(f"{option} {value}: only of pictures")
    known = (*TOLD, ".npy") if operation.gives is Kind.LATENTS else TOLD
    if suffix not in known:
        raise InputError(f"-o {asked.output}: give a name that ends in one of {' '.join(known)}")
    if asked.output is None and asked.workers is not None:
        raise InputError(f"--workers {asked.workers}: name a file with -o for what they tell")
    if asked.output is not None and not is_remote(asked.output):
        refuse_blocked(Path(asked.output).parent)
        if Path(asked.output).is_dir():
            raise InputError(f"-o {asked.output}: is a folder; name a file")
    sources, items = listed(asked.sources)
    return Many(asked, "lines", sources, items, len(items), rows_for(len(items), asked.workers))


def drawing(operation: Operation, asked: Asked) -> Drawing | Many:
    """Images that are drawn: a grid, an animation, or one each."""
    output = asked.output
    assert output is not None, "it has a default"
    if asked.columns is not None and asked.columns < 1:
        raise InputError(f"--columns {asked.columns}: at least 1")
    if asked.shard_rows is not None and asked.shard_rows < 1:
        raise InputError(f"--shard-rows {asked.shard_rows}: at least 1")
    suffix, frames = Path(output).suffix, operation.gives is Kind.FRAMES
    known = dict.fromkeys([*(MOVING if frames else ()), *images.WRITABLE_SUFFIXES])
    if suffix and suffix.lower() not in known:
        kind = "an animation or an image" if frames else "an image"
        raise InputError(f"-o {output}: {suffix} is not {kind}; known: {' '.join(known)}")
    source = Path(asked.sources[0]) if asked.sources else None
    clip = Kind.FRAMES in operation.takes.values()
    there = source is None or source.is_file() or (clip and source.is_dir())
    if len(asked.sources) > 1 or not there:
        one = "one file, or one folder of frames" if clip else "one file"
        raise InputError(f"{' '.join(asked.sources)}: give {one}")
    if suffix or operation.gives is not Kind.PICTURES or Kind.PICTURE in operation.takes.values():
        for option, value in (("--workers", asked.workers), ("--shard-rows", asked.shard_rows)):
            if value is not None:
                raise InputError(f"{option} {value}: only with -o FOLDER, not one picture")
        refuse_blocked(Path(output).parent if suffix else Path(output))
        return Drawing(Path(output), asked.columns, source)
    if asked.columns is not None:
        raise InputError(f"--columns {asked.columns}: only with one picture, not with a folder")
    if not is_remote(output):
        refuse_blocked(Path(output))
    count = operation.option("n", 0) if source is None else len(latents_in(str(source)))
    form: Form = "pictures" if asked.shard_rows is None else "shards"
    latents = () if source is None else (Source(str(source), everywhere(str(source)), file=True),)
    return Many(asked, form, latents, (), count, asked.shard_rows or rows_for(count, asked.workers))


def restoring(operation: Operation, asked: Asked) -> Single | Many:
    """Image files that become image files."""
    output = asked.output
    if output is None:
        raise InputError("-o is missing; give an image, or a folder for several")
    suffix = Path(output).suffix.lower()
    single = len(asked.sources) == 1 and not is_remote(asked.sources[0])
    single = single and Path(asked.sources[0]).is_file() and not is_remote(output)
    if single and suffix and not Path(output).is_dir():
        if suffix not in images.WRITABLE_SUFFIXES:
            known = " ".join(images.WRITABLE_SUFFIXES)
            raise InputError(f"-o {output}: give a name that ends in one of {known}, or a folder")
        if operation.exact() and images.WRITABLE_SUFFIXES[suffix] == "jpeg":
            raise InputError(f"-o {output}: JPEG would change classes; write .png")
        for option, value in (("--workers", asked.workers), ("--format", asked.format)):
            if value is not None:
                raise InputError(f"{option} {value}: only with a folder or prefix of images")
        kind, quality = images.WRITABLE_SUFFIXES[suffix], asked.save_quality
        if quality is not None and kind not in ("jpeg", "webp"):
            raise InputError(f"--save-quality {quality}: {kind} is lossless; leave it out")
        refuse_blocked(Path(output).parent)
        if not asked.overwrite and settled(output) == settled(asked.sources[0]):
            raise InputError(f"-o {output}: is the image itself; name another, or --overwrite")
        for name, place in asked.beside.items():
            if not Path(place).is_file():
                raise InputError(f"--{name} {place}: no such file")
        beside = {name: Path(place) for name, place in asked.beside.items()}
        return Single(Path(asked.sources[0]), Path(output), beside, asked.save_quality)
    if suffix in images.WRITABLE_SUFFIXES:
        listed(asked.sources)  # what is not there at all is told first
        why = "there are several images" if len(asked.sources) > 1 else "the source is one"
        raise InputError(f"-o {output}: give a folder, as {why}")
    if not is_remote(output):
        refuse_blocked(Path(output))
    for name, place in asked.beside.items():
        if not (is_remote(place) or Path(place).exists()):
            raise InputError(f"--{name} {place}: no such file or folder")
    format = written(operation, asked)
    sources, items = listed(asked.sources)
    refuse_same_names(sources, items, output, format)
    refuse_among_sources(sources, items, output, format)
    rows = rows_for(len(items), asked.workers)
    return Many(asked, "pictures", sources, items, len(items), rows, format)


def written(operation: Operation, asked: Asked) -> Written:
    """The format of a folder's pictures, or InputError."""
    format, quality = asked.format or "png", asked.save_quality
    if format not in (known := get_args(Written)):
        raise InputError(f"--format {format!r}: {nearest(format, known)}")
    if quality is not None and format in ("png", "tiff"):
        raise InputError(f"--save-quality {quality}: {format} is lossless; give another --format")
    if not operation.exact():
        return cast("Written", format)
    if format == "jpeg" or quality is not None:
        raise InputError(f"--format {format}: JPEG would change classes; write png")
    return "png" if format == "same" else cast("Written", format)
