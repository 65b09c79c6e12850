"""What a server is told of its models: those that are named, and those that it is to find."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from cluster.versions import RegistryError, parse_reference
from genimg.precision import Choice
from genimg.section import Section
from serving.placement import Placement


class Computing(Section):
    max_batch_size: int = Field(16, ge=1)
    """images computed together"""
    max_queue: int = Field(128, ge=1)
    """images that may wait; one to restore counts as one for each megapixel begun"""
    precision: Choice = "auto"
    """float32 or bfloat16; auto takes bfloat16 where the hardware multiplies it natively"""


class Beside(Section):
    version: int | str
    """number or alias of another version of the model"""

    @field_validator("version")
    @classmethod
    def is_a_version(cls, version: int | str) -> int | str:
        try:
            parse_reference(f"any@{version}")
        except RegistryError:
            raise ValueError("give a number, or an alias") from None
        return version


class Canary(Beside):
    share: float = Field(ge=0, le=1)
    """of the requests, which it answers; the same request with a seed is answered by the same"""


class Shadow(Beside):
    share: float = Field(1.0, ge=0, le=1)
    """of the requests, which it computes once more for nobody, while nobody is answered"""


class ModelSettings(Placement, Computing):
    ref: str
    """NAME (the newest version), NAME@ALIAS or NAME@7; what clients give as `model`"""
    placement: Literal["ingress", "own"] = "ingress"
    """in the replicas that take the requests (fastest), or in replicas of its own"""
    resident: bool = True
    """in memory from the start; false: loaded once it is asked for, and given up again where
    another needs the memory"""
    canary: Canary | None = None
    """another version, which answers a share of the requests"""
    shadow: Shadow | None = None
    """another version, which computes what was answered once more, and is only counted"""

    @field_validator("ref")
    @classmethod
    def is_a_reference(cls, ref: str) -> str:
        try:
            parse_reference(ref)
        except RegistryError as error:
            raise ValueError(str(error)) from None
        return ref

    @model_validator(mode="after")
    def placed_once(self) -> Self:
        given = sorted(self.model_fields_set & Placement.model_fields.keys())
        if self.placement == "ingress" and given:
            raise ValueError(
                f"{self.ref}: {', '.join(given)} has no effect in the ingress; "
                "set it under `ingress`, or placement='own'"
            )
        if self.placement == "own" and not self.resident:
            raise ValueError(
                f"{self.ref}: resident=false has no effect in replicas of its own; "
                "give autoscaling.min_replicas=0"
            )
        return self

    @model_validator(mode="after")
    def beside_what_is_there(self) -> Self:
        if (self.canary or self.shadow) and not self.resident:
            key = "canary" if self.canary else "shadow"
            raise ValueError(f"{self.ref}: {key} needs resident: true")
        return self

    @property
    def name(self) -> str:
        return parse_reference(self.ref)[0]

    @property
    def placed(self) -> dict[str, Any]:
        """Where it is."""
        return {key: getattr(self, key) for key in ("placement", *Placement.model_fields)}

    @property
    def alone(self) -> ModelSettings:
        """Without what is beside it."""
        return self.model_copy(update={"canary": None, "shadow": None})

    def besides(self) -> dict[str, ModelSettings]:
        """What else of the model is served, by the keys that say so."""
        given = {"canary": self.canary, "shadow": self.shadow}
        return {
            key: self.alone.model_copy(update={"ref": f"{self.name}@{each.version}"})
            for key, each in given.items()
            if each
        }


class Discovery(Computing):
    """Models of the registry that are served without being named; it may be given as its pattern
    alone."""

    names: str
    """NAME with * and ? in it, for the newest versions; with @ALIAS those that have that alias"""

    @model_validator(mode="before")
    @classmethod
    def of_a_pattern(cls, given: object) -> object:
        return {"names": given} if isinstance(given, str) else given

    @field_validator("names")
    @classmethod
    def is_a_pattern(cls, names: str) -> str:
        pattern, at, alias = names.partition("@")
        if not re.fullmatch(r"[A-Za-z0-9_.*?\[\]!-]+", pattern):
            raise ValueError("give a NAME with * and ? in it, as gan-*, or * for all")
        if at:
            try:
                selector = parse_reference(f"any@{alias}")[1]
            except RegistryError:
                selector = None
            if not isinstance(selector, str):
                raise ValueError("behind the @ give an alias, as in gan-*@production")
        return names

    @property
    def pattern(self) -> str:
        return self.names.partition("@")[0]

    @property
    def alias(self) -> str | None:
        return self.names.partition("@")[2] or None

    def model(self, name: str) -> ModelSettings:
        """How a model that it has found is served."""
        ref = f"{name}@{self.alias}" if self.alias else name
        computing = {key: getattr(self, key) for key in Computing.model_fields}
        return ModelSettings(ref=ref, resident=False, **computing)
