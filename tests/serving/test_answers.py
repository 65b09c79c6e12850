"""How long an answer is waited for, and for whom."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect, Request

from serving import answers
from serving.errors import ApiError


def asked_by_one_who_goes(at: asyncio.Event) -> Request:
    async def receive() -> dict[str, str]:
        await at.wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http"}, receive)


def test_who_leaves_as_the_answer_comes_ends_nothing_else(monkeypatch):
    monkeypatch.setattr(answers, "_SOON_S", 0.0)
    asyncio.run(answered_as_the_client_leaves())


async def answered_as_the_client_leaves() -> None:
    left, answer = asyncio.Event(), asyncio.get_running_loop().create_future()

    loop = asyncio.get_running_loop()

    def both() -> None:
        loop.call_soon(answer.set_result, "it")
        left.set()

    loop.call_later(0.05, both)
    assert await answers.waited(asked_by_one_who_goes(left), answer, 10) == "it"
    for _ in range(5):  # what is awaited behind it
        await asyncio.sleep(0)


@pytest.mark.parametrize("soon", [0.0, 0.1])
def test_who_has_left_gets_nothing(monkeypatch, soon):
    monkeypatch.setattr(answers, "_SOON_S", soon)
    asyncio.run(asked_by_nobody())


async def asked_by_nobody() -> None:
    left, answer = asyncio.Event(), asyncio.get_running_loop().create_future()
    left.set()
    with pytest.raises(ClientDisconnect):
        await answers.waited(asked_by_one_who_goes(left), answer, 10)
    assert answer.cancelled()


@pytest.mark.parametrize("timeout_s", [0.01, 0.15])
def test_what_takes_too_long_is_given_up_before_and_after_anybody_looks(timeout_s):
    async def scenario() -> None:
        stays, answer = asyncio.Event(), asyncio.get_running_loop().create_future()
        with pytest.raises(ApiError, match=f"no answer within {timeout_s} s") as refused:
            await answers.waited(asked_by_one_who_goes(stays), answer, timeout_s)
        assert (refused.value.status, answer.cancelled()) == (504, True)

    asyncio.run(scenario())
