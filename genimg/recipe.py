"""A recipe: the frozen, validated description of one training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from genimg.augmentations import PAIR, Augmentation, Mixing
from genimg.errors import InputError
from genimg.schedule import Train
from genimg.section import Section, flat

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from genimg.contracts import Ability, Dataset
    from genimg.inference import Inference
    from genimg.operations import Operation
    from genimg.training.method import Method


class Data(Section):
    source: str = "scenes"
    """what to train on: `scenes`; a folder, archive, IDX folder, .npz or shards, here or s3://"""
    scenes: Literal["full", "simple", "captioned"] = "full"
    """of up to three textured objects, one large plain one (simple), or made to be told by text"""
    combinations: Literal["all", "seen", "held-out"] = "all"
    """of colours and shapes in captioned scenes, or digits and places (place): some are held out"""
    size: int = Field(32, ge=8, le=1024, multiple_of=4)
    """side of the square that the networks see in training, pixels"""
    channels: Literal[1, 3] = 3
    """1 gray, 3 RGB; images are converted"""
    stack: bool = False
    """three gray images, drawn at random, are the channels of one, as in Stacked-MNIST"""
    bounce: bool = False
    """two gray images, drawn at random, drift over black and bounce, as in Moving-MNIST"""
    place: bool = False
    """one or two gray images stand on black, and a text says which where, as alignDRAW's MNIST"""
    fit: Literal["resize", "pad", "crop"] = "resize"
    """how an image becomes size x size: resize and centre-crop, pad with black, or random crops"""
    augment: Literal["none", "flip", "dihedral"] = "none"
    """random mirrorings (flip) or all eight symmetries of the square (dihedral)"""
    translate: int = Field(0, ge=0)
    """random shifts by up to so many pixels; what comes in at the borders mirrors what is there"""
    augmentations: tuple[Augmentation, ...] = ()
    """varied in order by affine, perspective, elastic, light, cutout, mixup, cutmix, copy-paste"""
    holdout: int = Field(500, ge=1)
    """images kept out of training, on which checkpoints are evaluated"""
    tolerate_broken: int = Field(0, ge=0)
    """how many unreadable files may be skipped (each is named); one more stops the training"""

    @model_validator(mode="after")
    def three_are_stacked(self) -> Self:
        if self.stack and self.channels != 3:
            raise ValueError(f"stack=true makes images of 3 channels, not {self.channels}")
        if self.stack and any(each.kind == "light" for each in self.augmentations):
            raise ValueError(
                "augmentations: light mixes the three images that stack=true makes channels of;"
                " leave it out"
            )
        if self.bounce and (self.channels != 1 or self.stack):
            raise ValueError("bounce=true makes gray clips; give channels=1, and no stack")
        if self.place and (self.channels != 1 or self.stack or self.bounce):
            raise ValueError(
                "place=true makes gray images; give channels=1, no stack and no bounce"
            )
        return self

    @property
    def of_gray(self) -> bool:
        """Whether images are made of gray ones."""
        return self.stack or self.bounce or self.place

    @model_validator(mode="after")
    def combinations_are_of_what_has_captions(self) -> Self:
        if self.combinations != "all" and self.scenes != "captioned" and not self.place:
            raise ValueError(
                f"combinations={self.combinations}: only captioned scenes, and images that are"
                " placed, know them; give scenes=captioned or place=true too"
            )
        return self

    @model_validator(mode="after")
    def shifts_are_small(self) -> Self:
        if self.translate >= self.size:
            raise ValueError(
                f"translate={self.translate}: shifts images of {self.size} pixels out of sight;"
                " use fewer"
            )
        return self


