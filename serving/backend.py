"""Who computes for the HTTP app: a protocol, and the plain backend of models in this process."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from cluster.versions import parse_reference
from genimg.errors import closest
from genimg.operations import OPERATIONS, Operation, Tiling, restoring
from serving.errors import ApiError, bad_value, model_loading
from serving.metrics import Meters
from serving.passes import Tell
from serving.requests import Answer, Caller, ModelInfo, Request, Show
from serving.settings import ModelSettings, Settings

if TYPE_CHECKING:
    from serving.host import Host

_LOADERS = 2  # models at a time: while one is read another is tried
_LOOK_S = 0.05  # between two looks whether somebody waits


class Backend(Protocol):
    async def call(
        self,
        model: str | None,
        request: Request,
        tell: Tell | None = None,
        show: Show | None = None,
    ) -> Answer:
        """A request's answer by a model (None: the first that can). Raises ApiError.

        tell: told from time to time how much is done
        show: shown the partial images that the request's output asks for
        """
        ...

    async def models(self) -> list[ModelInfo]:
        """Every served reference, in the order of the settings."""
        ...

    def ready(self) -> bool:
        """Whether every model can be asked."""
        ...


class LocalBackend:
    """Models in this process. Asked before `load` is done, it answers that they are loading."""

    def __init__(
        self, settings: Settings, meters: Meters | None = None, device: str | None = None
    ) -> None:
        """device: as for Engine.load."""
        self.settings = settings
        self.device = device
        self.meters = meters or Meters()
        self._hosts: dict[str, Host] = {}
        self._busy: Counter[Host] = Counter()  # requests under way
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False
        self._settling = threading.Thread(target=self._settle, name="settle", daemon=True)

    def load(self) -> None:
        """Load and warm up all models; takes seconds, in any thread.

        Raises what Host raises; the other models are then closed.
        """
        self._hosts = self._loaded(self.settings, self.settings.models)
        self._settling.start()

    def _settle(self) -> None:
        """What may come after the first requests."""
        for host in list(self._hosts.values()):
            host.settle(lambda: not self._closed)

    def _loaded(
        self, settings: Settings, models: Sequence[ModelSettings], settled: bool = False
    ) -> dict[str, Host]:
        if not models:
            return {}
        from serving.host import Host  # torch comes with it

        def loaded(model: ModelSettings) -> Host:
            of = (settings.registry, settings.limits, settings.poll_s, self.meters, self.device)
            host = Host(model, *of)
            if settled:
                host.settle()
            return host

        with ThreadPoolExecutor(_LOADERS, "load") as pool:
            coming = {model.ref: pool.submit(loaded, model) for model in models}
        errors = [error for each in coming.values() if (error := each.exception())]
        if errors:
            for each in coming.values():
                if not each.exception():
                    each.result().close()
            raise errors[0]
        return {ref: each.result() for ref, each in coming.items()}

    async def change(self, settings: Settings) -> None:
        """Serve other models, or by other limits, between two requests.

        Raises what `load` does; all then stays as it was. What is not served any more ends later,
        when those who have asked are answered. To be called in the loop in which `call` is, and
        once at a time.
        """
        served = set(self.settings.models)
        models = [model for model in settings.models if model not in served]
        try:
            new = await asyncio.to_thread(self._loaded, settings, models, settled=True)
        except BaseException:
            for host in self._hosts.values():
                host.show()
            raise
        old, self.settings = self._hosts, settings
        self._hosts = {m.ref: new.get(m.ref) or old[m.ref] for m in settings.models}
        for host in self._hosts.values():
            host.limits = settings.limits
        for ref, host in old.items():
            if self._hosts.get(ref) is not host:
                leaving = asyncio.create_task(self._leave(ref, host))
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)

    async def _leave(self, ref: str, host: Host) -> None:
        while self._busy[host]:
            await asyncio.sleep(_LOOK_S)
        del self._busy[host]
        await asyncio.to_thread(host.close)
        if ref not in self._hosts:
            self.meters.forget(ref)

    async def call(
        self,
        model: str | None,
        request: Request,
        tell: Tell | None = None,
        show: Show | None = None,
    ) -> Answer:
        chosen = choose(usable(await self.models(), request.caller), model, *wanted_of(request))
        host = self._hosts[chosen.id]
        self._busy[host] += 1
        try:
            return await host.call(request, tell, show)
        finally:
            self._busy[host] -= 1

    async def models(self) -> list[ModelInfo]:
        return [
            host.info() if (host := self._hosts.get(model.ref)) else loading(model.ref)
            for model in self.settings.models
        ]

    def ready(self) -> bool:
        hosts = self._hosts.values()
        return len(hosts) == len(self.settings.models) and all(host.alive for host in hosts)

    @property
    def megapixels(self) -> float:
        """That are still to be computed for those who have asked."""
        return sum(host.megapixels for host in list(self._hosts.values()))

    async def check_health(self) -> None:
        """Raise where a model can compute no more."""
        for host in list(self._hosts.values()):
            await host.check_health()

    def close(self) -> None:
        self._closed = True
        if self._settling.is_alive():  # to its next size
            self._settling.join()
        for host in self._hosts.values():
            host.close()
        self._hosts = {}


def loading(reference: str) -> ModelInfo:
    """What is known of a model before it is loaded."""
    return ModelInfo(reference, parse_reference(reference)[0])


def find(models: Sequence[ModelInfo], asked: str) -> ModelInfo:
    """The model of an id, or of a NAME that exactly one id has. Raises ApiError 404."""
    named = [model for model in models if model.id == asked]
    named = named or [model for model in models if model.name == asked]
    if len(named) == 1:
        return named[0]
    ids = [model.id for model in models]
    reason = "several are" if named else "no such model is"
    close = None if named else closest(asked, ids)
    meant = f"did you mean {close!r}? " if close else ""
    message = f"model={asked!r}: {reason} served; {meant}valid: {', '.join(ids)}"
    raise ApiError(404, "model_not_found", message, "model")


def usable(models: Sequence[ModelInfo], caller: Caller) -> list[ModelInfo]:
    """Those of models that a caller may use; for all else the others are not there."""
    return [model for model in models if caller.may_use(model)]


def wanted_of(request: Request) -> tuple[str, int | None]:
    """(capability, scale): what a model must be able to do for a request, and by how much it is to
    enlarge, where the request says so."""
    return request.operation.asks(request.files), getattr(request.operation, "scale", None)


def choose(
    models: Sequence[ModelInfo], asked: str | None, capability: str, scale: int | None = None
) -> ModelInfo:
    """The model that answers: the one asked for, or the first with the capability.

    scale: of those that enlarge the first that does so by this.
    Raises ApiError: 404 for an unknown one, 400 for one without the capability, 503 for one that
    is being loaded: also where none is asked for and that may be the first, so that which of them
    answers does not depend on which was ready.
    """
    if asked is not None:
        model = find(models, asked)
        if model.state == "loading":
            raise model_loading(model.id)
        if not model.can(capability):
            raise cannot(model, capability)
        return model
    able = []
    for model in in_order(models):
        if model.can(capability):
            if scale in (None, model.scale):
                return model
            able.append(model)
    if able:
        scales = " and ".join(sorted({str(model.scale) for model in able}))
        raise bad_value("scale", scale, f"the served models enlarge by {scales}")
    valid = ", ".join(model.id for model in models)
    message = f"none of the served models can {capability}: {valid}"
    raise ApiError(400, "invalid_value", message, "model")


def in_order(models: Sequence[ModelInfo]) -> Iterator[ModelInfo]:
    """Models, of which some are looked through for the first that can do something; ApiError 503
    at one that is being loaded, which perhaps can."""
    for model in models:
        if model.state == "loading":
            raise model_loading(model.id)
        yield model


async def made_for(backend: Backend, asked: str | None) -> type[Operation]:
    """The one restoring operation of a model, or ApiError.

    asked: None: of the first that restores any damage, or else of the first that restores some
    """
    models = await backend.models()
    model: ModelInfo | None
    if asked is not None:
        model = find(models, asked)
    else:
        model = None
        for each in in_order(models):
            if each.can(Tiling.name):
                model = each
                break
            if model is None and restoring(each.capabilities):
                model = each
    able = restoring(model.capabilities) if model else []
    if not (model and able):
        choose(models, asked, Tiling.name)  # raises: none can
        raise AssertionError("a model can restore by some operation")
    if len(able) > 1:
        reason = f"this model can {' and '.join(able)}; post to /v1/images/{able[0]}, or the other"
        raise bad_value("model", model.id, reason)
    return OPERATIONS[able[0]]


def cannot(model: ModelInfo, capability: str) -> ApiError:
    can = ", ".join(model.capabilities)
    message = f"model={model.id!r}: it cannot {capability}; it can: {can}"
    return ApiError(400, "invalid_value", message, "model")
