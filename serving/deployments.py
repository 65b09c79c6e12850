"""The app on Ray Serve: models in the replicas that answer HTTP, or in replicas of their own.

`build` is what `genimg serve` and a config file of Serve (serving/config.yaml) start. Ray reads its
annotation to check the arguments, which is why annotations are not postponed in this file.
"""

import asyncio
import gc
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from cluster.changes import publish
from cluster.keys import is_loopback, remedy
from genimg.errors import InputError
from serving import exposition, following, listening, logs
from serving.autoscaling import JOBS, MEGAPIXELS, ByMegapixels, ByRequests
from serving.backend import LocalBackend
from serving.errors import ApiError
from serving.exposition import Counted
from serving.jobs.desk import Jobs
from serving.keys import Keys, keys_of
from serving.metrics import Meters
from serving.model_settings import ModelSettings
from serving.passes import Tell
from serving.placement import Placement
from serving.remote import ComposedBackend, Handle, backend_of, of_its_own
from serving.renewing import Renewing
from serving.requests import Answer, ModelInfo, Partial, Request, Show
from serving.settings import Settings, places

logger = logging.getLogger(__name__)

INGRESS = "ingress"
_OBJECTS = 10_000  # more than are made for requests that wait together, which end by themselves
_TELL_S = 0.5  # between two signs of how much is done


def build(args: Settings) -> serve.Application:
    """The application of some settings; Ray makes them from the `args` of a config file."""
    own = [model for model in args.models if model.placement == "own"]
    handles = {
        model.ref: placed(_Model, model, places([model]), args).bind(args, model) for model in own
    }
    return placed(_Ingress, args.ingress, args.places(), args).bind(args, handles)


def placed(deployment: Any, placement: Placement, most: int, settings: Settings) -> Any:
    """A deployment with the resources and replicas that were asked for, each of which takes `most`
    requests at a time."""
    # Serve's own limit comes second: the answer of a model's queue is JSON, and says what to do.
    options: dict[str, Any] = {
        "ray_actor_options": {"num_cpus": placement.num_cpus, "num_gpus": placement.num_gpus},
        "max_ongoing_requests": most,
        "max_queued_requests": most,
        "backpressure_config": {"status_code": 429, "retry_after_s": 1},
        "health_check_period_s": 2,  # a replica that is lost is soon replaced
        "graceful_shutdown_timeout_s": settings.limits.timeout_s + 5,  # what has begun may end
        "graceful_shutdown_wait_loop_s": 0.5,
        "max_surge_percent": 100,  # new replicas are up before old ones stop
        # /metrics counts; a line for each request costs, even one that is not written
        "logging_config": {"enable_access_log": False, "log_level": "WARNING"},
    }
    if isinstance(placement, ModelSettings):
        options["name"] = placement.ref
    if placement.autoscaling is None:
        options["num_replicas"] = placement.replicas
    else:
        # Up within seconds of a burst, and down minutes after it: loading takes a while.
        scaling = placement.autoscaling.model_dump(exclude={"target_megapixels"})
        options["autoscaling_config"] = scaling | {
            "metrics_interval_s": 2,
            "look_back_period_s": 10,
            "upscale_delay_s": 5,
        }
        megapixels = placement.autoscaling.target_megapixels
        policy = ByMegapixels if megapixels else ByRequests
        options["autoscaling_config"]["policy"] = {
            "policy_function": f"{policy.__module__}:{policy.__name__}",
            "policy_kwargs": {
                "target": megapixels or placement.autoscaling.target_ongoing_requests
            },
        }
    return deployment.options(**options)


async def load(backend: LocalBackend, placement: Placement) -> None:
    """Load the models, and let PyTorch take the CPUs of this replica and no more.

    `genimg serve` is told what each of them can.
    """

    def loaded() -> None:
        if backend.settings.models or backend.settings.discover:
            import torch

            torch.set_num_threads(max(1, int(placement.num_cpus)))
        backend.load()
        gc.collect()
        gc.freeze()  # what stays is not looked through again and again, while nobody is answered
        gc.set_threshold(_OBJECTS)

    await asyncio.to_thread(loaded)
    for model in await backend.models():
        publish(f"can {model.id}", json.dumps(model.capabilities))