class Recipe(Section):
    """One training. Subclasses in genimg.recipes add sections and compose the parts."""

    wants: ClassVar[tuple[str, ...]] = ("image",)  # columns that it trains on and is judged by
    helpers: ClassVar[Mapping[str, str]] = {}  # other models: names -> keys that refer to them
    teachers: ClassVar[frozenset[str]] = frozenset()  # those of them that training alone needs
    objective: ClassVar[tuple[str, Literal["min", "max"]]]  # the metric that chooses the best
    fewest_held_out: ClassVar[int] = 1  # images by which its models can be judged

    recipe: str
    """name of the recipe"""
    data: Data = Data()
    train: Train

    @model_validator(mode="after")
    def images_can_be_mixed(self) -> Self:
        for number, each in enumerate(self.data.augmentations):
            if not isinstance(each, Mixing):
                continue
            key = f"data.augmentations.{number}: kind={each.kind}"
            reasons = dict(each.refuses)
            if self.soft_classes is None:
                reasons.setdefault("label", "it takes whole labels, not shares of classes")
            for column in self.wants:
                if column in reasons:
                    raise ValueError(
                        f"{key}: {self.recipe} learns from {column}, and {reasons[column]}"
                    )
            if self.train.batch_size % PAIR:
                raise ValueError(
                    f"train.batch_size={self.train.batch_size}: {key} mixes neighbours in a batch;"
                    f" give a multiple of {PAIR}"
                )
        return self

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """The networks that inference needs, freshly initialised, on the CPU."""

    @abstractmethod
    def abilities(self, networks: Mapping[str, nn.Module]) -> dict[str, Ability]:
        """The operations that these networks, in evaluation mode, can do, by their names."""

    @abstractmethod
    def method(self, device: torch.device) -> Method:
        """The learning rule with its networks and optimizers, on the device."""

    @abstractmethod
    def evaluate(self, inference: Inference, data: Dataset) -> dict[str, float]:
        """Metrics of inference networks on data that they were not trained on.

        Called by all workers in step, each of which gets the same metrics: those that one
        worker would get, to rounding.
        """

    def baseline(self, inference: Inference, data: Dataset) -> dict[str, float]:
        """Metrics of doing nothing, called as `evaluate`; empty where that tells nothing."""
        return {}

    @abstractmethod
    def protocol(self, data: Dataset) -> dict[str, str | int]:
        """What `evaluate` does on this data: `images`, `seed`, `detector`, `method`, as JSON.

        Scores with equal protocols, data and split can be compared.
        """

    @abstractmethod
    def preview(self, inference: Inference, data: Dataset) -> tuple[Tensor, int]:
        """(images float32 [N, C, H, W] in [-1, 1], columns): what a person would look at."""

    def allow(
        self, operation: Operation, abilities: Mapping[str, Ability] | None = None
    ) -> Ability:
        """The ability of its models to do an operation with its options, or InputError.

        abilities: those of a model; without them those that any has.
        """
        ability = self.need(operation.name, abilities)
        for name in sorted(operation.told() - ability.conditions):
            value, remedy = operation.option(name), operation.remedy(name, ability)
            raise InputError(f"{name}={value!r}: this {self.recipe} takes no {name}; {remedy}")
        operation.suits(ability)
        return ability

    def need(self, name: str, abilities: Mapping[str, Ability] | None = None) -> Ability:
        """The ability of a name, or InputError."""
        able = self.able() if abilities is None else abilities
        if name not in able:
            raise InputError(f"{self.recipe} models cannot {name}; they can: {', '.join(able)}")
        return able[name]

    def can(self) -> tuple[str, ...]:
        """Names of the operations that its models can do."""
        return tuple(self.able())

    def able(self) -> dict[str, Ability]:
        """What its models can do; there is none to do it with."""
        return self.outline()[0]

    def outline(self) -> tuple[dict[str, Ability], int]:
        """(what its models can do, how many numbers their weights are), of networks without any."""
        from genimg.weightless import weightless

        with weightless():
            networks = self.networks()
            abilities = self.abilities(networks)
        weights = (each.state_dict().values() for each in networks.values())
        return abilities, sum(weight.numel() for each in weights for weight in each)

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that its training fetches: what it wants, and what augmentations go by."""
        mixing = [each for each in self.data.augmentations if isinstance(each, Mixing)]
        needed = [name for each in mixing for name in each.needs]
        return tuple(dict.fromkeys([*self.wants, *needed]))

    @property
    def soft_classes(self) -> int | None:
        """Of how many classes its method takes shares for a label; None: it takes whole labels."""
        return None

    @property
    def together(self) -> int:
        """Neighbours in a batch that learn together or are mixed, and so are one worker's."""
        return PAIR if any(isinstance(each, Mixing) for each in self.data.augmentations) else 1

    @property
    def chosen_by(self) -> tuple[str, Literal["min", "max"]]:
        """The metric by which the best of its checkpoints is chosen, and which way is better."""
        return self.objective

    @property
    def last_is_best(self) -> bool:
        """Whether no metric tells the best of its checkpoints, and so the last one is."""
        return False

    def helped_by(self, training: bool = True) -> dict[str, str]:
        """References to the models that it asks for help, by what they are for.

        training: with those that training alone needs
        """
        values = flat(self.model_dump())
        return {
            name: values[key]
            for name, key in self.helpers.items()
            if values[key] and (training or name not in self.teachers)
        }

    def refuse_helper(self, name: str, helper: Recipe) -> None:
        """InputError where a model of a recipe is no use as its helper of a name."""

    def helped(self, method: Method, teachers: Mapping[str, Mapping[str, nn.Module]]) -> None:
        """Give its method, before it begins or goes on, what it learns from.

        teachers: their networks by name, as they were trained: in float32 and evaluation mode,
            frozen, on the method's device
        """

    def resolve(
        self, classes: Mapping[str, tuple[str, ...]], shares: tuple[float, ...] | None = None
    ) -> Self:
        """This recipe with what only the data knows filled in; most need nothing.

        classes: names of the classes that columns of the data count, by column
        shares: of the images, of each class of labels; empty: all alike; None: untold
        """
        return self

    def cautions(self) -> Iterator[str]:
        """What a person should know before a training that will not be what they may expect."""
        train = self.train
        if train.warmup >= train.images:
            yield (
                f"train.warmup={train.warmup} images: with train.images={train.images} the learning"
                " rate never comes to its full height"
            )

    def idle(self) -> Mapping[str, str]:
        """{dotted key: why it changes nothing, as the others are}; who gives it should know."""
        return {}

    def differences(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """{dotted key: (mine, theirs)} where two recipes differ."""
        mine, theirs = flat(self.model_dump()), flat(other.model_dump())
        return {
            key: (mine.get(key), theirs.get(key))
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        }

    def save(self, path: Path) -> None:
        path.write_text(self.model_dump_json(indent=2) + "\n")


def with_network(tree: Any, name: str) -> Any:
    """Keys of a recipe whose model names no network, which is `name` then: of recipes written
    before there were several."""
    model = tree.get("model") if isinstance(tree, dict) else None
    if isinstance(model, dict) and "network" not in model:
        return tree | {"model": model | {"network": name}}
    return tree
