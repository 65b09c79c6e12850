"""Models in replicas of their own, and with those in this process as one backend."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from cluster.fallback import over
from cluster.registry import Registry
from cluster.storage import StorageError
from cluster.versions import Unknown, parse_reference
from genimg import bundled
from serving.backend import LocalBackend, by_the_first, choose, loading, usable, wanted_of
from serving.errors import ApiError, model_broken
from serving.model_settings import ModelSettings
from serving.passes import Tell
from serving.requests import Answer, ModelInfo, Partial, Request, Show
from serving.settings import Settings

logger = logging.getLogger(__name__)

Handle = DeploymentHandle[Any]

REPLICA_LOST = "replica_lost"
_INFO_S = 1.0  # seconds that a model of its own has to say what it is
_LOOK_UP_S = 2.0  # between two looks at what a model is that is asleep
_AGAIN_S = 0.05  # after a replica that cannot say it any more


def local_backend(settings: Settings, handles: Collection[str]) -> LocalBackend:
    """A backend, not loaded yet, of the models that the ingress has, on the GPU that Ray assigns
    if any; handles: references of the others."""
    device = None if settings.ingress.num_gpus else "cpu"
    elsewhere = {parse_reference(ref)[0] for ref in handles}
    return LocalBackend(in_ingress(settings, handles), device=device, elsewhere=elsewhere)


def backend_of(settings: Settings, ref: str) -> LocalBackend:
    """A backend, not loaded yet, of a model of its own."""
    own = of_its_own(settings, ref)
    return LocalBackend(own, device=None if own.models[0].num_gpus else "cpu")


def in_ingress(settings: Settings, handles: Collection[str]) -> Settings:
    """Settings without the models of their own."""
    here = tuple(model for model in settings.models if model.ref not in handles)
    return settings.model_copy(update={"models": here})


def of_its_own(settings: Settings, ref: str) -> Settings:
    """Settings with nothing but a model of its own."""
    models = tuple(model for model in settings.models if model.ref == ref)
    return settings.model_copy(update={"models": models, "discover": (), "memory": None})


class RemoteModel:
    """A model in a deployment of its own."""

    def __init__(self, settings: ModelSettings, handle: Handle) -> None:
        self.ref = settings.ref
        self.handle = handle
        self.may_sleep = settings.fewest == 0
        self.has_others = settings.fewest > 1
        self.info: ModelInfo | None = None  # what it said last, or the registry of one asleep
        self.answers = self.may_sleep  # whether it did when it was asked last
        self._look: Callable[[], ModelInfo] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._looked = self._asked = 0.0  # when, time.monotonic()

    def looks_up(self, look: Callable[[], ModelInfo]) -> None:
        """What says, in any thread, what it is while it is asleep; asked now and then."""
        self._look = look

    async def call(
        self, request: Request, tell: Tell | None = None, show: Show | None = None
    ) -> Answer:
        """A request's answer. Raises ApiError.

        What a lost replica held is given to another where there is one, and once: it may be the
        request that ends them.
        """
        try:
            return await self._call(request, tell, show)
        except ApiError as error:
            if error.code != REPLICA_LOST or not self.has_others:
                raise
        return await self._call(request, tell, show)

    async def _call(self, request: Request, tell: Tell | None, show: Show | None) -> Answer:
        response: Any
        tells = bool(tell or show)
        if tells:
            response = self.handle.options(stream=True).call_and_tell.remote(request)
        else:
            response = self.handle.call.remote(request)
        try:
            answer: Answer | ApiError = await (last_of(response, tell, show) if tells else response)
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
        if self.may_sleep and self.info:  # now it is awake, and can be asked
            another = answer.version != self.info.version and not self.info.canary
            late = time.monotonic() >= self._asked + _LOOK_UP_S
            if another or late or self.info.state != "ready":
                await self.ask(wake=True)
        return answer

    async def ask(self, wake: bool = False) -> None:
        """Renew `info`, if the model answers soon.

        One that may be asleep is asked only to `wake` it, and waited for while it is unknown; else
        it is looked up.
        """
        if self.may_sleep and not wake:
            await self._look_up()
            return
        patience = None if self.may_sleep and self.info is None else _INFO_S
        self._asked = time.monotonic()
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

    async def _look_up(self) -> None:
        """Renew the `info` of a model that has not said yet what it is, if that is soon known."""
        if self.info and self.info.state == "ready":
            return
        if self._looking is None and time.monotonic() >= self._looked + _LOOK_UP_S and self._look:
            self._looking = asyncio.create_task(self._look_now(self._look))
        if self._looking:
            await asyncio.wait({self._looking}, timeout=_INFO_S)

    async def _look_now(self, look: Callable[[], ModelInfo]) -> None:
        try:
            info = await asyncio.to_thread(look)
        except Exception as error:  # of the registry: the model says it, once it is awake
            logger.info("%s: cannot be looked up: %r", self.ref, error)
        else:
            if self.info is None or self.info.state != "ready":
                self.info = info
        finally:
            self._looked, self._looking = time.monotonic(), None


async def last_of(
    stream: AsyncIterable[float | Partial | Answer | ApiError],
    tell: Tell | None = None,
    show: Show | None = None,
) -> Any:
    """What comes behind all that is only told or shown."""
    last: Any = None
    async for last in stream:
        if tell and isinstance(last, float):
            tell(last)
        if show and isinstance(last, Partial):
            show(last)
    return last


class ComposedBackend:
    """Models in this process, and models in deployments of their own, as one backend."""

    def __init__(self, settings: Settings, handles: Mapping[str, Handle]) -> None:
        """handles: of those deployments, by the models' references."""
        self.settings = settings
        self.local = local_backend(settings, handles)
        self._registry: Registry | None = None
        self.remote = {
            model.ref: RemoteModel(model, handles[model.ref])
            for model in settings.models
            if model.ref in handles
        }
        for model in settings.models:
            if model.ref in handles and model.fewest == 0:
                self.remote[model.ref].looks_up(partial(self._looked_up, model))

    def _looked_up(self, model: ModelSettings) -> ModelInfo:
        """What a model of its own is that is asleep: broken where its version is. Raises
        RegistryError or StorageError."""
        from serving.slots import Slot  # torch comes with it

        if self._registry is None:
            self._registry = over(self.settings.registry, bundled.FOLDER)
        slot = Slot(model)
        device = None if model.num_gpus else "cpu"
        try:
            slot.look(self._registry, device, self.settings.poll_s)
        except (StorageError, Unknown):
            raise
        except Exception as error:  # which is told
            logger.warning("%s: is refused (%s)", model.ref, error)
        return slot.told()

    async def call(
        self,
        model: str | None,
        request: Request,
        tell: Tell | None = None,
        show: Show | None = None,
    ) -> Answer:
        wanted = wanted_of(request)

        async def chosen(but: Collection[str]) -> ModelInfo:
            def choice(infos: Iterable[ModelInfo]) -> ModelInfo:
                left = [info for info in infos if info.id not in but]
                return choose(usable(left, request.caller), model, *wanted)

            try:
                return choice(await self._known())
            except ApiError:  # those of their own may be asleep, or have learnt more meanwhile
                remote = self.remote.values()
                await asyncio.gather(*(each.ask(wake=each.info is None) for each in remote))
                return choice(await self._known())

        async def ask(ref: str) -> Answer:
            if (own := self.remote.get(ref)) is None:
                return await self.local.call(ref, request, tell, show)
            if own.info and own.info.state == "broken":
                await own.ask()  # or it is mended
                if own.info.state == "broken":
                    reason = own.info.rejected.reason if own.info.rejected else ""
                    raise model_broken(ref, reason)
            return await own.call(request, tell, show)

        return await by_the_first(model, chosen, ask)

    async def models(self) -> list[ModelInfo]:
        await asyncio.gather(*(remote.ask() for remote in self.remote.values()))
        return await self._known()

    async def _known(self) -> list[ModelInfo]:
        if not self.remote:
            return await self.local.models()
        infos = {info.id: info for info in await self.local.models()}
        infos |= {ref: remote.info or loading(ref) for ref, remote in self.remote.items()}
        named = [model.ref for model in self.settings.models]
        order = dict.fromkeys([*named, *infos])  # those that were found come last
        return [infos[ref] for ref in order if ref in infos]  # not what has just come or gone

    def ready(self) -> bool:
        """Whether every model could be asked when `models` was called last."""
        return self.local.ready() and all(each.answers for each in self.remote.values())

    async def change(self, settings: Settings) -> None:
        """As of LocalBackend."""
        await self.local.change(in_ingress(settings, self.remote))
        self.settings = settings
