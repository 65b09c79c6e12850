"""Stylists: they give an image the style of another, of which they need not have seen any like it.

    genimg train adain loss.features=judge --data BSDS400
    genimg train adain loss.features=judge styles=folders --data FOLDER_WITH_content_AND_style
    genimg stylise photo.jpg --style painting.jpg -o new.png -m adain

`loss.features` is a classifier, whose first layers see what is content and what is style.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from genimg import rng
from genimg.contracts import Ability, Dataset, Rows
from genimg.errors import InputError
from genimg.inference import Inference, to_floats
from genimg.models.styling import STAGES, Stylist
from genimg.models.whitened import Whitened
from genimg.moments import content_distance, exchange, exchanged, moments, style_distance
from genimg.pixels import to_bytes_range
from genimg.recipe import Data, Recipe
from genimg.recipes.classifier import Classifier, WhitenedModel
from genimg.schedule import Train
from genimg.section import Section
from genimg.training.method import Method, Part
from genimg.training.stylisation import Stylisation

SHOWN = 8  # images of a preview
ALL = slice(None)
LOOKED_AT = ("content", "style", "content_of_style", "style_of_content")


class Model(Section):
    width: int = Field(16, ge=8, multiple_of=8)
    """channels of the encoder's first stage, as of the classifier's; of the others four times"""
    patch: int = Field(2, ge=1, le=5)
    """side of the patches that the encoder's first layer whitens, as the classifier's, pixels"""
    depth: int = Field(2, ge=1, le=STAGES)
    """stage of the encoder whose features take on the style: the deeper, the larger its patterns"""
    decoder: int = Field(32, ge=8)
    """channels of the decoder at full resolution, doubling at each halving"""
    skips: bool = True
    """give the decoder pixels and the stages before too, in the style's moments: details stay"""


class Loss(Section):
    features: str | None = None
    """a classifier (NAME, NAME@ALIAS, NAME@7) that the encoder is of; without it, random filters"""
    content: float = Field(1.0, gt=0)
    """weight of the squared difference of features from those that the image is drawn from"""
    style: float = Field(3.0, gt=0)
    """weight of the squared differences of their means and deviations from the style's"""


class Evaluate(Section):
    images: int = Field(200, ge=2)
    """held-out images, at most, each with another one's style"""


