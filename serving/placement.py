"""Where what is served runs: how many replicas, with which resources."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from genimg.section import Section


class Autoscaling(Section):
    min_replicas: int = Field(1, ge=0)
    """replicas that stay when nobody asks; 0 stops the last one too"""
    max_replicas: int = Field(1, ge=1)
    """replicas under the highest load"""
    target_ongoing_requests: float = Field(2.0, gt=0)
    """requests a replica should have at once; more start another replica"""

    @model_validator(mode="after")
    def in_order(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas={self.min_replicas} is more than max_replicas={self.max_replicas}"
            )
        return self


class Placement(Section):
    num_cpus: float = Field(1.0, ge=0)
    """CPUs of each replica"""
    num_gpus: float = Field(0.0, ge=0)
    """GPUs of each replica; a fraction shares one"""
    replicas: int = Field(1, ge=1)
    """how many, where autoscaling is not given"""
    autoscaling: Autoscaling | None = None
    """let the number of replicas follow the load"""

    @property
    def fewest(self) -> int:
        """Replicas that there are when nobody asks."""
        return self.autoscaling.min_replicas if self.autoscaling else self.replicas

    @field_validator("num_cpus", "num_gpus")
    @classmethod
    def as_ray_counts(cls, value: float) -> float:
        if round(value, 4) != value:
            raise ValueError("must have at most four decimals")
        return value

    @field_validator("num_gpus")
    @classmethod
    def whole_gpus(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("must be a fraction of one GPU or a whole number of them")
        return value

    @model_validator(mode="after")
    def one_number_of_replicas(self) -> Self:
        if self.autoscaling and "replicas" in self.model_fields_set:
            raise ValueError("replicas and autoscaling are both given; leave one of them out")
        return self
