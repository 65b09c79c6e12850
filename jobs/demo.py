"""`genimg demo`: the life of two models on embedded data, ending in a one-page report."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.console import run, say

if TYPE_CHECKING:
    from cluster.versions import Version
    from jobs.pages import Section

# Chosen so that all of it takes less than six minutes on two cores. Most of the generator's time
# goes into one training: simple scenes become shapes in it, full ones only coloured blobs.
GENERATOR = [
    "data.scenes=simple", "train.images=72000", "train.batch_size=32", "train.lr=2e-3",
    "train.checkpoint_every=36000", "train.ema_half_life=5000", "loss.r1=0.3", "loss.beta1=0",
    "model.latent=32", "model.width=16", "model.depth=0", "model.upsampling=bilinear",
    "evaluation.samples=1024",
]  # fmt: skip
DENOISER = [
    "train.images=9000", "train.batch_size=16", "train.checkpoint_every=4500", "model.width=48",
    "model.blocks=4", "evaluation.sigmas=[25]",
]  # fmt: skip
SEARCH = ["train.lr=loguniform(1e-3,3e-3)", "loss.r1=loguniform(0.1,1)"]
SHORT = ["train.images=9000", "train.checkpoint_every=3000"]  # of the trials
TRIALS = 4
SIGMA = 25.0


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to leave.")] = Path(
        "runs/demo"
    ),
    workers: Annotated[int, typer.Option(min=1, help="Workers of each training.")] = 2,
) -> None:
    """Search, train, register, promote and serve a generator and a denoiser.

    On procedural scenes, so nothing needs to be downloaded; a photograph is mended, digits and
    what texts say are drawn, and clips gone on with, by the models that come with genimg. Leaves
    sample grids, before/after pictures, the picture of the search and report.html in the output
    folder.

    Example: genimg demo -o runs/demo --workers 2
    """
    from cluster.local import connect

    started = time.monotonic()
    make_room(output)
    with connect(dashboard=True):
        run_search(output)
        run_trainings(output, workers)

    from jobs import pages
    from jobs.demos.drawn import drawn_sections
    from jobs.demos.photograph import photograph_section
    from jobs.demos.service import service_section

    sections = [
        photograph_section(output),
        *drawn_sections(output),
        search_section(output),
        generator_section(output),
        denoiser_section(output),
        service_section(output),
    ]
    path = output / "report.html"
    pages.write(path, "genimg demo", sections)
    say(f"done in {time.monotonic() - started:.0f} s; look at {path}")
    typer.echo(path)


def make_room(output: Path) -> None:
    """An output folder without what an earlier demo left; InputError where it is another's."""
    from genimg.errors import InputError

    mark = output / ".genimg-demo"
    for part in (output / "runs", output / "registry"):
        if part.exists() and not mark.exists():
            raise InputError(f"-o {output}: holds {part.name}, not of a demo; give a new folder")
        shutil.rmtree(part, ignore_errors=True)
    output.mkdir(parents=True, exist_ok=True)
    mark.touch()


def run_search(output: Path) -> None:
    """A short sweep over the generator; its best trial registered and promoted."""
    from jobs.models import promote
    from jobs.tune import tune

    ranges = " ".join(f"'{each}'" for each in SEARCH)
    say(f"$ genimg tune dcgan {ranges} ... --trials {TRIALS} --run search --register figures")
    tune(
        "dcgan",
        [*GENERATOR, *SHORT, *SEARCH],
        data="scenes",
        trials=TRIALS,
        scheduler="asha",
        searcher="optuna",
        name="search",
        storage=str(output / "runs"),
        register="figures",
        registry=str(output / "registry"),
    )
    say("$ genimg models promote figures best")
    promote("figures", "best", registry=str(output / "registry"))


def run_trainings(output: Path, workers: int) -> None:
    """The generator with the values that the search found, and the denoiser."""
    from cluster.gates import GateFailed
    from jobs.models import promote
    from jobs.sweeps.space import override_of
    from jobs.train import train

    registry = str(output / "registry")
    found = best_version(output, "figures").lineage["sweep"]["values"]
    values = [override_of(key, value) for key, value in found.items()]
    for recipe, overrides, model, better in (
        ("dcgan", [*GENERATOR, *values], "figures", "swd:min"),
        ("ffdnet", DENOISER, "denoiser", None),
    ):
        say(
            f"$ genimg train {recipe} {' '.join(overrides)} --data scenes --run {model} "
            f"--workers {workers} --register {model}"
        )
        train(
            recipe,
            overrides,
            data="scenes",
            name=model,
            workers=str(workers),
            storage=str(output / "runs"),
            register=model,
            registry=registry,
        )
        say(f"$ genimg models promote {model} best" + (f" --better {better}" if better else ""))
        try:
            promote(model, "best", better=better, registry=registry)
        except GateFailed as failed:  # the search's own best stays
            say(str(failed))


