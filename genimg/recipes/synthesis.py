"""What recipes have in common that draw images: what they can, how they are judged, what is shown.

A family says how latents become images. Judged by the sliced Wasserstein distance, which needs no
pretrained network; with a classifier (`genimg evaluate --judge`) also by FID on its features,
inception score and shares of classes.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import ClassVar, Literal, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from genimg.contracts import Ability, Dataset, Rows
from genimg.data import grammar, placed
from genimg.errors import InputError
from genimg.inference import Inference, classes_of, latents, real_images
from genimg.inversion import AT_A_TIME, STARTS, in_blocks, search
from genimg.judging import BETTER, Best, judged_in_training, refuse_best, refuse_judge
from genimg.metrics.distributions import diversity
from genimg.metrics.sliced_wasserstein import DIRECTIONS, PATCH, sliced_wasserstein
from genimg.passes import rows_at_once
from genimg.pixels import to_bytes_range
from genimg.recipe import Recipe
from genimg.recipes.recognition import named_classes
from genimg.recipes.told import ByClass, ByText, refuse_untrue, untrue_sides
from genimg.rng import fold
from genimg.section import Section

FEWEST = 16  # held-out images that are worth comparing with
PATCHES = 16  # of each generated image and level, and as many of held-out ones
VARIED = 256  # images whose diversity is measured, by all their pairs
COLUMNS = 8  # of a preview
TOLD = ("classes", "text")  # columns of a pass, of which there is one where images are of something
MOST_ROWS = 16  # of a preview with a row a class


class Evaluate(Section):
    samples: int = Field(8192, ge=FEWEST)
    """images generated, and held-out images compared with, at most"""
    judge: str | None = None
    """a classifier (NAME, NAME@ALIAS, NAME@7): checkpoints are chosen by FID on its features"""
    best: Best | None = None
    """the metric that chooses the best checkpoint; null: judge_fid with a judge, or else its own"""


class Synthesis(Recipe):
    """A recipe whose models draw images of latents, which seeds give, and perhaps of classes."""

    helpers: ClassVar[Mapping[str, str]] = {"judge": "evaluation.judge"}
    objective: ClassVar[tuple[str, Literal["min", "max"]]] = ("swd", "min")
    fewest_held_out: ClassVar[int] = FEWEST
    explored: ClassVar[tuple[str, ...]] = ("sample", "interpolate", "traverse", "vary", "decode")
    sought: ClassVar[tuple[str, ...]] = ("latent", "moments", "begun", "iterations")
    """what `inverter` takes besides"""

    model: ByClass = ByClass()
    evaluation: Evaluate = Evaluate()

    @property
    @abstractmethod
    def latent(self) -> int:
        """Dimensions of the latents."""

    @abstractmethod
    def drawer(self, networks: Mapping[str, nn.Module]) -> Callable[[Rows], Rows]:
        """A pass: images of latents and, of a conditional model, of classes; and of `options`."""

    def inverter(self, networks: Mapping[str, nn.Module]) -> Callable[[Rows], Rows]:
        """A pass: latents of images, and the images that are drawn of them; by a search, of which
        it does some iterations."""
        drawer, pixels = self.drawer(networks), self.data.size**2

        def seek(rows: Rows) -> Rows:
            others = told(rows)
            found, moments = search(
                lambda points: drawer({**others, "latent": points})["image"],
                rows["image"],
                rows["latent"],
                int(rows["iterations"][0]),
                rows["moments"],
                int(rows["begun"][0]),
                AT_A_TIME,
            )
            return {"latent": found, "moments": moments}

        def told(rows: Rows) -> Rows:
            columns = cast("dict[str, Tensor]", rows)
            return cast(Rows, {key: columns[key] for key in TOLD if key in columns})

        def compute(rows: Rows) -> Rows:
            found = in_blocks(seek, rows, min(STARTS, rows_at_once(pixels, rows["image"].device)))
            return {**found, **drawer({**told(rows), "latent": found["latent"]})}

        return compute

    @property
    def steps(self) -> int:
        """From latents to images, unless asked for."""
        return 1

    @property
    def options(self) -> tuple[str, ...]:
        """Columns of a pass that are options of operations, which these models honour."""
        return ()

    @model_validator(mode="after")
    def enough_is_held_out(self) -> Self:
        if self.data.holdout < FEWEST:
            raise ValueError(
                f"data.holdout={self.data.holdout}: {self.recipe} is compared with at least "
                f"{FEWEST} held-out images; give data.holdout={FEWEST} or more"
            )
        return self

    @model_validator(mode="after")
    def the_best_is_measured(self) -> Self:
        refuse_best(self.evaluation.best, self.evaluation.judge, self.data)
        return self

    @model_validator(mode="after")
    def classes_are_asked_for(self) -> Self:
        if self.model.classes and not self.model.conditional:
            raise ValueError(
                f"model.classes={list(self.model.classes)}: only with model.conditional=true"
            )
        return self

    @model_validator(mode="after")
    def texts_stay_true(self) -> Self:
        if self.by_text and self.grammar:
            refuse_untrue(self.data)
        return self

    def cautions(self) -> Iterator[str]:
        yield from super().cautions()
        if isinstance(self.model, ByText):
            yield from untrue_sides(self.data, self.model.vocabulary)

    @property
    def grammar(self) -> str:
        """Of texts, where these are made."""
        if self.data.place:
            return placed.GRAMMAR
        captioned = (self.data.source, self.data.scenes) == ("scenes", "captioned")
        return grammar.GRAMMAR if captioned else ""

    @property
    def by_text(self) -> bool:
        """Whether its models draw by texts."""
        return isinstance(self.model, ByText) and self.model.text

    @property
    def wants(self) -> tuple[str, ...]:  # type: ignore[override]
        if self.by_text:
            return ("image", "text")
        return ("image", "label") if self.model.conditional else ("image",)

    @property
    def chosen_by(self) -> tuple[str, Literal["min", "max"]]:
        best = self.evaluation.best or ("judge_fid" if self.evaluation.judge else None)
        return (best, BETTER[best]) if best else self.objective

    def refuse_helper(self, name: str, helper: Recipe) -> None:
        refuse_judge(self.data, helper, f"evaluation.judge={self.evaluation.judge}")

    def resolve(
        self, classes: Mapping[str, tuple[str, ...]], shares: tuple[float, ...] | None = None
    ) -> Self:
        model = self.model
        if isinstance(model, ByText) and model.text:
            words = model.vocabulary or classes["text"]
            if not words:
                raise InputError(f"{self.data.source}: its texts have no words")
            return self.model_copy(update={"model": model.model_copy(update={"vocabulary": words})})
        if not model.conditional:
            return self
        theirs = classes["label"]
        names = named_classes(model.classes, theirs)
        known: dict[str, object] = {"classes": names}
        if shares is not None and not model.shares:
            known["shares"] = lengthened(shares, len(theirs), len(names))
        return self.model_copy(update={"model": model.model_copy(update=known)})

    def abilities(self, networks: Mapping[str, nn.Module]) -> dict[str, Ability]:
        data, model = self.data, self.model
        column: tuple[str, ...] = ()
        option: tuple[str, ...] = ()
        if model.conditional:
            column, option = ("classes",), ("label",)
        if self.by_text:
            column = option = ("text",)
        draw = Ability(
            self.drawer(networks),
            data.channels,
            takes=("latent", *column, *self.options),
            conditions=frozenset({*option, *self.options}),
            latent=self.latent,
            side=data.size,
            classes=model.classes,
            shares=model.shares,
            vocabulary=model.vocabulary if isinstance(model, ByText) else (),
            words=model.words if isinstance(model, ByText) else 0,
            grammar=self.grammar,
            read=(placed.read if self.data.place else grammar.read) if self.grammar else None,
            steps=self.steps,
        )
        searches = "iterations" in self.sought
        invert = replace(
            draw,
            compute=self.inverter(networks),
            takes=("image", *draw.takes[1:], *self.sought),
            conditions=draw.conditions | ({"starts", "iterations"} if searches else set()),
            fit=data.fit,
            alone=True,
        )
        return dict.fromkeys(self.explored, draw) | {"invert": invert}

    def evaluate(self, inference: Inference, data: Dataset) -> dict[str, float]:
        """swd: sliced Wasserstein distance; diversity: of the images, in levels of 0 to 255;

        with a judge, what genimg.judging tells.
        """
        mine = inference.share(self.evaluation.samples)
        chosen = data.choose(self.evaluation.samples)
        told = chosen[np.arange(mine.start, mine.stop) % len(chosen)]
        fake = self.generated(inference, mine, texts=self.texts(data, told))
        share = inference.share(len(chosen))
        real = real_images(data, chosen[share.start : share.stop], inference.device)
        metrics = {
            "swd": sliced_wasserstein(real, fake, patches=self.patches(), sync=inference.sync),
            "diversity": diversity(inference.gather(fake[: max(0, VARIED - mine.start)])),
        }
        if "judge" in inference.helpers:
            best = self.evaluation.best
            metrics |= judged_in_training(inference, fake, data, chosen, best)
        return metrics

    def patches(self) -> int:
        return PATCHES * self.evaluation.samples

    def protocol(self, data: Dataset) -> dict[str, str | int]:
        judge = self.evaluation.judge
        about: dict[str, str | int] = {"judge": judge} if judge else {}
        return about | {
            "images": min(self.evaluation.samples, len(data)),
            "samples": self.evaluation.samples,
            "seed": 0,
            "detector": f"patches of {PATCH}x{PATCH} pixels of a Laplacian pyramid",
            "method": f"sliced Wasserstein distance (Karras et al. 2018) x 1000, {self.patches()} "
            f"patches a level, {DIRECTIONS} directions",
        }

    def preview(self, inference: Inference, data: Dataset) -> tuple[Tensor, int]:
        """Images of the first seeds; where classes are few a row each, of the same seeds."""
        count = len(self.model.classes)
        if self.by_text:
            chosen = data.choose(COLUMNS).repeat(COLUMNS)
            images = self.generated(inference, range(len(chosen)), texts=self.texts(data, chosen))
        elif 0 < count <= MOST_ROWS:
            each = [self.generated(inference, range(COLUMNS), number) for number in range(count)]
            images = torch.cat(each)
        else:
            images = self.generated(inference, range(COLUMNS**2))
        return images.float().cpu() / 127.5 - 1, COLUMNS

    def texts(self, data: Dataset, indices: np.ndarray) -> Tensor | None:
        """int64 [N, T] of a dataset's images at int64 indices; None: nothing is drawn by text."""
        if not (self.by_text and len(indices)):  # a worker's share may be empty
            return None
        return data.fetch(indices, fold(0, torch.from_numpy(indices)))["text"].long()

    def generated(
        self,
        inference: Inference,
        seeds: range,
        number: int | None = None,
        texts: Tensor | None = None,
    ) -> Tensor:
        """uint8 [N, C, size, size] on the device: the images of seeds, if any.

        number: of the class that all are of; None: each is of its own, where there are classes
        texts: int64 [N, T], of models that draw by text
        """
        compute = self.drawer(inference.networks)
        shape = (0, self.data.channels, self.data.size, self.data.size)
        parts = [torch.empty(shape, dtype=torch.uint8, device=inference.device)]
        for piece in inference.pieces(seeds):
            few = torch.arange(piece.start, piece.stop, device=inference.device)
            rows: Rows = {"latent": latents(few, self.latent)}
            if count := len(self.model.classes):
                kinds = classes_of(few, count, self.model.shares)
                if number is not None:
                    kinds = torch.full_like(few, number)
                rows["classes"] = F.one_hot(kinds, count).float()
            if texts is not None:
                start = piece.start - seeds.start
                rows["text"] = texts[start : start + len(piece)].to(inference.device)
            parts.append(to_bytes_range(inference.rows(compute, rows)["image"]))
        return torch.cat(parts)


def lengthened(shares: tuple[float, ...], told: int, known: int) -> tuple[float, ...]:
    """The shares of `known` classes, of which the data tells the first `told` and shows no others.

    shares: of those of the data; empty: all alike
    """
    if known == told:
        return shares
    return (*(shares or (1.0,) * told), *(0.0,) * (known - told))