def guard(settings: Settings, meters: Meters) -> Keys | None:
    """The keys that a replica is to ask for. Raises InputError where it has none, and others than
    this machine could reach it, unless it is to be open; asks Serve where that is."""

    def replicas() -> int:
        if settings.ingress.autoscaling is None:
            return settings.ingress.replicas
        try:
            status = serve.status().applications[serve.get_replica_context().app_name]
            states = status.deployments[INGRESS].replica_states
            return sum(number for state, number in states.items() if state == "RUNNING")
        except (KeyError, RayError, RayServeException):  # it is being deployed
            return 1

    keys = keys_of(settings, meters, replicas)
    if not (keys or settings.open) and not is_loopback(host := listening.host()):
        raise InputError(remedy(host))
    return keys


def replica() -> str:
    """Id of the replica that asks."""
    return str(serve.get_replica_context().replica_id.unique_id)


@serve.deployment(name=INGRESS)
@serve.ingress()
class _Ingress:
    """Answers HTTP, by the models in its process and those behind the handles."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: Settings, handles: Mapping[str, Handle]
    ) -> None:
        listening.keep_inside()
        settings, seen = await asyncio.to_thread(following.newest, settings)
        self.backend = ComposedBackend(settings, handles)
        self.meters = self.backend.local.meters
        self.jobs = Jobs(settings, self.backend, self.meters)
        self.renewing = await asyncio.to_thread(
            Renewing, settings, self.backend, self.meters,
            lambda settings: guard(settings, self.meters),
            self.jobs, self._exposition,
        )  # fmt: skip
        await load(self.backend.local, settings.ingress)
        mine = serve.get_deployment_handle(INGRESS, serve.get_replica_context().app_name)
        self.handles = {INGRESS: mine, **handles}
        follows = following.follow(settings, seen, self.renewing.change, self.meters)
        self.following = asyncio.create_task(follows)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self.renewing.app

    async def _exposition(self) -> bytes:
        may_sleep = [ref for ref, remote in self.backend.remote.items() if remote.may_sleep]
        return await exposition.gathered(self.handles, await self.counted(), INGRESS, may_sleep)

    async def counted(self) -> Counted:
        return Counted(replica(), self.meters.families())

    def record_autoscaling_stats(self) -> dict[str, float]:
        return {MEGAPIXELS: self.backend.local.megapixels, JOBS: self.jobs.runner.left}

    async def check_health(self) -> None:
        await self.backend.local.check_health()

    async def __del__(self) -> None:
        self.following.cancel()
        await asyncio.to_thread(self.backend.local.close)
        await asyncio.to_thread(self.renewing.close)


@serve.deployment
class _Model:
    """One model in a process of its own."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: Settings, model: ModelSettings
    ) -> None:
        listening.keep_inside()
        settings, seen = await asyncio.to_thread(following.newest, settings)
        self.ref = model.ref
        self.backend = backend_of(settings, self.ref)
        logs.opened(settings, self.backend.meters)
        await load(self.backend, model)
        follows = following.follow(settings, seen, self._change, self.backend.meters)
        self.following = asyncio.create_task(follows)

    async def call(
        self, request: Request, tell: Tell | None = None, show: Show | None = None
    ) -> Answer | ApiError:
        """The client's errors are given, not raised: Ray would log and wrap them."""
        try:
            return await self.backend.call(self.ref, request, tell, show)
        except ApiError as error:
            return error

    async def call_and_tell(
        self, request: Request
    ) -> AsyncIterator[float | Partial | Answer | ApiError]:
        """As `call`, after how much of it is done, every second, and the partial images."""
        loop, shares = asyncio.get_running_loop(), deque([0.0], maxlen=1)
        partials: asyncio.Queue[Partial] = asyncio.Queue()

        def show(partial: Partial) -> None:
            loop.call_soon_threadsafe(partials.put_nowait, partial)

        call = asyncio.create_task(self.call(request, shares.append, show))
        coming = asyncio.create_task(partials.get())
        try:
            while not call.done():
                both = [call, coming]
                await asyncio.wait(both, timeout=_TELL_S, return_when=asyncio.FIRST_COMPLETED)
                if coming.done():
                    yield coming.result()
                    coming = asyncio.create_task(partials.get())
                elif not call.done():
                    yield shares[0]
            yield await call
        finally:
            call.cancel()
            coming.cancel()

    async def info(self) -> ModelInfo:
        return (await self.backend.models())[0]

    async def counted(self) -> Counted:
        return Counted(replica(), self.backend.meters.families())

    def record_autoscaling_stats(self) -> dict[str, float]:
        return {MEGAPIXELS: self.backend.megapixels}

    async def _change(self, settings: Settings) -> None:
        await self.backend.change(of_its_own(settings, self.ref))

    async def check_health(self) -> None:
        await self.backend.check_health()

    async def __del__(self) -> None:
        self.following.cancel()
        await asyncio.to_thread(self.backend.close)
