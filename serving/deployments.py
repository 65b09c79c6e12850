"""The app on Ray Serve: models in the replicas that answer HTTP, or in replicas of their own.

`build` is what `genimg serve` and a config file of Serve (serving/config.yaml) start. Ray reads its
annotation to check the arguments, which is why annotations are not postponed in this file.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from cluster.keys import is_loopback, remedy
from genimg.errors import InputError
from serving import exposition, following, listening, logs
from serving.backend import LocalBackend, choose, loading, usable, wanted_of
from serving.errors import ApiError
from serving.exposition import Counted
from serving.jobs.desk import Jobs
from serving.keys import Keys, keys_of
from serving.metrics import Meters
from serving.passes import Tell
from serving.renewing import Renewing
from serving.requests import Answer, ModelInfo, Request
from serving.settings import ModelSettings, Placement, Settings, places

logger = logging.getLogger(__name__)

Handle = DeploymentHandle[Any]

INGRESS = "ingress"
REPLICA_LOST = "replica_lost"
_INFO_S = 1.0  # seconds that a model of its own has to say what it is
_AGAIN_S = 0.05  # after a replica that cannot say it any more
_TELL_S = 0.5  # between two signs of how much is done


def build(args: Settings) -> serve.Application:
    """The application of some settings; Ray makes them from the `args` of a config file."""
    own = [model for model in args.models if model.placement == "own"]
    handles = {model.ref: placed(_Model, model, [model], args).bind(args, model) for model in own}
    return placed(_Ingress, args.ingress, args.models, args).bind(args, handles)


def placed(
    deployment: Any, placement: Placement, models: Sequence[ModelSettings], settings: Settings
) -> Any:
    """A deployment for some models, with the resources and replicas that were asked for."""
    # Serve's own limit comes second: the answer of a model's queue is JSON, and says what to do.
    most = places(models)
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
        options["autoscaling_config"] = placement.autoscaling.model_dump() | {
            "metrics_interval_s": 2,
            "look_back_period_s": 10,
            "upscale_delay_s": 5,
            "downscale_delay_s": 300,
        }
    return deployment.options(**options)


def local_backend(
    settings: Settings, models: Sequence[ModelSettings], placement: Placement
) -> LocalBackend:
    """A backend, not loaded yet, of some of the models, on the GPU that Ray assigns if any."""
    some = settings.model_copy(update={"models": tuple(models)})
    return LocalBackend(some, device=None if placement.num_gpus else "cpu")


def load(backend: LocalBackend, placement: Placement) -> None:
    """Load the models, and let PyTorch take the CPUs of this replica and no more."""
    if backend.settings.models:
        import torch

        torch.set_num_threads(max(1, int(placement.num_cpus)))
    backend.load()


class RemoteModel:
    """A model in a deployment of its own."""

    def __init__(self, settings: ModelSettings, handle: Handle) -> None:
        self.ref = settings.ref
        self.handle = handle
        self.may_sleep = settings.fewest == 0
        self.has_others = settings.fewest > 1
        self.info: ModelInfo | None = None  # what it said last
        self.answers = self.may_sleep  # whether it did when it was asked last

    async def call(self, request: Request, tell: Tell | None = None) -> Answer:
        """A request's answer. Raises ApiError.

        What a lost replica held is given to another where there is one, and once: it may be the
        request that ends them.
        """
        try:
            return await self._call(request, tell)
        except ApiError as error:
            if error.code != REPLICA_LOST or not self.has_others:
                raise
        return await self._call(request, tell)

    async def _call(self, request: Request, tell: Tell | None) -> Answer:
        response: Any
        if tell:
            response = self.handle.options(stream=True).call_and_tell.remote(request)
        else:
            response = self.handle.call.remote(request)
        try:
            answer: Answer | ApiError = await (last_of(response, tell) if tell else response)
        except asyncio.CancelledError:
            response.cancel()
            raise
        except BackPressureError:
            message = "too many requests wait already; try again in a second"
            raise ApiError(429, "queue_full", message, headers={"Retry-After": "1"}) from None
        except RayTaskError:
            raise  # a fault of ours, which is logged
        except (RayError, RayServeException) as error:
            logger.warning("%s: a replica is lost: %s", self.ref, error)
            message = f"the process that computed this for {self.ref} has ended; try again"
            raise ApiError(503, REPLICA_LOST, message, headers={"Retry-After": "1"}) from None
        if isinstance(answer, ApiError):
            raise answer
        if self.may_sleep and self.info and answer.version != self.info.version:
            await self.ask(wake=True)
        return answer

    async def ask(self, wake: bool = False) -> None:
        """Renew `info`, if the model answers soon.

        One that may be asleep is asked only to `wake` it, and waited for while it is unknown.
        """
        if self.may_sleep and not wake:
            return
        patience = None if self.may_sleep and self.info is None else _INFO_S
        response: Any = None
        try:
            async with asyncio.timeout(patience):
                while True:
                    response = self.handle.info.remote()
                    try:
                        self.info = await response
                    except (RayError, RayServeException):  # another may be there
                        await asyncio.sleep(_AGAIN_S)
                    else:
                        break
        except TimeoutError:
            response.cancel()
            self.answers = self.may_sleep
        else:
            self.answers = True


async def last_of(stream: AsyncIterable[float | Answer | ApiError], tell: Tell) -> Any:
    """What comes behind all that is only told."""
    last: Any = None
    async for last in stream:
        if isinstance(last, float):
            tell(last)
    return last


class ComposedBackend:
    """Models in this process, and models in deployments of their own, as one backend."""

    def __init__(self, settings: Settings, handles: Mapping[str, Handle]) -> None:
        """handles: of those deployments, by the models' references."""
        self.settings = settings
        here = [model for model in settings.models if model.ref not in handles]
        self.local = local_backend(settings, here, settings.ingress)
        self.remote = {
            model.ref: RemoteModel(model, handles[model.ref])
            for model in settings.models
            if model.ref in handles
        }

    async def call(self, model: str | None, request: Request, tell: Tell | None = None) -> Answer:
        wanted = wanted_of(request)
        try:
            chosen = choose(usable(await self._known(), request.caller), model, *wanted)
        except ApiError:  # those of their own may be asleep, or have learnt more meanwhile
            remote = self.remote.values()
            await asyncio.gather(*(each.ask(wake=each.info is None) for each in remote))
            chosen = choose(usable(await self._known(), request.caller), model, *wanted)
        if chosen.id in self.remote:
            return await self.remote[chosen.id].call(request, tell)
        return await self.local.call(chosen.id, request, tell)

    async def models(self) -> list[ModelInfo]:
        await asyncio.gather(*(remote.ask() for remote in self.remote.values()))
        return await self._known()

    async def _known(self) -> list[ModelInfo]:
        infos = {info.id: info for info in await self.local.models()}
        infos |= {ref: remote.info or loading(ref) for ref, remote in self.remote.items()}
        known = (infos.get(model.ref) for model in self.settings.models)
        return [info for info in known if info]  # not what has just come or gone

    def ready(self) -> bool:
        """Whether every model could be asked when `models` was called last."""
        return self.local.ready() and all(each.answers for each in self.remote.values())

    async def change(self, settings: Settings) -> None:
        """As of LocalBackend."""
        here = tuple(model for model in settings.models if model.ref not in self.remote)
        await self.local.change(settings.model_copy(update={"models": here}))
        self.settings = settings


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
        self.renewing = await asyncio.to_thread(
            Renewing, settings, self.backend, self.meters,
            lambda settings: guard(settings, self.meters),
            Jobs(settings, self.backend, self.meters), self._exposition,
        )  # fmt: skip
        await asyncio.to_thread(load, self.backend.local, settings.ingress)
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
        self.backend = local_backend(settings, [model], model)
        logs.opened(settings, self.backend.meters)
        await asyncio.to_thread(load, self.backend, model)
        follows = following.follow(settings, seen, self._change, self.backend.meters)
        self.following = asyncio.create_task(follows)

    async def call(self, request: Request, tell: Tell | None = None) -> Answer | ApiError:
        """The client's errors are given, not raised: Ray would log and wrap them."""
        try:
            return await self.backend.call(self.ref, request, tell)
        except ApiError as error:
            return error

    async def call_and_tell(self, request: Request) -> AsyncIterator[float | Answer | ApiError]:
        """As `call`, after signs of how much of it is done."""
        shares = deque([0.0], maxlen=1)
        call = asyncio.create_task(self.call(request, shares.append))
        try:
            while not (await asyncio.wait([call], timeout=_TELL_S))[0]:
                yield shares[0]
            yield await call
        finally:
            call.cancel()

    async def info(self) -> ModelInfo:
        return (await self.backend.models())[0]

    async def counted(self) -> Counted:
        return Counted(replica(), self.backend.meters.families())

    async def _change(self, settings: Settings) -> None:
        models = self.backend.settings.models
        await self.backend.change(settings.model_copy(update={"models": models}))

    async def check_health(self) -> None:
        await self.backend.check_health()

    async def __del__(self) -> None:
        self.following.cancel()
        await asyncio.to_thread(self.backend.close)
