"""What a server is told: which models, where they run, and what a request may ask for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field, model_validator

from cluster.registry import Registry
from genimg.errors import InputError
from genimg.section import Section
from serving.discovery import discovered
from serving.model_settings import Discovery, ModelSettings
from serving.placement import Placement

Format = Literal["json", "text"]


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
    models: tuple[ModelSettings, ...] = ()
    """what is served; the first that can do what is asked for answers where no model is named"""
    discover: tuple[Discovery, ...] = ()
    """what is served of the registry besides, each model once, as the first of these says that fits
    it; behind `models` in their order, and by name. Loaded once it is asked for"""
    max_discovered: int = Field(100, ge=1)
    """models found by `discover`; what else there is is not served"""
    memory: int | None = Field(None, ge=1)
    """bytes that the weights of the models in a replica of the ingress may take; those that are not
    resident make room for one another, least recently used first"""
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
    def something(self) -> Self:
        if not (self.models or self.discover):
            raise ValueError("nothing is served; give models, or discover")
        return self

    @model_validator(mode="after")
    def each_once(self) -> Self:
        references = [model.ref for model in self.models]
        twice = sorted({ref for ref in references if references.count(ref) > 1})
        if twice:
            raise ValueError(f"models: {', '.join(twice)} is given twice; leave one out")
        return self

    def renewed(self, new: Settings) -> tuple[Settings, list[str]]:
        """(these with what can be had of new ones without a restart, the keys of what cannot).

        Models in the ingress, where to find them and their memory, limits, keys and origins can; of
        models in replicas of their own all but where these are.
        """
        later: list[str] = []
        own = {model.ref: model for model in self.models if model.placement == "own"}
        models = []
        for model in new.models:
            old = own.pop(model.ref, None)
            stays = model.placed == old.placed if old else model.placement == "ingress"
            if stays:
                models.append(model)
            else:
                later.append(f"models ({model.ref})")
                models += [old] if old else []
        later += [f"models ({ref})" for ref in own]
        models += own.values()
        limits = new.limits.model_copy(update={"upload_s": self.limits.upload_s})
        later += ["limits.upload_s"] if limits != new.limits else []
        keys = ("keys_file", "open", "origins", "discover", "max_discovered", "memory")
        live = {key: getattr(new, key) for key in keys}
        live |= {"models": tuple(models), "limits": limits}
        if not (models or new.discover):
            live["models"] = self.models
        for key in type(self).model_fields:
            if key not in live and key != "changes" and getattr(self, key) != getattr(new, key):
                later.append(key)
        return self.model_copy(update=live), later

    def expanded(self, registry: Registry) -> tuple[ModelSettings, ...]:
        """The models with those that are found now. Raises InputError where there are too many."""
        found = discovered(registry, self.discover, {model.name for model in self.models})
        if len(found) > self.max_discovered:
            raise InputError(
                f"discover: {len(found)} models are found in {registry.storage}, and "
                f"max_discovered={self.max_discovered}; narrow it down, or raise that"
            )
        return (*self.models, *found)

    def places(self) -> int:
        """Requests that a replica of the ingress takes at a time."""
        return places([*self.models, *(each.model("any") for each in self.discover)])

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
