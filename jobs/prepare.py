"""`genimg prepare`: images in any form become Parquet shards, which training then streams."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.console import Meter, run, say

if TYPE_CHECKING:
    from jobs.shards.folder import Outcome


def prepare(
    source: Annotated[
        str, typer.Argument(help="Folder of images, archive, IDX folder, .npz; or s3://.")
    ],
    dest: Annotated[str, typer.Argument(help="Folder for the shards, or s3://BUCKET/PREFIX.")],
    size: Annotated[
        int | None, typer.Option(help="Side of a square, pixels. Left out: images as they are.")
    ] = None,
    fit: Annotated[
        str, typer.Option(help="resize (and crop the centre) or pad (with black), with --size.")
    ] = "resize",
    format: Annotated[
        str,
        typer.Option(
            help="keep (the bytes of files that need no resizing, else PNG), png, jpeg, webp."
        ),
    ] = "keep",
    quality: Annotated[int | None, typer.Option(help="1 to 100, of jpeg and webp.")] = None,
    shard_rows: Annotated[int, typer.Option(help="Images in a shard.")] = 10_000,
    split: Annotated[str, typer.Option(help="train, test, or all, of a divided source.")] = "all",
    columns: Annotated[
        str | None,
        typer.Option(help="What to write, as image,mask,text. Left out: all that there is."),
    ] = None,
    tolerate_broken: Annotated[
        int, typer.Option(help="Unreadable images that may be left out; each is named.")
    ] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace other shards in the folder.")] = False,
) -> None:
    """Turn images, and what is beside them, into Parquet shards, on all CPUs of the cluster.

    Rows are shuffled. A source that is divided gives folders train and test. Interrupted, the same
    command goes on where it was. On a cluster of several machines both must be on S3 or a shared
    file system. A compressed tar is unpacked once a machine, beneath GENIMG_CACHE
    (~/.cache/genimg).

    Example: genimg prepare photos.zip shards --size 64 --format jpeg --quality 95
    """
    from cluster.places import everywhere
    from genimg.errors import InputError
    from jobs.shards.folder import claim, outcome_of
    from jobs.shards.plan import make_plan

    if tolerate_broken < 0:
        raise InputError(f"--tolerate-broken {tolerate_broken}: at least 0")
    plan, sources = make_plan(
        source,
        split=split,
        size=size,
        fit=fit,
        format=format,
        quality=quality,
        shard_rows=shard_rows,
        columns=columns,
    )
    folder = everywhere(dest).rstrip("/") or "/"
    claim(folder, plan, overwrite)

    found = {shard: outcome_of(shard) for shard in plan.shards(folder)}
    outcomes = [outcome for outcome in found.values() if outcome]
    missing = [shard for shard, outcome in found.items() if outcome is None]
    if outcomes:
        say(f"{len(outcomes)} of {len(found)} shards are there already")
    with Meter("prepare", sum(plan.counts.values())) as meter:
        refuse_broken(outcomes, tolerate_broken)
        if missing:
            from jobs.shards.on_data import write_on_ray

            with closing(write_on_ray(plan, sources, missing, tolerate_broken)) as written:
                for outcome in written:
                    outcomes.append(outcome)
                    refuse_broken(outcomes, tolerate_broken)
                    done = sum(o.images + len(o.broken) for o in outcomes)
                    meter.update(done, {"shards": len(outcomes)})

    broken = [name for outcome in outcomes for name in outcome.broken]
    for name in broken:
        say(f"left out: {name}")
    count, size_in_all = sum(o.images for o in outcomes), sum(o.bytes for o in outcomes)
    typer.echo(
        f"{dest}: {count:,} images, {len(outcomes):,} shards, {size_in_all:,} bytes,"
        f" {len(broken)} broken"
    )


def refuse_broken(outcomes: list[Outcome], tolerated: int) -> None:
    """Raise InputError where more images are broken than are tolerated."""
    from genimg.errors import InputError

    broken = [name for outcome in outcomes for name in outcome.broken]
    if len(broken) > tolerated:
        listed = "; ".join(broken[:3]) + ("; …" if len(broken) > 3 else "")
        raise InputError(
            f"--tolerate-broken {tolerated}: more than that cannot be read ({listed}); repair or"
            " remove them, or tolerate more"
        )


if __name__ == "__main__":
    run(prepare)
