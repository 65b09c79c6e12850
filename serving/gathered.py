"""What an answer is made of leaves in one piece, its head with its body.

uvicorn writes them one after the other. A server that is killed between the two has begun an answer
that no other can end; one that wrote nothing leaves the whole request to another (HAProxy sees to
it). It is also one call of the system less for the server, and for HAProxy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

from uvicorn import config
from uvicorn.protocols.http.auto import AutoHTTPProtocol

AT_MOST = 65_536  # bytes held: more goes at once, so that a stream waits for a slow client


def gather() -> None:
    """Have the uvicorn servers of this process that are still to start gather what they write."""
    config.HTTP_PROTOCOLS["auto"] = f"{__name__}:GatheringProtocol"


class GatheringProtocol(AutoHTTPProtocol):  # type: ignore[misc,valid-type]
    """uvicorn's, httptools or h11, on a transport that gathers."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        gathering = _Gathering(cast("asyncio.Transport", transport))
        super().connection_made(cast("asyncio.Transport", gathering))


class _Gathering:
    """An asyncio.Transport: what is written in one turn of the loop is sent at the turn's end."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._held: list[bytes] = []
        self._bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._send)
        self._held.append(data)
        self._bytes += len(data)
        if self._bytes > AT_MOST:
            self._send()

    def writelines(self, parts: Iterable[bytes]) -> None:
        for part in parts:
            self.write(part)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        held, self._held, self._bytes = self._held, [], 0
        if held and not self._transport.is_closing():
            self._transport.writelines(held)