class AdaIN(Recipe):
    helpers: ClassVar[Mapping[str, str]] = {"features": "loss.features"}
    teachers: ClassVar[frozenset[str]] = frozenset({"features"})
    objective: ClassVar[tuple[str, Literal["min", "max"]]] = ("distance", "min")
    fewest_held_out: ClassVar[int] = 2  # whose styles are exchanged

    styles: Literal["same", "folders"] = "same"
    """where they are from: other images of the data; or the second of its two folders, by name"""
    model: Model = Model()
    loss: Loss = Loss()
    evaluation: Evaluate = Evaluate()

    @model_validator(mode="after")
    def images_can_be_halved(self) -> Self:
        if self.data.size % 2**STAGES:
            raise ValueError(
                f"data.size={self.data.size}: {self.recipe} takes multiples of {2**STAGES}"
            )
        if self.train.batch_size % self.together:
            raise ValueError(
                f"train.batch_size={self.train.batch_size}: of each two images one has the style of"
                " the other; give a multiple of 2"
            )
        if self.styles == "same" and self.data.holdout < 2:
            raise ValueError(
                f"data.holdout={self.data.holdout}: images are judged with one another's style;"
                " hold out 2 or more"
            )
        return self

    @property
    def wants(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("image", "other") if self.styles == "folders" else ("image",)

    @property
    def together(self) -> int:
        return 2 if self.styles == "same" else super().together

    def sides(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """(contents, styles), [N, C, H, W] each: of two neighbours each is the other's style."""
        images = rows["image"]
        if self.styles == "folders":
            return images, rows["other"]
        return images, images.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)

    def cautions(self) -> Iterator[str]:
        yield from super().cautions()
        if not self.loss.features:
            yield (
                "loss.features is left out: what is seen by random filters has less to do with what"
                " people see; train a classifier, and give loss.features=NAME"
            )

    def refuse_helper(self, name: str, helper: Recipe) -> None:
        named = f"loss.features={self.loss.features}"
        helper.need("classify")
        assert isinstance(helper, Classifier), "nothing else classifies"
        if not isinstance(helper.model, WhitenedModel):
            raise InputError(
                f"{named}: its layers normalise by the whole of an image, which large ones are not"
                " seen at once; train one with model.network=whitened"
            )
        both = {
            "data.channels": (helper.data.channels, self.data.channels),
            "model.width": (helper.model.width, self.model.width),
            "model.patch": (helper.model.patch, self.model.patch),
        }
        differ = [f"{key}={its} (here {mine})" for key, (its, mine) in both.items() if its != mine]
        if differ:
            apart = ", ".join(differ)
            raise InputError(
                f"{named}: a classifier with {apart}; override this recipe's keys to be like its"
            )

    def helped(self, method: Method, teachers: Mapping[str, Mapping[str, nn.Module]]) -> None:
        for teacher in teachers.values():
            classifier = teacher["classifier"]
            assert isinstance(classifier, Whitened)
            for networks in (method.networks, method.averages):
                known(networks).encoder.take(classifier)

    def stylist(self) -> Stylist:
        model = self.model
        shape = (model.width, model.patch, model.depth, model.decoder, model.skips)
        return Stylist(*shape, self.data.channels)

    def networks(self) -> dict[str, nn.Module]:
        return {"stylist": self.stylist()}

    def abilities(self, networks: Mapping[str, nn.Module]) -> dict[str, Ability]:
        stylist = known(networks)

        def compute(rows: Rows) -> Rows:
            if "weight" in rows:
                return {"moments": stylist.look(rows["image"], rows["weight"])}
            return {"image": stylist(rows["image"], rows["change"])}

        channels, takes = self.data.channels, ("image", "change")
        margin, stride = stylist.margin, stylist.stride
        return {"stylise": Ability(compute, channels, takes, margin=margin, stride=stride)}

    def method(self, device: torch.device) -> Stylisation:
        part, loss = Part(self.stylist(), betas=(0.9, 0.99)), self.loss
        return Stylisation(
            part, self.model.depth, self.sides, loss.content, loss.style, self.train, device
        )

    # how it is judged

    @torch.no_grad()
    def evaluate(self, inference: Inference, data: Dataset) -> dict[str, float]:
        """distance: what is left of the way to both inputs, content / content_of_style + style /
        style_of_content. 1 for the content as it came and for the style in its place; the less the
        better. distance_of_colours: of contents with the means and deviations of styles' colours.

        content, style: distances of what is made from its two inputs, by the encoder's features
        (see genimg.moments); content_of_style: of the style itself from the content, and
        style_of_content the other way round: the floors.
        """
        chosen = data.choose(self.evaluation.images)
        share = inference.share(len(chosen))
        shape = (0, len(LOOKED_AT) + 2)
        parts = [torch.empty(shape, dtype=torch.float64, device=inference.device)]
        for piece in inference.pieces(share):
            few = slice(piece.start, piece.stop)
            content, style = self.looked_at(inference, data, chosen, few)
            made, colours = self.stylised(inference, content, style), coloured(content, style)
            rows = inference.run(self.distances(inference), content, style, made, colours)
            parts.append(rows.double())
        means = inference.gather(torch.cat(parts)).mean(dim=0).tolist()
        found = dict(zip(LOOKED_AT, means[:4], strict=True))
        return {
            "distance": left(means[0], means[1], found),
            "distance_of_colours": left(means[4], means[5], found),
            **found,
        }

    def distances(self, inference: Inference) -> Callable[..., Tensor]:
        """float [N, 6] of contents, styles, what is made of both by the model, and by colours."""
        encode = known(inference.networks).encoder

        def compute(content: Tensor, style: Tensor, made: Tensor, colours: Tensor) -> Tensor:
            first, second, ours, theirs = map(encode, (content, style, made, colours))
            return torch.stack([
                content_distance(ours, first), style_distance(ours, second),
                content_distance(second, first), style_distance(first, second),
                content_distance(theirs, first), style_distance(theirs, second),
            ], dim=1)  # fmt: skip

        return compute

    def looked_at(
        self, inference: Inference, data: Dataset, chosen: np.ndarray, part: slice = ALL
    ) -> tuple[Tensor, Tensor]:
        """(contents, styles), [N, C, H, W] on the device, of a part of int64 indices."""
        if self.styles == "folders":
            rows = stored(inference, data, chosen[part])
            return rows["image"], rows["other"]
        others = np.roll(chosen, len(chosen) // 2)
        content, style = (stored(inference, data, each[part])["image"] for each in (chosen, others))
        return content, style

    def stylised(self, inference: Inference, content: Tensor, style: Tensor) -> Tensor:
        """float32 [N, C, H, W], of images float32 likewise, rounded to bytes in between."""
        stylist = known(inference.networks)

        def compute(content: Tensor, style: Tensor) -> Tensor:
            return stylist(content, exchange(stylist.look(content), stylist.look(style)))

        return rounded(inference.run(compute, content, style))

    def protocol(self, data: Dataset) -> dict[str, str | int]:
        other = "the second folder" if self.styles == "folders" else "other images"
        return {
            "images": min(self.evaluation.images, len(data)),
            "seed": 0,
            "detector": f"maps of {self.loss.features or 'random filters'}, {STAGES} stages",
            "method": f"styles of {other}; images of {data.size} pixels, rounded to bytes; content:"
            " squared difference of normalised maps (Huang et al. 2018), style: of their means and"
            " deviations (Huang & Belongie 2017); distance: the sum of both over those of the style"
            " from the content and of the content from the style",
        }

    @torch.no_grad()
    def preview(self, inference: Inference, data: Dataset) -> tuple[Tensor, int]:
        """Columns: content, style, and what is made of both."""
        content, style = self.looked_at(inference, data, data.choose(SHOWN))
        made = self.stylised(inference, content, style)
        columns = torch.stack([content, style, made], dim=1)
        return columns.flatten(0, 1).cpu(), 6


def known(networks: Mapping[str, nn.Module]) -> Stylist:
    stylist = networks["stylist"]
    assert isinstance(stylist, Stylist)
    return stylist


def stored(inference: Inference, data: Dataset, indices: np.ndarray) -> dict[str, Tensor]:
    """Columns of the images at int64 `indices`, float32 [N, C, H, W] on the device."""
    keys = rng.fold(0, torch.from_numpy(indices)).to(data.device or inference.device)
    found = data.fetch(indices, keys)
    return {name: to_floats(each, inference.device) for name, each in found.items()}


def rounded(images: Tensor) -> Tensor:
    """To what bytes can tell, float32."""
    return to_floats(to_bytes_range(images), images.device)


def coloured(content: Tensor, style: Tensor) -> Tensor:
    """Contents whose colours have the styles' means and deviations, without any network: as of
    Reinhard et al. 2001, in red, green and blue."""
    return rounded(exchanged(content, exchange(moments(content), moments(style))))


def left(content: float, style: float, floors: Mapping[str, float]) -> float:
    """Of the way to both inputs, by the distances of one from the other."""
    floor = floors["content_of_style"], floors["style_of_content"]
    return sum(each / max(most, 1e-12) for each, most in zip((content, style), floor, strict=True))


def adain() -> AdaIN:
    """AdaIN (Huang & Belongie 2017): the style of any image, by the moments of its features."""
    return AdaIN(
        recipe="adain",
        data=Data(size=64, channels=3, fit="crop", augment="flip", holdout=50),
        train=Train(
            images=200_000, batch_size=8, lr=1e-3, warmup=1_600, decay="cosine",
            ema_half_life=2_000, clip_norm=1.0, checkpoint_every=20_000,
        ),
    )  # fmt: skip
