"""Who computes for the HTTP app: a protocol, and the plain backend of models in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from cluster.versions import parse_reference
from genimg.errors import closest
from genimg.operations import OPERATIONS, Operation, Tiling, restoring
from serving.errors import (
    BROKEN,
    GONE,
    ApiError,
    bad_value,
    cannot,
    model_broken,
    model_loading,
    unread,
)
from serving.metrics import Meters
from serving.passes import Tell
from serving.requests import Answer, Caller, ModelInfo, Request, Show
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.shelf import Shelf
    from serving.sides import Sides
    from serving.stock import Stock


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
        """Every served reference, in the order of the settings, then those that were found."""
        ...

    def ready(self) -> bool:
        """Whether every model can be asked."""
        ...


class LocalBackend:
    """Models in this process. Asked before `load` is done, it answers that they are loading."""

    def __init__(
        self,
        settings: Settings,
        meters: Meters | None = None,
        device: str | None = None,
        elsewhere: Collection[str] = (),
    ) -> None:
        """device: as for Engine.load; elsewhere: names of models that are served by others, and so
        not to be found here."""
        self.settings = settings
        self.device = device
        self.meters = meters or Meters()
        self.elsewhere = frozenset(elsewhere)
        self._shelf: Shelf | None = None
        self._stock: Stock | None = None
        self._sides: Sides | None = None

    def load(self) -> None:
        """Load and warm up what is resident, and look what else there is; takes seconds, in any
        thread.

        Raises what Host raises; the models before the one that failed are then closed.
        """
        from serving.shelf import Shelf  # torch comes with it
        from serving.sides import Sides
        from serving.stock import Stock

        shelf = Shelf(self.settings, self.meters, self.device)
        try:
            shelf.change(self.settings)
        except BaseException:
            shelf.close()
            raise
        self._stock = Stock(shelf, self.elsewhere)
        self._stock.look()
        self._shelf, self._sides = shelf, Sides(shelf, self.meters)

    async def change(self, settings: Settings) -> None:
        """Serve other models, or by other limits, between two requests.

        Raises what `load` does; all then stays as it was. What is not served any more ends later,
        when those who have asked are answered. Once at a time.
        """
        assert self._shelf, "it is loaded"
        assert self._stock, "it is loaded"
        await asyncio.to_thread(self._shelf.change, settings)
        self.settings = settings
        await asyncio.to_thread(self._stock.look)

    async def call(
        self,
        model: str | None,
        request: Request,
        tell: Tell | None = None,
        show: Show | None = None,
    ) -> Answer:
        async def chosen(but: Collection[str]) -> ModelInfo:
            infos = [info for info in await self.models() if info.id not in but]
            return choose(usable(infos, request.caller), model, *wanted_of(request))

        async def ask(ref: str) -> Answer:
            assert self._shelf, "what is chosen is loaded, or can be"
            assert self._sides, "it is loaded"
            host = await self._shelf.take(ref)
            try:
                return await self._sides.call(ref, host, request, tell, show)
            finally:
                self._shelf.release(host)

        return await by_the_first(model, chosen, ask)

    async def models(self) -> list[ModelInfo]:
        if self._shelf:
            return self._shelf.infos()
        return [loading(model.ref) for model in self.settings.models]

    def ready(self) -> bool:
        return self._shelf is not None and self._shelf.ready()

    @property
    def megapixels(self) -> float:
        """That are still to be computed for those who have asked."""
        return self._shelf.room.megapixels() if self._shelf else 0.0

    async def check_health(self) -> None:
        """Raise where a model can compute no more."""
        if (shelf := self._shelf) is None:
            return
        for host in shelf.room.hosts():
            try:
                await host.check_health()
            except Exception:
                if host in shelf.room.hosts():  # or it has made room for another meanwhile
                    raise

    def close(self) -> None:
        if self._stock:
            self._stock.close()
        if self._shelf:
            self._shelf.close()
        self._shelf = self._stock = None


async def by_the_first(
    asked: str | None,
    chosen: Callable[[Collection[str]], Awaitable[ModelInfo]],
    ask: Callable[[str], Awaitable[Answer]],
) -> Answer:
    """What the chosen model answers; where none is asked for and it turns out that it cannot be
    loaded, or has just gone, the next one.

    chosen: the model that comes first, but for some
    """
    but: set[str] = set()
    while True:
        ref = (await chosen(but)).id
        try:
            return await ask(ref)
        except ApiError as error:
            if asked is not None or error.code not in (BROKEN, GONE):
                raise
            but.add(ref)


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
    message = f"model={asked!r}: {reason} served; {meant}valid: {', '.join(ids) or 'none'}"
    raise ApiError(404, "model_not_found", message, "model")


def usable(models: Sequence[ModelInfo], caller: Caller) -> list[ModelInfo]:
    """Those of models that a caller may use; for all else the others are not there."""
    return [model for model in models if caller.may_use(model)]


def wanted_of(request: Request) -> tuple[str, int | None, type[Operation], frozenset[str]]:
    """(capability, scale, operation, told): what a model must be able to do for a request, by how
    much it is to enlarge, where the request says so, what the capability is needed for, and the
    options given that only some models honour."""
    operation = request.operation
    asks, scale = operation.asks(request.files), operation.option("scale")
    return asks, scale, type(operation), operation.told()


def choose(
    models: Sequence[ModelInfo],
    asked: str | None,
    capability: str,
    scale: int | None = None,
    operation: type[Operation] | None = None,
    told: Collection[str] = (),
) -> ModelInfo:
    """The model that answers: the one asked for, or the first with the capability that honours what
    it is told; where none does the first, which then says so.

    scale: of those that enlarge the first that does so by this; operation, told: as of wanted_of
    Raises ApiError: 404 for an unknown one, 400 for one without the capability, 503 for one that
    is being loaded: also where none is asked for and that may be the first, so that which of them
    answers does not depend on which was ready. One that cannot be loaded is passed over.
    """
    if asked is not None:
        model = find(models, asked)
        if model.state == "loading":
            raise model_loading(model.id)
        if model.can(capability) or model.state == "broken":
            return model
        if operation and model.can(operation.name):
            readers = [each.id for each in models if each.can(capability)]
            raise unread(f"model={model.id!r} reads none", capability, operation, readers)
        raise cannot(model, operation.name if operation else capability)
    able, broken, deaf = [], [], []
    for model in in_order(models):
        if model.can(capability):
            if model.state == "broken":
                broken.append(model)
            elif scale not in (None, model.scale):
                able.append(model)
            elif operation and not model.honours_all(operation.name, told):
                deaf.append(model)
            else:
                return model
    if deaf:
        return deaf[0]
    if able:
        scales = " and ".join(sorted({str(model.scale) for model in able}))
        raise bad_value("scale", scale, f"the served models enlarge by {scales}")
    for model in broken:
        raise model_broken(model.id, model.rejected.reason if model.rejected else "")
    if operation and any(model.can(operation.name) for model in models):
        raise unread("none of the served models reads one", capability, operation)
    valid = ", ".join(model.id for model in models) or "there is none"
    message = (
        f"none of the served models can {operation.name if operation else capability}: {valid}"
    )
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
            if each.state == "broken":
                continue
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
