"""Requests with an Idempotency-Key: a caller that lost its answer asks again and pays nothing twice."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest

from lloom.adapters.gateway import Guests
from lloom.core.allowance import Allowance
from lloom.core.copies import BESIDES
from lloom.core.errors import RetryElsewhere
from lloom.core.settings import GatewayKey
from lloom.core.token import digest
from tests.integration.gateway_support import (
    FIRST,
    REST,
    Running,
    ScriptedAnswer,
    ScriptedRouter,
    ask,
    chunk,
    running,
)

KEY = "idempotency-key: order-7"


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}])
async def test_who_asks_again_gets_the_same_answer_and_nobody_works_twice(fields: dict[str, Any]) -> None:
    async with running() as gateway:
        first, again = [await gateway.ask(KEY, **fields) for _ in range(2)]
        assert (again.status, again.body) == (first.status, first.body)
        assert again.headers.pop("idempotent-replayed") == "true"
        assert "idempotent-replayed" not in first.headers
        assert again.headers["x-lloom-executor"] == first.headers["x-lloom-executor"]
        assert len(gateway.router.requests) == 1


async def test_an_answer_that_is_given_again_bears_the_name_and_the_limits_of_who_asks_again() -> None:
    alice = Allowance("alice", GatewayKey(sha256=digest(b"secret").hex(), requests_per_minute=9), {}, 0.0)
    async with running(guests=Guests([alice], "own")) as gateway:
        shown = (KEY, "authorization: Bearer secret")
        first, again = [await gateway.ask(*shown, f"x-request-id: {name}") for name in ("one", "two")]
        assert (first.headers["x-request-id"], again.headers["x-request-id"]) == ("one", "two")
        assert again.headers["idempotent-replayed"] == "true"
        assert [each.headers["x-ratelimit-remaining-requests"] for each in (first, again)] == ["8", "7"]
        other = await gateway.ask(KEY, "authorization: Bearer own")
        assert "idempotent-replayed" not in other.headers


async def test_another_request_under_the_key_is_refused_and_another_key_is_another_request() -> None:
    async with running() as gateway:
        await gateway.ask(KEY)
        reply = await gateway.ask(KEY, temperature=1)
        assert (reply.status, reply.error["code"]) == (409, "idempotency_key_reused")
        assert (await gateway.ask("idempotency-key: order-8", temperature=1)).status == 200
        assert (await gateway.ask("idempotency-key: a b")).status == 400


async def test_while_the_first_is_answered_the_second_is_told_to_wait() -> None:
    gate = asyncio.Event()
    async with running(ScriptedRouter(lambda _: (gate, ScriptedAnswer()))) as gateway:
        first = asyncio.create_task(gateway.ask(KEY))
        await gateway.router.arrived.wait()
        reply = await gateway.ask(KEY)
        assert (reply.status, reply.error["code"]) == (409, "idempotency_key_in_use")
        gate.set()
        assert (await gateway.ask(KEY)).status in (200, 409)
        assert (await first).status == 200
        assert (await gateway.ask(KEY)).body == (await first).body


@pytest.mark.parametrize("stream", [False, True])
async def test_what_failed_is_tried_again(stream: bool) -> None:
    answers: list[Any] = [RetryElsewhere("x"), ScriptedAnswer(parts=[RetryElsewhere("y")]), ScriptedAnswer()]
    async with running(ScriptedRouter(lambda _: answers.pop(0))) as gateway:
        replies = [await gateway.ask(KEY, stream=stream) for _ in range(3)]
        assert b"Hel" in replies[-1].body
        assert all("idempotent-replayed" not in reply.headers for reply in replies)
        assert answers == []


async def test_who_left_before_the_end_is_answered_anew() -> None:
    hang = asyncio.Event()
    answers = [ScriptedAnswer(parts=[hang]), ScriptedAnswer()]
    left = answers[0]
    async with running(ScriptedRouter(lambda _: answers.pop(0))) as gateway:
        body = ask(stream=True)
        async with gateway.connected() as (reader, writer):
            writer.write(f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{KEY}\r\n".encode())
            writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
            await reader.readuntil(FIRST)
        await left.closed.wait()
        reply = await _until_free(gateway, body)
        assert reply.status == 200
        assert "idempotent-replayed" not in reply.headers


async def _until_free(gateway: Running, body: bytes) -> Any:
    async with asyncio.timeout(10):
        while (reply := await gateway.post(body, KEY)).status == 409:
            pass
    return reply


class Crowd(asyncio.Event):
    """Set when so many wait for it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._left = number

    async def wait(self) -> Literal[True]:
        self._left -= 1
        if not self._left:
            self.set()
        return await super().wait()


async def test_an_answer_for_which_others_that_are_being_made_leave_no_room_is_not_kept() -> None:
    first, names = FIRST + chunk({"content": 4000 * "x"}), [f"idempotency-key: {number}" for number in range(9)]
    async with running(ScriptedRouter(lambda _: ScriptedAnswer(first))) as gateway:
        size = len((await gateway.ask(stream=True)).body)
    crowd = Crowd(len(names))
    script = ScriptedRouter(lambda _: ScriptedAnswer(first, [crowd, *REST]))
    async with running(script, replay_bytes=8 * (BESIDES + size)) as gateway:
        await asyncio.gather(*(gateway.ask(name, stream=True) for name in names))
        again = [await gateway.ask(name, stream=True) for name in names]
        assert sum("idempotent-replayed" in reply.headers for reply in again) == 8


async def test_an_answer_too_large_to_keep_is_made_again() -> None:
    async with running(replay_bytes=8 * 100) as gateway:
        for _ in range(2):
            assert "idempotent-replayed" not in (await gateway.ask(KEY)).headers
        assert len(gateway.router.requests) == 2
