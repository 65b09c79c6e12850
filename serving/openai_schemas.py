"""The parameters of OpenAI's routes: its own, and with them some of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from genimg.operations import Tiling
from genimg.operations.drawing import LAST_SEED, LONGEST, Label, Sample
from genimg.operations.exploring import Vary
from genimg.section import Section
from serving.schemas import Asked

SLOWEST = 40_000  # milliseconds that a frame is shown: the file's format holds those of 16 alike


Quality = Literal["auto", "low", "medium", "standard", "high", "hd", "xhigh", "max"]
STEPS: dict[Quality, float] = {"low": 0.5, "high": 2, "hd": 2, "xhigh": 3, "max": 4}
"""By how many times as many steps a quality is drawn as a model's own."""
ENSEMBLES: tuple[Quality, ...] = ("high", "hd", "xhigh", "max")


def _only(allowed: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """For JSON Schema: what a field allows, in place of what its type does."""

    def change(schema: dict[str, Any]) -> None:
        schema.pop("anyOf", None)
        schema |= allowed

    return change


def _field(section: type[Section], name: str) -> Any:
    """A field of another section: its words, default and limits."""
    return section.model_fields[name]


class OpenAI(Asked):
    """What every one of OpenAI's routes that draw takes."""

    n: int = Field(1, ge=1, le=10)
    """how many images"""
    size: str = Field("auto", pattern=r"^(auto|[0-9]{1,5}x[0-9]{1,5})$", examples=["64x64"])
    """`auto`, or the size that the model makes, as in 64x64"""
    response_format: Literal["b64_json", "url"] = "b64_json"
    """base64, or a data URL"""
    output_format: Literal["png", "jpeg", "webp", "gif"] = "png"
    """format of the images; gif: moving pictures, of models that make some"""
    output_compression: int | None = Field(None, ge=0, le=100)
    """quality of jpeg and webp, else 95 and lossless; png and gif have none"""
    frame_count: int = Field(9, ge=2, le=16)
    """frames of a gif"""
    frame_duration_ms: int = Field(200, ge=10, le=SLOWEST)
    """milliseconds that each of them is shown, rounded to tens"""
    user: str | None = None
    """taken, and not used"""
    safety_identifier: str | None = None
    """taken, and not used"""

    @property
    def moves(self) -> bool:
        """Whether moving pictures are asked for."""
        return self.output_format == "gif"


class Prompted(OpenAI):
    """What those take that have a prompt."""

    prompt: str = Field("", max_length=LONGEST)
    """empty, for models that take none"""
    background: Literal["auto", "opaque", "transparent"] = "auto"
    """opaque: on white; transparent: only of images that are so, for no model makes them"""
    quality: Quality = "auto"
    """what a model has to offer for it, and else of no effect: of those that draw in steps low half
    as many, high and hd twice, xhigh three and max four times as many; of those that restore from
    high on `ensemble`"""
    complexity: str | None = Field(None, json_schema_extra=_only({"type": "null"}))
    """not supported: leave it out"""
    svg: Any = Field(None, json_schema_extra=_only({"type": "null"}))
    """not supported: leave it out"""
    stream: bool = False
    """answer with events: partial images, and each image when it is done"""
    partial_images: int = Field(0, ge=0, le=3)
    """with stream: how many partial images of each, at most"""

    @field_validator("complexity")
    @classmethod
    def no_planning(cls, complexity: str | None) -> None:
        if complexity is not None:
            raise ValueError("no model plans what it draws; leave it out")

    @field_validator("svg")
    @classmethod
    def no_svg(cls, svg: Any) -> None:
        if svg is not None:
            raise ValueError("no model draws svg; leave it out")


class Generations(Prompted):
    """OpenAI's parameters with our own: `seed`, `truncation`, `label`, `steps`, `guidance`
    and `direction`."""

    seed: int = _field(Sample, "seed")
    truncation: float = _field(Sample, "truncation")
    label: Label | None = _field(Sample, "label")
    steps: int | None = _field(Sample, "steps")
    guidance: float | None = _field(Sample, "guidance")
    direction: str | None = _field(Sample, "direction")

    prompt: str = Field("", max_length=LONGEST)
    """what to draw, or the class, as `label` takes it; empty, for models that take none"""

    moderation: Literal["auto", "low"] = "auto"
    """nothing is moderated"""
    style: str | None = Field(None, json_schema_extra=_only({"type": "null"}))
    """not supported: leave it out"""

    @field_validator("style")
    @classmethod
    def no_style(cls, style: str | None) -> None:
        if style is not None:
            raise ValueError("there are no styles; leave it out")


class Edits(Prompted, Tiling):
    """OpenAI's parameters with our own `strength`, `ensemble`, `tile` and, for gif, `seed`."""

    limited: ClassVar[Mapping[str, str]] = {"tile": "max_tile"}

    n: int = Field(1, ge=1, le=10)
    """of gif how many, by models that draw what follows; else 1: what is restored does not vary"""
    prompt: str = Field("", json_schema_extra=_only({"const": ""}))
    """empty: no model takes one here"""
    size: Literal["auto"] = "auto"
    """that of the image; of gif that of the model"""
    input_fidelity: Literal["high", "low"] = "high"
    """taken, and not used: what is not restored stays as it is"""
    seed: int = Field(-1, ge=-1, le=LAST_SEED)
    """of gif, by models that draw what follows: image i is that of seed + i; -1: at random"""

    @field_validator("prompt")
    @classmethod
    def no_prompt(cls, prompt: str) -> str:
        if prompt.strip():
            raise ValueError("models that restore take no prompt; leave it empty")
        return prompt


class Variations(OpenAI):
    """OpenAI's parameters with our own `seed` and `strength`."""

    seed: int = _field(Vary, "seed")
    strength: float = _field(Vary, "strength")


def given(wanted: OpenAI, *names: str) -> dict[str, Any]:
    """Those of some parameters that a client gave, with their values."""
    return {name: getattr(wanted, name) for name in names if name in wanted.model_fields_set}
