"""The app of a replica, which goes on while its settings change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from fastapi import FastAPI

from serving import logs
from serving.app import create_app
from serving.backend import Backend
from serving.jobs.desk import Jobs
from serving.keys import Keys
from serving.metrics import Meters
from serving.settings import Settings


class Changing(Backend, Protocol):
    settings: Settings

    async def change(self, settings: Settings) -> None:
        """Serve other models, or by other limits. Raises anything; all then stays as it was."""
        ...


class Renewing:
    """An app, and what it is made of.

    To whoever runs it `app` stays the same: what changes is behind it, from the next request on.
    Requests that came before go on in what they came to.
    """

    def __init__(
        self,
        settings: Settings,
        backend: Changing,
        meters: Meters,
        keys_of: Callable[[Settings], Keys | None],
        jobs: Jobs | None = None,
        exposition: Callable[[], Awaitable[bytes]] | None = None,
    ) -> None:
        """keys_of: as serving.keys.keys_of; jobs, exposition: as for create_app. Raises what
        `keys_of` does, and OSError where the log cannot be written."""
        self.backend = backend
        self.meters = meters
        self.keys_of = keys_of
        self.jobs = jobs  # seen to as long as the first app
        self.exposition = exposition
        self.lines = logs.opened(settings, meters)
        self.keys = keys_of(settings)
        self.app = self._made(settings)

    async def change(self, settings: Settings) -> None:
        """Go on by other settings. Raises anything; all then stays as it was."""
        before, keys = self.backend.settings, self.keys
        if (settings.keys_file, settings.open) != (before.keys_file, before.open):
            keys = await asyncio.to_thread(self.keys_of, settings)
        old = self.keys
        try:
            await self.backend.change(settings)
        except BaseException:
            await self._end(keys)
            raise
        self.keys = keys
        if keys:
            keys.places = settings.places()
        self.app.middleware_stack = await asyncio.to_thread(self._made, settings)
        await self._end(old)

    async def _end(self, keys: Keys | None) -> None:
        if keys and keys is not self.keys:
            await asyncio.to_thread(keys.close)

    def close(self) -> None:
        if self.keys:
            self.keys.close()

    def _made(self, settings: Settings) -> FastAPI:
        return create_app(
            self.backend,
            settings.limits,
            meters=self.meters,
            origins=settings.origins,
            keys=self.keys,
            lines=self.lines,
            jobs=self.jobs,
            exposition=self.exposition,
        )
