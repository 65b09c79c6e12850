"""What recipes of translators share: what they learn, what they can, and how they are judged.

By pairs (PSNR, SSIM), where there are some; by the distance of distributions always; by what a
classifier sees (FID), and a segmenter, where the recipe names them.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, Self, cast

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from genimg import rng
from genimg.contracts import UNKNOWN, Ability, Dataset, Rows
from genimg.data.columns import ready
from genimg.errors import InputError
from genimg.inference import Inference, to_floats
from genimg.judging import Seen, judged, refuse_judge, seen
from genimg.metrics.fidelity import WINDOW, finite_psnr, ssim
from genimg.metrics.segmentation import confusion, mean_iou
from genimg.metrics.sliced_wasserstein import DIRECTIONS, PATCH, sliced_wasserstein
from genimg.models.restoring import RestoringNetwork
from genimg.pixels import to_bytes_range
from genimg.recipe import Recipe
from genimg.recipes.networks import Model, network_of, refuse_single, scales_of
from genimg.recipes.recognition import named_classes
from genimg.recipes.tasks import TASKS
from genimg.section import Section

PATCHES = 16  # of each image and level, whose distributions are compared
SHOWN = 8  # images of a preview


class Evaluate(Section):
    images: int = Field(1_000, ge=1)
    """held-out images, at most"""
    judge: str | None = None
    """a classifier (NAME, NAME@ALIAS, NAME@7): checkpoints are chosen by FID on its features"""
    segmenter: str | None = None
    """a segmenter (likewise), which finds in images made of masks what these say, or does not"""


class Translator(Recipe):
    """A recipe of networks from images of a first kind to images of a second."""

    helpers: ClassVar[Mapping[str, str]] = {
        "judge": "evaluation.judge", "segmenter": "evaluation.segmenter",
    }  # fmt: skip
    objective: ClassVar[tuple[str, Literal["min", "max"]]] = ("psnr", "max")

    task: str
    """what is learnt"""
    classes: tuple[str, ...] = Field((), max_length=UNKNOWN)
    """names of the classes of masks, from 0 on, of task=masks; empty: taken from the data"""
    model: Model
    evaluation: Evaluate = Evaluate()

    @model_validator(mode="after")
    def images_hold_a_window(self) -> Self:
        if self.data.size < WINDOW:
            raise ValueError(
                f"data.size={self.data.size}: {self.recipe} takes 12 or more; its images are judged"
                f" by SSIM, whose window is {WINDOW} pixels wide"
            )
        return self

    @model_validator(mode="after")
    def images_keep_their_size(self) -> Self:
        if 1 not in scales_of(self.model):
            raise ValueError(
                f"model.network={self.model.network}: enlarges, and a translation is as large as"
                " its image; use unet or resnet"
            )
        refuse_single(self.model, self.data.size, self.train.batch_size // self.together)
        return self

    @model_validator(mode="after")
    def masks_are_in_colours(self) -> Self:
        if self.task == "masks" and self.data.channels != 3:
            raise ValueError(
                "data.channels=1: with task=masks classes are told apart by their colours; use 3"
            )
        if self.task != "masks" and self.evaluation.segmenter:
            raise ValueError(
                f"evaluation.segmenter={self.evaluation.segmenter}: with task={self.task} there are"
                " no masks to compare with; leave it out"
            )
        if self.task != "masks" and self.classes:
            raise ValueError(f"classes={list(self.classes)}: only with task=masks")
        return self

    @property
    def wants(self) -> tuple[str, ...]:  # type: ignore[override]
        return TASKS[self.task].wants

    @property
    def paired(self) -> bool:
        """Whether its data has pairs, to learn from or to be judged by."""
        return TASKS[self.task].paired

    @property
    def chosen_by(self) -> tuple[str, Literal["min", "max"]]:
        if self.evaluation.judge:
            return "judge_fid", "min"
        return self.objective if self.paired else ("swd", "min")

    def resolve(
        self, classes: Mapping[str, tuple[str, ...]], shares: tuple[float, ...] | None = None
    ) -> Self:
        if self.task != "masks":
            return self
        named = named_classes(self.classes, classes.get("mask", ()), "classes")
        return self.model_copy(update={"classes": named})

    def refuse_helper(self, name: str, helper: Recipe) -> None:
        named = f"evaluation.{name}={getattr(self.evaluation, name)}"
        if name == "judge":
            refuse_judge(self.data, helper, named)
        elif (channels := helper.need("segment").channels) != self.data.channels:
            raise InputError(
                f"{named} takes {channels} channel{'s' * (channels > 1)}, the model makes"
                f" {self.data.channels}; train a segmenter of as many"
            )

    def sides(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """(images of the first kind, images of the second): of rows with pairs these."""
        task = TASKS[self.task]
        return task.first(rows), task.second(rows)

    def translator(self) -> RestoringNetwork:
        """Freshly initialised."""
        return network_of(self.model, self.data.channels, maps=0, scale=1)

    @abstractmethod
    def forth(self, networks: Mapping[str, nn.Module]) -> RestoringNetwork:
        """The network from the first kind to the second."""

    def abilities(self, networks: Mapping[str, nn.Module]) -> dict[str, Ability]:
        network = self.forth(networks)

        def compute(rows: Rows) -> Rows:
            return {"image": network(rows["image"])}

        ability = Ability(
            compute,
            self.data.channels,
            margin=network.margin,
            stride=network.stride,
            held=network.bytes_held,
            masked=(len(self.classes) or UNKNOWN) if self.task == "masks" else 0,
        )
        return {"translate": ability}

    # how it is judged

    @torch.no_grad()
    def evaluate(self, inference: Inference, data: Dataset) -> dict[str, float]:
        """PSNR in dB and SSIM of translations beside the truth, where there are pairs; swd: sliced
        Wasserstein distance of translations and images of the second kind;

        with a judge, what genimg.judging tells of the same; with a segmenter mean_iou: of what it
        sees in translations and the masks that these were made of, and mean_iou_real: in the truth.
        """
        chosen = data.choose(self.evaluation.images)
        share = inference.share(len(chosen))
        shape = (0, self.data.channels, data.size, data.size)
        made = [torch.empty(shape, dtype=torch.uint8, device=inference.device)]
        truth, masks = made.copy(), [made[0][:, 0]]
        for piece in inference.pieces(share):
            rows = self.looked_at(inference, data, chosen[piece.start : piece.stop])
            first, second = self.sides(rows)
            made.append(self.translated(inference, first))
            truth.append(to_bytes_range(second))
            masks.append(rows["mask"].to(torch.uint8) if "mask" in rows else masks[0])
        fake, real, mask = (torch.cat(each) for each in (made, truth, masks))
        metrics: dict[str, float] = {}
        if self.paired:
            means = inference.gather(scores(fake, real)).mean(dim=0)
            metrics |= zip(("psnr", "ssim"), means.tolist(), strict=True)
        patches = PATCHES * len(chosen)
        metrics["swd"] = sliced_wasserstein(real, fake, patches=patches, sync=inference.sync)
        if "judge" in inference.helpers:
            judge = inference.helpers["judge"]
            looks = (Seen(*map(inference.gather, seen(judge, each))) for each in (fake, real))
            ours, theirs = looks
            metrics |= judged(ours, theirs, "judge_fid", inference.sync)
        if "segmenter" in inference.helpers:
            metrics["mean_iou"] = agreement(inference, fake, mask)
            metrics["mean_iou_real"] = agreement(inference, real, mask)
        return metrics

    def looked_at(self, inference: Inference, data: Dataset, indices: np.ndarray) -> Rows:
        """Of the data at int64 `indices`, on the device."""
        keys = rng.fold(0, torch.from_numpy(indices)).to(data.device or inference.device)
        stored = data.fetch(indices, keys)
        rows = ready({name: each.to(inference.device) for name, each in stored.items()})
        return cast("Rows", rows)

    def translated(self, inference: Inference, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] of float32 [N, C, H, W]."""
        return to_bytes_range(inference.run(self.forth(inference.networks), images))

    def protocol(self, data: Dataset) -> dict[str, str | int]:
        ours = self.evaluation
        asked = {"judge": ours.judge, "segmenter": ours.segmenter}
        about: dict[str, str | int] = {name: each for name, each in asked.items() if each}
        images = min(ours.images, len(data))
        pairs = "PSNR, SSIM of pairs rounded to bytes; " if self.paired else ""
        patches = f"{PATCHES * images} patches a level, {DIRECTIONS} directions"
        return about | {
            "images": images,
            "seed": 0,
            "detector": f"pixels, and patches of {PATCH}x{PATCH} of a Laplacian pyramid",
            "method": f"task {self.task}: {pairs}sliced Wasserstein distance (Karras et al. 2018) x"
            f" 1000, {patches}",
        }

    @torch.no_grad()
    def preview(self, inference: Inference, data: Dataset) -> tuple[Tensor, int]:
        """Columns: image, its translation, and the truth or, without pairs, one of its kind."""
        first, second = self.sides(self.looked_at(inference, data, data.choose(SHOWN)))
        made = to_floats(self.translated(inference, first), inference.device)
        columns = torch.stack([first, made, second], dim=1)
        return columns.flatten(0, 1).clamp(-1, 1).float().cpu(), 6


