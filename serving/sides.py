"""Canary and shadow: another version of a model answers a share of its requests, or computes what
was answered once more, for nobody."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import replace

from serving.errors import ApiError
from serving.host import Host
from serving.lots import lot_of
from serving.metrics import Meters
from serving.passes import Tell
from serving.requests import Answer, Request, Show
from serving.shelf import Shelf
from serving.slots import CANARY, SHADOW

logger = logging.getLogger(__name__)

HELD = 8  # requests that wait for a shadow, or are computed by one, at most
_LOOK_S = 0.05  # between two looks whether anything else is computed


class Sides:
    """Who answers: the version that a model's reference names, or its canary.

    What a canary cannot do, or fails to do for no fault of the client's, the other does. Shadows
    compute while nobody is answered, and no pass of theirs begins before; what waits too long, or
    is too much, is dropped.
    """

    def __init__(self, shelf: Shelf, meters: Meters) -> None:
        self.shelf = shelf
        self.meters = meters
        self._held: dict[asyncio.Task[None], int] = {}  # bytes of their files

    async def call(
        self, ref: str, host: Host, request: Request, tell: Tell | None, show: Show | None
    ) -> Answer:
        """As Host.call, by the host of a reference or another version beside it."""
        model = self.shelf.model(ref)
        if model is None or not (model.canary or model.shadow):
            return await host.call(request, tell, show)
        if model.canary and lot_of(request) < model.canary.share:
            canary = self.shelf.take_beside(ref, CANARY, request.operation.name)
            if canary:
                try:
                    answer = await self._counted(ref, CANARY, canary, request, tell, show)
                    self._copied(ref, request)
                    return replace(answer, model=ref)
                except ApiError as error:
                    if error.status < 500 and error.status != 429:
                        raise
                    if error.status != 429:  # of which there are many, all of them counted
                        logger.warning("%s: its canary fails: %s", ref, error)
                except Exception:
                    logger.exception("%s: its canary fails", ref)
                finally:
                    self.shelf.release(canary)
        answer = await self._counted(ref, "stable", host, request, tell, show)
        self._copied(ref, request)
        return answer

    async def _counted(
        self,
        ref: str,
        side: str,
        host: Host,
        request: Request,
        tell: Tell | None = None,
        show: Show | None = None,
    ) -> Answer:
        began, version, status = time.perf_counter(), host.version.number, 500
        try:
            answer = await host.call(request, tell, show)
            version, status = answer.version, 200
            return answer
        except ApiError as error:
            status = error.status
            raise
        except asyncio.CancelledError:  # the client has left, or (nearly all of it gone) its time
            late = time.perf_counter() - began > 0.9 * self.shelf.settings.limits.timeout_s
            status = 504 if late else 499
            raise
        finally:
            seconds = time.perf_counter() - began if status == 200 else None
            self.meters.of_side(ref, side, version, status, seconds)

    def _copied(self, ref: str, request: Request) -> None:
        """Let the shadow compute what was answered, if there is room for that."""
        model = self.shelf.model(ref)
        if not (model and model.shadow) or random.random() >= model.shadow.share:
            return
        size = sum(map(len, request.files.values()))
        most = self.shelf.settings.limits.max_bytes
        if len(self._held) >= HELD or sum(self._held.values()) + size > most:
            self.meters.shadow_dropped.labels(ref).inc()
            return
        host = self.shelf.take_beside(ref, SHADOW, request.operation.name)
        if host:
            request = replace(request, output=replace(request.output, partials=0))
            task = asyncio.create_task(self._in_the_shadow(ref, host, request))
            self._held[task] = size
            task.add_done_callback(self._held.pop)

    async def _in_the_shadow(self, ref: str, host: Host, request: Request) -> None:
        try:
            async with asyncio.timeout(self.shelf.settings.limits.timeout_s):
                while self.shelf.room.computes():
                    await asyncio.sleep(_LOOK_S)
                await self._counted(ref, SHADOW, host, request)
        except TimeoutError:
            self.meters.shadow_dropped.labels(ref).inc()
        except ApiError as error:
            logger.info("%s: its shadow fails: %s", ref, error)
        except Exception:
            logger.exception("%s: its shadow fails", ref)
        finally:
            self.shelf.release(host)