def search_section(output: Path) -> Section:
    """What was searched, as a picture."""
    from jobs.pages import Section

    section = Section("A search: Ray Tune, ASHA and Optuna")
    section.command(
        f"genimg tune dcgan {' '.join(repr(each) for each in SEARCH)} --trials {TRIALS} "
        "--scheduler asha --searcher optuna --run search --register figures"
    )
    picture = (output / "runs" / "search" / "sweep.png").read_bytes()
    section.picture(picture, "gray: stopped early by ASHA; orange: the best, registered")
    return section


def generator_section(output: Path) -> Section:
    """Samples of the generator, beside real scenes."""
    from genimg import images
    from genimg.data.scenes import Scenes
    from genimg.engine import Engine
    from genimg.inference import real_images
    from genimg.operations.drawing import Sample
    from genimg.pixels import grid, to_tensor

    section, folder, version = open_section(
        output, "figures", "A generator: dcgan, as the search found"
    )
    drawn = output / "samples.png"
    made = to_tensor(Engine.load(folder, verified=True)(Sample(n=64, seed=0)).images)
    images.save(grid(made, 8), drawn)
    real = grid(real_images(Scenes(32, 3, simple=True), range(64)).float() / 127.5 - 1, 8)
    section.command("genimg sample figures@best -n 64 --seed 0 -o samples.png")
    section.picture(drawn.read_bytes(), "64 samples, seeds 0 to 63, after two minutes of training")
    section.picture(images.encode(real), "what it learned from: simple procedural scenes")
    add_figures(section, output, "figures", version)
    return section


def denoiser_section(output: Path) -> Section:
    """A scene that the denoiser never saw: clean, noisy, restored."""
    import torch

    from genimg import images, rng
    from genimg.data.scenes import Scenes
    from genimg.degradations.noise import gaussian_noise
    from genimg.engine import Engine
    from genimg.metrics.fidelity import psnr
    from genimg.operations.restoring import Denoise
    from genimg.pixels import grid, to_bytes_range

    section, folder, version = open_section(output, "denoiser", "A restorer: ffdnet")
    clean = Scenes(256, 3, seed=1).whole(3)["image"][None]
    key = rng.fold(0, torch.arange(1))
    noisy = gaussian_noise(clean.float() / 127.5 - 1, key, torch.tensor([SIGMA]))
    given = to_bytes_range(noisy)
    images.save(given[0].permute(1, 2, 0).numpy(), output / "noisy.png")
    restored = torch.from_numpy(
        Engine.load(folder, verified=True)(
            Denoise(), image=given[0].permute(1, 2, 0).contiguous().numpy()
        ).images
    ).permute(0, 3, 1, 2)
    images.save(restored[0].permute(1, 2, 0).contiguous().numpy(), output / "restored.png")
    row = grid(torch.cat([clean, given, restored]).float() / 127.5 - 1, 3)
    images.save(row, output / "before-after.png")
    section.command("genimg restore noisy.png -o restored.png -m denoiser@best")
    caption = f"clean, with noise of sigma {SIGMA:g}, restored (the noise level is estimated)"
    section.picture(images.encode(row), caption)
    section.figures({
        "PSNR of the noisy image, dB": psnr(given, clean).item(),
        "PSNR of the restored image, dB": psnr(restored, clean).item(),
    })  # fmt: skip
    add_figures(section, output, "denoiser", version)
    return section


def open_section(output: Path, model: str, title: str) -> tuple[Section, Path, Version]:
    from cluster.places import open_storage
    from cluster.registry import Registry
    from jobs.pages import Section

    version = best_version(output, model)
    registry = Registry(open_storage(str(output / "registry")))
    return Section(title), registry.fetch(version), version


def best_version(output: Path, model: str) -> Version:
    from cluster.places import open_storage
    from cluster.registry import Registry

    return Registry(open_storage(str(output / "registry"))).resolve(f"{model}@best")


def add_figures(section: Section, output: Path, model: str, version: Version) -> None:
    """What was measured: the curve of the objective, and the metrics of the version."""
    from genimg import recipes
    from jobs.runs.folder import RunFolder

    run_folder = RunFolder(str(output / "runs"), model)
    metric, _ = recipes.named(version.lineage["recipe"]).chosen_by
    section.curve([(seen, values[metric]) for seen, values in run_folder.history()], metric)
    section.figures({"model version": version.reference, **version.metrics})


if __name__ == "__main__":
    run(demo)
