"""The part of the demo that mends a photograph, with the models that come with genimg."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jobs.console import say

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from jobs.pages import Section

CORNER, SIDE = (30, 130), 256  # of the part of the photograph that is shown


def photograph_section(output: Path) -> Section:
    """Damaged in four ways, and mended by a command each; skipped where there is no photograph."""
    from jobs.pages import Section

    section = Section("A photograph: the models that come with genimg")
    try:
        from skimage.data import astronaut
    except ImportError:
        section.text("scikit-image, whose photograph it is, is not here; pip install scikit-image.")
        return section
    import torch

    from genimg import images
    from genimg.metrics.fidelity import psnr
    from genimg.pixels import grid, to_bytes_range, to_tensor

    folder = output / "photograph"
    folder.mkdir(exist_ok=True)
    (top, left), rows, gained = CORNER, [], {}
    photograph = astronaut()[top : top + SIDE, left : left + SIDE]
    clean = to_tensor(photograph[None].copy())
    truth = to_bytes_range(clean)
    for verb, damaged, mask in cases(clean):
        given, made = folder / f"{verb}-given.png", folder / f"{verb}-made.png"
        images.save(pixels_of(damaged), given)
        options = {"--scale": "4"} if verb == "upscale" else {}
        if mask is not None:
            images.save(pixels_of(mask * 2 - 1), folder / "mask.png")
            options["--mask"] = str(folder / "mask.png")
        section.command(restore(verb, given, made, options, output))
        mended = to_tensor(images.load(made)[None])
        shown = torch.nn.functional.interpolate(damaged, SIDE, mode="bicubic").clamp(-1, 1)
        rows += [clean, shown, mended]
        for when, each in (("before", shown), ("after", mended)):
            gained[f"{verb}: PSNR {when}, dB"] = psnr(to_bytes_range(each), truth).item()
    strip = images.encode(grid(torch.cat(rows), 3))
    images.write(output / "photograph.png", strip)
    section.picture(strip, "as it was; noisy, saved as JPEG, with a hole, small; mended")
    section.figures(gained)
    return section


def cases(clean: Tensor) -> list[tuple[str, Tensor, Tensor | None]]:
    """(verb, images [1, C, H, W] damaged, mask [1, 1, H, W]) of the clean images."""
    import torch

    from genimg.degradations.holes import Holes
    from genimg.degradations.jpeg import JPEG
    from genimg.degradations.noise import Noise
    from genimg.degradations.resampling import Shrink

    key = torch.tensor([1])
    holes = Holes(of=("strokes",), low=0.1, high=0.1).damage(clean, key)
    return [
        ("denoise", Noise(low=25, high=25, quantise=True).damage(clean, key).images, None),
        ("deblock", JPEG(low=10, high=10, exact=True).damage(clean, key).images, None),
        ("inpaint", holes.images, holes.tells["mask"].view(1, 1, *clean.shape[2:]).float()),
        ("upscale", Shrink(scale=4).damage(clean, key).images, None),
    ]


def restore(verb: str, given: Path, made: Path, options: dict[str, str], output: Path) -> str:
    """Do what a verb does without a model being named; the line that a person would write."""
    from genimg.operations import OPERATIONS
    from jobs.operate import perform

    line = f"genimg {verb} {given.name} -o {made.name}"
    line += "".join(f" {key} {Path(value).name}" for key, value in options.items())
    say(f"$ {line}")
    perform(
        OPERATIONS[verb],
        {"scale": options["--scale"]} if "--scale" in options else {},
        None,
        str(made),
        "auto",
        str(output / "registry"),
        [str(given)],
        {"mask": options.get("--mask")},
    )
    return line


def pixels_of(images: Tensor) -> np.ndarray:
    """uint8 [H, W, C] of one image [1, C, H, W] in [-1, 1]."""
    from genimg.pixels import to_bytes_range

    return to_bytes_range(images)[0].permute(1, 2, 0).contiguous().numpy()
