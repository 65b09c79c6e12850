"""`genimg compose`: images made of others, with what is known of them, as data to train on."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.console import Meter, refuse_blocked, run, say

if TYPE_CHECKING:
    from genimg.composition import Composed, Composer


def compose(
    scene: Annotated[
        Path | None, typer.Argument(help="A scene in JSON: a background, and layers on it.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", help="An image; or a folder or s3:// prefix, with masks and boxes."
        ),
    ] = None,
    count: Annotated[int, typer.Option("-n", min=1, help="How many images.")] = 1,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=2**63 - 1, help="Decides, with an image's number, what is left to chance."
        ),
    ] = 0,
    keys: Annotated[bool, typer.Option("--keys", help="Print what a scene can have.")] = False,
) -> None:
    """Compose images of layers: cut-outs, textures on quadrilaterals, meshes and solids.

    A folder gets what a training takes: images/ and, of layers that have labels, masks/ of equal
    names, annotations.json, captions.jsonl and classes.txt. What cannot be composed is listed, and
    the rest done. Paths in a scene are relative to its file.

    Example: genimg compose scene.json -n 1000 -o composed
    """
    if keys:
        print_keys()
        return

    from genimg import images
    from genimg.composition import Composer, read_scene
    from genimg.errors import InputError

    if scene is None or output is None:
        raise InputError(
            f"{'SCENE' if scene is None else '-o'} is missing: genimg compose scene.json -o out.png"
            " (--keys tells what a scene can have)"
        )
    file = Path(output)
    if not is_image(output):
        write_all(Composer(read_scene(scene), scene.parent), output, count, seed)
        return
    images.format_of(file)
    refuse_blocked(file.parent)
    if count > 1:
        raise InputError(f"-o {output}: is one image; give a folder for {count:,}")
    composer = Composer(read_scene(scene), scene.parent)
    made = composed(composer, seed, 0)
    file.parent.mkdir(parents=True, exist_ok=True)
    images.save(made.image, file)
    typer.echo(f"{output}: {made.caption}" if composer.scene.captioned else output)


def is_image(output: str) -> bool:
    """Whether a path is one of an image, and not of a folder or prefix."""
    from genimg import images
    from genimg.data.remote import is_remote

    suffix = Path(output).suffix.lower()
    named = bool(suffix) and not is_remote(output) and not Path(output).is_dir()
    return named or suffix in images.WRITABLE_SUFFIXES


def composed(composer: "Composer", seed: int, number: int) -> "Composed":
    """The image of a number, whatever others are composed."""
    import torch

    from genimg.rng import fold

    return composer(fold(seed, torch.tensor([number])))


def write_all(composer: "Composer", output: str, count: int, seed: int) -> None:
    """Compose images into a folder or prefix that has nothing yet, with what is known of them."""
    from cluster.places import open_storage
    from genimg import images, masks
    from genimg.data.listing import PAIRS
    from genimg.data.remote import is_remote
    from genimg.errors import InputError
    from jobs.offline.making import in_a_line
    from jobs.offline.record import FAILURES, write_failures
    from jobs.offline.told import tell

    if not is_remote(output):
        refuse_blocked(Path(output))
    storage = open_storage(output)
    if storage.list(""):
        raise InputError(f"-o {output}: there are files already; empty it, or give another folder")
    of_images, of_masks = PAIRS["mask"]
    told = Told(composer)
    failed: list[list[str]] = []
    stopped = False

    def write(number: int) -> None:
        name = f"{number:06d}.png"
        try:
            made = composed(composer, seed, number)
        except InputError as error:
            failed.append([name, in_a_line(error)])
            return
        try:
            storage.write(f"{of_images}/{name}", images.encode(made.image))
            if composer.classes:
                storage.write(f"{of_masks}/{name}", masks.encode(made.mask[..., None]))
            told.add(made, number, name)
        except KeyboardInterrupt:  # there may be a half of it
            for folder in (of_images, of_masks):
                storage.delete(f"{folder}/{name}")
            raise

    try:
        with Meter("compose", count) as meter:
            for number in range(count):
                write(number)
                meter.update(number + 1, {"failed": len(failed)} if failed else {})
    except KeyboardInterrupt:
        stopped = True
    for note, text in told.notes().items():
        storage.write(note, text.encode())
    if failed:
        write_failures(storage, failed)
    tell(failed, f"{output}/{FAILURES}" if failed else "")
    typer.echo(f"{output}: {len(told.images):,} images")
    if stopped:
        say(f"interrupted: these are whole, the other {count - len(told.images):,} are missing")
        raise KeyboardInterrupt
    if failed:
        raise typer.Exit(1)


class Told:
    """What is known of images that were composed."""

    def __init__(self, composer: "Composer") -> None:
        self.composer = composer
        self.images: list[dict[str, Any]] = []
        self.things: list[dict[str, Any]] = []
        self.captions: list[dict[str, str]] = []

    def add(self, made: "Composed", number: int, name: str) -> None:
        height, width = made.mask.shape
        self.images.append({"id": number, "file_name": name, "width": width, "height": height})
        self.things += annotations(made, number, len(self.things) + 1)
        self.captions.append({"file_name": name, "text": made.caption})

    def notes(self) -> dict[str, str]:
        """{name of a file: what it holds}."""
        from genimg.composition.layer import BACKGROUND
        from genimg.data.archives import ANNOTATIONS, CAPTIONS, CLASSES

        names, found = self.composer.classes, {}
        if names:
            kinds = [{"id": n, "name": name} for n, name in enumerate(names, start=1)]
            coco = {"images": self.images, "annotations": self.things, "categories": kinds}
            found[f"{ANNOTATIONS}.json"] = json.dumps(coco)
            found[CLASSES] = "\n".join([BACKGROUND, *names, ""])
        if self.composer.scene.captioned:
            found[CAPTIONS] = "".join(json.dumps(line) + "\n" for line in self.captions)
        return found


def annotations(made: "Composed", image: int, first: int) -> list[dict[str, Any]]:
    """What is seen in an image, in COCO's format; numbered from `first`, at least 1: to COCO's own
    program 0 stands for none."""
    told = []
    for number, thing in enumerate(made.things, start=first):
        x0, y0, x1, y1 = thing.box
        told.append(
            {
                "id": number, "image_id": image, "category_id": thing.label, "iscrowd": 0,
                "bbox": [x0, y0, x1 - x0, y1 - y0], "area": thing.area,
            }
        )  # fmt: skip
    return told


def print_keys() -> None:
    """Every key of a scene, its layers and pictures, with defaults, limits and meaning."""
    from rich import box, print
    from rich.markup import escape
    from rich.table import Table

    from genimg.composition import KINDS, PICTURES, Layer, Scene
    from genimg.section import Section, allowed
    from jobs.recipes import as_override

    every = {"kind", *Layer.model_fields}
    tables: dict[str, tuple[type[Section], set[str]]] = {
        "a scene": (Scene, set()), "every layer": (Layer, set())
    }  # fmt: skip
    tables |= {f"a layer of kind {kind}": (each, every) for kind, each in KINDS.items()}
    tables |= {f"a picture of kind {kind}": (each, {"kind"}) for kind, each in PICTURES.items()}
    for title, (section, but) in tables.items():
        table = Table(box=box.SIMPLE, header_style="bold", pad_edge=False)
        for column in ("key", "default", "takes", "meaning"):
            table.add_column(column, no_wrap=column == "key")
        for key, field in section.model_fields.items():
            if key not in but:
                default = "" if field.is_required() else as_override(field.get_default())
                about = " ".join((field.description or "").split())
                table.add_row(key, escape(default), escape(allowed(field)), escape(about))
        kind = section.model_fields.get("kind")
        print(f"[bold]{title}[/]{f': {kind.description}' if kind else ''}")
        print(table)


if __name__ == "__main__":
    run(compose)
