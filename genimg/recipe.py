"""A recipe: the frozen, validated description of one training, and how it is overridden."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from genimg.errors import InputError, nearest
from genimg.precision import Choice

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from genimg.contracts import Dataset
    from genimg.inference import Inference
    from genimg.training.method import Method


class Section(BaseModel):
    """A group of keys. Unknown keys are refused, values are checked, nothing changes later."""

    # JSON has no infinities, so a recipe with one could not be read again
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class Data(Section):
    source: str = "scenes"
    """what to train on: `scenes`; a folder, archive, IDX folder, .npz or shards, here or s3://"""
    scenes: Literal["full", "simple"] = "full"
    """procedural scenes of up to three textured objects, or (simple) of one large plain object"""
    size: int = Field(32, ge=8, le=1024, multiple_of=4)
    """side of the square that the networks see in training, pixels"""
    channels: Literal[1, 3] = 3
    """1 gray, 3 RGB; images are converted"""
    fit: Literal["resize", "pad", "crop"] = "resize"
    """how an image becomes size x size: resize and centre-crop, pad with black, or random crops"""
    augment: Literal["none", "flip", "dihedral"] = "none"
    """random mirrorings (flip) or all eight symmetries of the square (dihedral)"""
    holdout: int = Field(500, ge=1)
    """images kept out of training, on which checkpoints are evaluated"""
    tolerate_broken: int = Field(0, ge=0)
    """how many unreadable files may be skipped (each is named); one more stops the training"""


class Train(Section):
    images: int = Field(ge=1)
    """how many images to train on, counted with repetition"""
    batch_size: int = Field(64, ge=1)
    """images a step, over all workers together"""
    lr: float = Field(2e-4, gt=0)
    """learning rate of Adam, at its peak"""
    warmup: int = Field(0, ge=0)
    """images over which the learning rate rises from 0"""
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """how the learning rate then falls to 0 at the last image"""
    clip_norm: float | None = Field(None, gt=0)
    """largest norm of the gradient of all parameters of a network"""
    ema_half_life: int = Field(5_000, ge=0)
    """half-life of the weights' moving average, images; 0 turns averaging off"""
    seed: int = Field(0, ge=0, lt=2**63)
    """decides initial weights, order, augmentation, noise and latents"""
    precision: Choice = "auto"
    """autocast; auto takes bfloat16 where the hardware multiplies it natively"""
    compile: bool = False
    """torch.compile the networks: slower to start, faster to run on GPUs"""
    deterministic: bool = False
    """on GPUs, only kernels that repeat, so that resuming does, bit for bit; CPUs always do"""
    checkpoint_every: int = Field(50_000, ge=1)
    """images between checkpoints, each with an evaluation and a sample grid"""
    log_every: int = Field(2_000, ge=1)
    """images between two lines of the log, at least"""
    log_seconds: float = Field(1.0, ge=0)
    """seconds between two lines of the log, about and at least; 0: every log_every images"""
    keep: int = Field(2, ge=1)
    """newest checkpoints that a run keeps, besides the best one"""


class Recipe(Section):
    """One training. Subclasses in genimg.recipes add sections and compose the parts."""

    capabilities: ClassVar[tuple[str, ...]] = ()  # what an engine of this recipe can do
    objective: ClassVar[tuple[str, Literal["min", "max"]]]  # the metric that chooses the best

    recipe: str
    """name of the recipe"""
    data: Data = Data()
    train: Train

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """The networks that inference needs, freshly initialised, on the CPU."""

    @abstractmethod
    def method(self, device: torch.device) -> Method:
        """The learning rule with its networks and optimizers, on the device."""

    @abstractmethod
    def evaluate(self, inference: Inference, data: Dataset) -> dict[str, float]:
        """Metrics of inference networks on data that they were not trained on.

        Called by all workers in step, each of which gets the same metrics: those that one
        worker would get, to rounding.
        """

    @abstractmethod
    def protocol(self, data: Dataset) -> dict[str, str | int]:
        """What `evaluate` does on this data: `images`, `seed`, `detector`, `method`, as JSON.

        Scores with equal protocols, data and split can be compared.
        """

    @abstractmethod
    def preview(self, inference: Inference, data: Dataset) -> tuple[Tensor, int]:
        """(images float32 [N, C, H, W] in [-1, 1], columns): what a person would look at."""

    def resolve(self, classes: tuple[str, ...]) -> Self:
        """This recipe with what only the data knows filled in; most need nothing."""
        return self

    def override(self, assignments: Iterable[str]) -> Self:
        """A copy with dotted `key=value` overrides (values in YAML).

        Raises InputError with key, value, what is allowed, and the nearest known key.
        """
        tree = self.model_dump()
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise InputError(f"{assignment!r} is not of the form key=value")
            set_key(tree, key.strip(), parse_value(key, text), self.keys())
        return self.validated(tree)

    @classmethod
    def validated(cls, tree: dict[str, Any]) -> Self:
        """The recipe of a tree of plain values, or InputError naming the first wrong key."""
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                raise InputError(f"unknown key {key!r}; {nearest(key, cls.keys())}") from None
            if first["type"] == "value_error" and not key:  # of several keys: names them
                raise InputError(str(first["ctx"]["error"])) from None
            reason = first["msg"][0].lower() + first["msg"][1:]
            if first["type"] == "tuple_type":
                reason = f"give a list, as [{first['input']}]"
            raise InputError(f"{key}={first['input']!r}: {reason}") from None

    @classmethod
    def keys(cls) -> dict[str, FieldInfo]:
        """Every dotted key with its field: default, limits and description."""
        return dict(walk(cls))

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


def walk(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Dotted keys of a section's leaves, in the order in which they are declared."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from walk(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested tree of values as {dotted key: value}."""
    out: dict[str, Any] = {}
    for name, value in tree.items():
        out |= (
            flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return out


def parse_value(key: str, text: str) -> Any:
    """The YAML value of `text`; also reads 1e-4, which YAML 1.1 takes for a string.

    What stands in quotes stays a string: '2012'.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"{key}={text!r}: not a YAML value") from None
    if isinstance(value, str) and value == text.strip():
        try:
            return float(value)
        except ValueError:
            return value
    return value


def set_key(tree: dict[str, Any], key: str, value: Any, known: Iterable[str]) -> None:
    """Set a dotted key of a tree of values, or raise InputError with the nearest known key."""
    known = list(known)
    if key == "recipe" or key not in known:
        raise InputError(f"unknown key {key!r}; {nearest(key, set(known) - {'recipe'})}")
    *sections, leaf = key.split(".")
    for name in sections:
        tree = tree[name]
    tree[leaf] = value


def allowed(field: FieldInfo) -> str:
    """What a field takes, in words: 'int, at least 1', 'resize | pad | crop'."""
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        text = " | ".join(str(value) for value in get_args(annotation))
    elif get_origin(annotation) is tuple:
        item = FieldInfo.from_annotation(get_args(annotation)[0])
        return f"list of {allowed(item)}"
    elif isinstance(annotation, type):
        text = annotation.__name__
    else:
        text = str(annotation).replace("NoneType", "none").replace("None", "none")
    limits = {
        "ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}",
        "multiple_of": "a multiple of {}",
    }  # fmt: skip
    for meta in field.metadata:
        for name, words in limits.items():
            if getattr(meta, name, None) is not None:
                text += ", " + words.format(getattr(meta, name))
    return text