def scores(made: Tensor, truth: Tensor) -> Tensor:
    """float64 [N, 2]: PSNR, EXACT at most, and SSIM of uint8 [N, C, H, W]; there may be none."""
    if not len(made):
        return torch.empty(0, 2, dtype=torch.float64, device=made.device)
    return torch.stack([finite_psnr(made, truth), ssim(made, truth)], dim=1)


def agreement(inference: Inference, images: Tensor, masks: Tensor) -> float:
    """The mean intersection over union of masks uint8 [N, H, W] and what the helper `segmenter`
    sees in all workers' images uint8 [N, C, H, W]. InputError for masks of classes that it does not
    know."""
    segmenter = inference.helpers["segmenter"]
    count = len(segmenter.abilities["segment"].classes)
    mine = torch.zeros(1, count, count, dtype=torch.int64, device=inference.device)
    for start in range(0, len(images), inference.at_once):
        few = slice(start, start + inference.at_once)
        highest = int(masks[few].masked_fill(masks[few] == UNKNOWN, 0).max())
        if highest >= count:
            raise InputError(
                f"a mask shows class {highest}, but evaluation.segmenter knows {count}, counted"
                " from 0; train one on the same data"
            )
        seen_in = segmenter.rows("segment", {"image": to_floats(images[few], inference.device)})
        mine += confusion(seen_in["mask"].long(), masks[few], count)
    return mean_iou(inference.gather(mine).sum(dim=0))
