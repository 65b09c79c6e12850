"""What a server writes in one turn of its loop leaves at once, and comes as it would without."""

import asyncio
import contextlib
import socket
from collections.abc import Callable

import pytest
import uvicorn

from serving.gathered import GatheringProtocol

HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]}
LARGE = bytes(range(256)) * 16 * 1024  # 4 MiB
MOST = 64 * 2**20


async def whole(send) -> None:
    await send(HEAD)
    await send({"type": "http.response.body", "body": b"body"})


async def large(send) -> None:
    await send(HEAD)
    await send({"type": "http.response.body", "body": LARGE})


async def many(send) -> None:
    await send(HEAD)
    for start in range(0, len(LARGE), 1000):
        part = LARGE[start : start + 1000]
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def body_of(answer: bytes) -> bytes:
    """Of an answer in chunks."""
    rest, body = answer.partition(b"\r\n\r\n")[2], b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


@contextlib.asynccontextmanager
async def served(app: Callable):
    async def asgi(scope, receive, send):
        await app(send)

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        config = uvicorn.Config(asgi, http=GatheringProtocol, lifespan="off", log_level="error")
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve(sockets=[sock]))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield await asyncio.open_connection(*sock.getsockname())
        finally:
            server.should_exit = True
            await running


async def all_of(app: Callable) -> bytes:
    async with served(app) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
    return answer


@pytest.mark.parametrize(("app", "body"), [(whole, b"body"), (large, LARGE), (many, LARGE)])
def test_answers_are_as_without(app, body):
    assert body_of(asyncio.run(all_of(app))) == body


def test_the_head_waits_for_the_end_of_its_turn_and_no_longer():
    async def seen() -> tuple[bytes, bytes]:
        goes_on = asyncio.Event()

        async def streaming(send) -> None:
            await send(HEAD)
            await send({"type": "http.response.body", "body": b"1", "more_body": True})
            await goes_on.wait()
            await send({"type": "http.response.body", "body": b"2"})

        async with served(streaming) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            first = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n1\r\n1\r\n"), 30)
            goes_on.set()
            rest = await asyncio.wait_for(reader.read(), 30)
            writer.close()
        return first, rest

    first, rest = asyncio.run(seen())
    assert body_of(first) + body_of(b"\r\n\r\n" + rest) == b"12"


def test_a_stream_waits_for_a_client_that_does_not_read():
    async def sent() -> int:
        count = 0

        async def long(send) -> None:
            nonlocal count
            await send(HEAD)
            while count < MOST:
                await send({"type": "http.response.body", "body": bytes(1000), "more_body": True})
                count += 1000

        async with served(long) as (_, writer):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            before = -1
            while before != count:
                before = count
                await asyncio.sleep(0.3)
            writer.transport.abort()
            return before

    assert asyncio.run(sent()) < MOST / 2  # what the system's own buffers take
