"""A restorer judged image by image, beside what classical methods make of the same images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genimg.contracts import Dataset
from genimg.degradations import Damage, Damaged
from genimg.inference import Inference
from genimg.metrics import baselines
from genimg.recipes.restoring import Restoring, Scores, pair_of
from genimg.sheets import Shown, extremes, per_image, sheet

EXTREMES = 3  # of the worst images that are shown, and of the best

Method = Callable[[Damaged], Tensor]  # -> uint8 [N, C, H, W]


@dataclass(frozen=True)
class Report:
    """A restorer's scores by who restored: `model`, `damaged` (nobody), and classical methods.

    names: of the images
    left_out: methods that this installation lacks something for
    """

    scores: dict[str, Scores]
    names: list[str]
    left_out: list[str]

    def means(self) -> dict[str, dict[str, float]]:
        """By who restored, by metric; only what that one can undo."""
        return {who: each.means() for who, each in self.scores.items()}

    def csv(self) -> str:
        """Values of each image, by its name."""
        columns = {
            f"{name}{'' if who == 'model' else '_' + who}": each.values[:, place].tolist()
            for who, each in self.scores.items()
            for place, name in enumerate(each.names)
            if not each.values[:, place].isnan().all()
        }
        return per_image(self.names, columns)


def report(
    recipe: Restoring, inference: Inference, data: Dataset, classical: bool = False
) -> Report:
    """classical: also by those of genimg.metrics.baselines that can be computed here."""
    found = {
        "model": recipe.measure(inference, data),
        "damaged": recipe.measure(inference, data, recipe.nothing),
    }
    methods = sorted({name for every in recipe.tests().values() for name in methods_for(every)})
    left_out = [name for name in methods if classical and not baselines.is_here(name)]
    for name in sorted(set(methods) - set(left_out)) if classical else ():

        def undo(every: Sequence[Damage], made: Damaged, name: str = name) -> Tensor | None:
            return methods_for(every)[name](made) if name in methods_for(every) else None

        found[name] = recipe.measure(inference, data, undo)
    names = [data.name(index) for index in found["model"].indices.tolist()]
    return Report(found, names, left_out)


def methods_for(every: Sequence[Damage]) -> dict[str, Method]:
    """Classical methods that undo such damage, which one degradation makes."""
    kinds = [getattr(each, "kind", "") for each in every]
    if kinds == ["noise"]:
        return {
            "non_local_means": one_by_one(baselines.non_local_means, "sigma"),
            "bm3d": one_by_one(baselines.bm3d, "sigma"),
        }
    if kinds == ["holes"]:
        return {
            "linear": one_by_one(baselines.linear, "mask"),
            "biharmonic": one_by_one(baselines.biharmonic, "mask"),
        }
    return {}


def one_by_one(method: Callable[..., np.ndarray], told: str) -> Method:
    """A method on one image and what is told of its damage, for several."""

    def undo(damaged: Damaged) -> Tensor:
        pixels = damaged.images.add(1).mul(127.5).permute(0, 2, 3, 1).cpu().numpy()
        made = []
        for image, tell in zip(pixels, damaged.tells[told].cpu(), strict=True):
            if told == "mask":
                made.append(
                    method(image.round().clip(0, 255).astype(np.uint8), tell[0].numpy() > 0)
                )
            else:
                made.append(method(image, float(tell)))
        return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).to(damaged.images.device)

    return undo


def sheet_of(recipe: Restoring, inference: Inference, data: Dataset, scores: Scores) -> np.ndarray:
    """uint8 [H, W, 3]: the worst and the best images at the middle one of the damages."""
    tests = list(recipe.tests())
    test = tests[len(tests) // 2]
    values = scores.values[:, scores.names.index(f"psnr_{test}")]
    shown = []
    for place in extremes(values.tolist(), EXTREMES):
        index = scores.indices[place : place + 1]
        pair = pair_of([data.whole(int(index))])
        damaged, truth = recipe.damaged(inference, index, pair, test)
        made = recipe.restored(inference, damaged)
        before = recipe.nothing((), damaged)
        pictures = [each[0].permute(1, 2, 0).cpu().numpy() for each in (before, made, truth)]
        caption = f"{data.name(int(index))}, {test}: {values[place]:.2f} dB"
        shown.append(Shown(caption, *pictures))
    return sheet(shown)
