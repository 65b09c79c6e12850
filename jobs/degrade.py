"""`genimg degrade`: damages images as a recipe's degradations do, to make material for tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.console import Meter, refuse_blocked, run

if TYPE_CHECKING:
    from torch import Tensor

    from genimg.degradations import Damage


def degrade(
    sources: Annotated[list[str], typer.Argument(help="Images, folders or s3:// prefixes.")],
    degradations: Annotated[
        str, typer.Option(help="A list in YAML, as recipes have it: '[{kind: noise, high: 25}]'.")
    ],
    output: Annotated[str, typer.Option("-o", "--output", help="A folder or s3:// prefix.")],
    masks: Annotated[
        str | None, typer.Option(help="A folder or prefix for masks of what is missing (holes).")
    ] = None,
    seed: Annotated[
        int,
        typer.Option(min=0, max=2**63 - 1, help="Decides the damage, with the image's place."),
    ] = 0,
) -> None:
    """Damage images: noise, blur, JPEG, shrinking, holes, light, gray, in the order of the list.

    Every image becomes a PNG of its name, of 8 bits and without alpha, in the colours of its ICC
    profile; what cannot be read is listed, and the rest done. With `exact: true` JPEG is that of
    libjpeg itself.

    Example: genimg degrade photos -o noisy --degradations '[{kind: noise, low: 25, high: 25}]'
    """
    import torch

    from cluster.places import open_storage, settled
    from genimg.data.remote import is_remote
    from genimg.degradations.holes import Holes
    from genimg.errors import InputError
    from genimg.rng import fold
    from jobs.offline.inputs import (
        bytes_at,
        is_image,
        listed,
        refuse_among_sources,
        refuse_same_names,
    )
    from jobs.offline.job import key_of
    from jobs.offline.making import in_a_line
    from jobs.offline.record import FAILURES, write_failures
    from jobs.offline.told import tell

    every = list_of(degradations)
    if masks is not None and not any(isinstance(each, Holes) for each in every):
        raise InputError(f"--masks {masks}: nothing of the list makes holes")
    for place in filter(None, (output, masks)):
        if is_image(place):
            raise InputError(f"{place}: a folder is wanted, for the images keep their names")
        if not is_remote(place):
            refuse_blocked(Path(place))
    places, items = listed(sources)
    for place in filter(None, (output, masks)):
        refuse_same_names(places, items, place)
        refuse_among_sources(places, items, place)
    if masks and settled(masks) == settled(output):
        raise InputError(f"--masks {masks}: is -o too, and masks have the images' names")
    made, holes = open_storage(output), open_storage(masks) if masks else None
    failed: list[list[str]] = []
    with Meter("degrade", len(items)) as meter:
        for number, (source, name) in enumerate(items):
            key = fold(seed, torch.tensor([number]))
            try:
                data = bytes_at(places[source].place, name)
                image, mask = damaged(every, data, key)
            except (InputError, OSError) as error:
                failed.append([places[source].told(name), in_a_line(error)])
            else:
                made.write(key_of((source, name)), image)
                if holes is not None:
                    holes.write(key_of((source, name)), mask)
            meter.update(number + 1, {"failed": len(failed)} if failed else {})
    write_failures(made, failed)
    tell(failed, f"{output}/{FAILURES}" if failed else "")
    typer.echo(f"{output}: {len(items) - len(failed):,} images")
    if failed:
        raise typer.Exit(1)


def list_of(text: str) -> "tuple[Damage, ...]":
    """Degradations of a list in YAML. Raises InputError."""
    from genimg.degradations import Degradation
    from genimg.errors import InputError
    from genimg.section import Section, parse_value

    class Given(Section):
        degradations: tuple[Degradation, ...]

    value = parse_value("--degradations", text)
    if not isinstance(value, list) or not value:
        raise InputError(f"--degradations {text!r}: give a list, as '[{{kind: noise, high: 25}}]'")
    return Given.validated({"degradations": value}).degradations


def damaged(every: "Sequence[Damage]", data: bytes, key: "Tensor") -> tuple[bytes, bytes]:
    """(an image damaged, the mask of what is missing or nothing) of an image file, as PNG."""
    from genimg import images
    from genimg.degradations import degrade
    from genimg.pixels import to_bytes_range, to_tensor

    made = degrade(every, to_tensor(images.decode(data, animated=False))[None], key)

    def encoded(pixels: "Tensor", profile: bytes | None = None) -> bytes:
        array = to_bytes_range(pixels)[0].permute(1, 2, 0).numpy()
        return images.encode(array, profile=profile)

    mask = encoded(made.tells["mask"] * 2 - 1) if "mask" in made.tells else b""
    return encoded(made.images, images.profile(data)), mask


if __name__ == "__main__":
    run(degrade)
