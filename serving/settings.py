"""What a server is told: which models, where they run, and what a request may ask for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from cluster.versions import RegistryError, parse_reference
from genimg.precision import Choice
from genimg.section import Section

Format = Literal["json", "text"]


class Autoscaling(Section):
    min_replicas: int = Field(1, ge=0)
    """replicas that stay when nobody asks; 0 stops the last one too"""
    max_replicas: int = Field(1, ge=1)
    """replicas under the highest load"""
    target_ongoing_requests: float = Field(2.0, gt=0)
    """requests a replica should have at once; more start another replica"""
    target_megapixels: float | None = Field(None, gt=0)
    """megapixels that a replica should have at once, waiting or computed, whatever requests they
    are of; in place of target_ongoing_requests"""
    downscale_delay_s: float = Field(300.0, ge=0)
    """seconds of a lower load until a replica is stopped"""

    @model_validator(mode="after")
    def one_target(self) -> Self:
        if self.target_megapixels and "target_ongoing_requests" in self.model_fields_set:
            raise ValueError(
                "target_megapixels and target_ongoing_requests are both given; leave one out"
            )
        return self

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


class ModelSettings(Placement):
    ref: str
    """NAME (the newest version), NAME@ALIAS or NAME@7; what clients give as `model`"""
    placement: Literal["ingress", "own"] = "ingress"
    """in the replicas that take the requests (fastest), or in replicas of its own"""
    max_batch_size: int = Field(16, ge=1)
    """images computed together"""
    max_queue: int = Field(128, ge=1)
    """images that may wait; one to restore counts as one for each megapixel begun"""
    precision: Choice = "auto"
    """float32 or bfloat16; auto takes bfloat16 where the hardware multiplies it natively"""

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
        return self


class Limits(Section):
    max_bytes: int = Field(50_000_000, ge=1)
    """bytes of a request's body"""
    max_pixels: int = Field(64_000_000, ge=1)
    """pixels of an image, told from its header"""
    max_images: int = Field(64, ge=1, le=65_536)
    """images of one request to the native routes; OpenAI's has a limit of its own, 10"""
    max_tile: int = Field(2048, ge=512)
    """pixels a side that a restorer computes at once; what a request's `tile` may ask for"""
    upload_s: float = Field(60.0, gt=0)
    """seconds that a client has to send a request's body"""
    timeout_s: float = Field(60.0, gt=0)
    """seconds until a request, once it is there, is given up"""


class JobSettings(Section):
    storage: str | None = None
    """folder or URL where jobs, their inputs and results are kept; without it the registry's"""
    at_once: int = Field(1, ge=0)
    """jobs that each replica of the ingress sees to at once; 0: it only takes them"""
    max_queued: int = Field(100, ge=1)
    """jobs that may wait; more are answered with 429"""
    keep_s: float = Field(86_400.0, gt=0)
    """seconds that a job is kept after its end, with its result"""
    timeout_s: float = Field(3600.0, gt=0)
    """seconds from a job's begin until it is given up"""
    attempts: int = Field(3, ge=1)
    """how often a job is begun, where the process that computes it ends"""
    lease_s: float = Field(15.0, ge=0.5)
    """seconds without a sign of life until a job's process counts as dead, and another goes on"""
    webhook_hosts: tuple[str, ...] = ()
    """hosts that may be told of a job's end, as example.org or example.org:8080; none unless named
    here"""


class Settings(Section):
    registry: str = "registry"
    """folder or URL of the model registry"""
    models: tuple[ModelSettings, ...] = Field(min_length=1)
    """what is served; the first that can do what is asked for answers where no model is named"""
    ingress: Placement = Placement()
    """the replicas that take the requests"""
    limits: Limits = Limits()
    jobs: JobSettings = JobSettings()
    """what is asked for with async=true"""
    poll_s: float = Field(2.0, gt=0)
    """seconds between two looks at where the references point, at the keys, and for jobs of other
    servers"""
    origins: tuple[str, ...] = ()
    """sites whose scripts may call this from a browser, as https://example.org; `*`: all"""
    keys_file: str | None = None
    """file with the keys of those who may ask, here or in S3, as `genimg keys` writes it; without
    one, and without GENIMG_KEYS in the environment, nobody is asked for a key"""
    open: bool = False
    """everybody who reaches it may ask, also from other machines"""
    log_format: Format | None = None
    """write a line for each request, and what else is told, as this; none: no lines of requests"""
    log_file: str | None = None
    """file or pipe that lines are appended to, on each node; without one the standard output of
    each replica, which Ray keeps among its logs, or of `genimg serve`"""
    changes: str | None = None
    """where replicas find what `genimg serve` reads in its config file later; it says so itself"""

    @model_validator(mode="after")
    def each_once(self) -> Self:
        references = [model.ref for model in self.models]
        twice = sorted({ref for ref in references if references.count(ref) > 1})
        if twice:
            raise ValueError(f"models: {', '.join(twice)} is given twice; leave one out")
        return self

    def renewed(self, new: Settings) -> tuple[Settings, list[str]]:
        """(these with what can be had of new ones without a restart, the keys of what cannot).

        Models in the ingress, limits, keys and origins can; models in replicas of their own stay.
        """
        later: list[str] = []
        own = {model.ref: model for model in self.models if model.placement == "own"}
        models = []
        for model in new.models:
            if model.placement == "own" or model.ref in own:
                later += [f"models ({model.ref})"] if model != own.get(model.ref) else []
                models += [own.pop(model.ref)] if model.ref in own else []
            else:
                models.append(model)
        later += [f"models ({ref})" for ref in own]
        models += own.values()
        limits = new.limits.model_copy(update={"upload_s": self.limits.upload_s})
        later += ["limits.upload_s"] if limits != new.limits else []
        live = {key: getattr(new, key) for key in ("keys_file", "open", "origins")}
        live |= {"models": tuple(models) or self.models, "limits": limits}
        for key in type(self).model_fields:
            if key not in live and key != "changes" and getattr(self, key) != getattr(new, key):
                later.append(key)
        return self.model_copy(update=live), later

    def places(self) -> int:
        """Requests that a replica of the ingress takes at a time."""
        return places(self.models)

    def least(self) -> tuple[float, float]:
        """(CPUs, GPUs) that the smallest number of replicas takes."""
        own = [model for model in self.models if model.placement == "own"]
        cpus, gpus = 0.0, 0.0
        for place in (self.ingress, *own):
            cpus += place.fewest * place.num_cpus
            gpus += place.fewest * place.num_gpus
        return cpus, gpus


def places(models: Iterable[ModelSettings]) -> int:
    """Requests that a replica with some models takes at a time: so many that it is their queues,
    and not Serve, which turn away what is too much."""
    return 2 * sum(model.max_queue + model.max_batch_size for model in models) + 100
