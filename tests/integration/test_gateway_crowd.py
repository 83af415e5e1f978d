"""Five hundred streams at once over one gateway: nothing is lost, mixed or starved, and who does not read holds nobody up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from lloom.core.api.request import ApiRequest
from lloom.core.messages import Done
from lloom.core.sse import Splitter, payload
from tests.integration.gateway_support import (
    Running,
    ScriptedAnswer,
    ScriptedRouter,
    ask,
    chunk,
    open_files,
    read_reply,
    running,
)

STREAMS = 500
PIECES = 24
HEAD = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n"
BLOCK = chunk({"content": "x" * 65_000})
MOST = 24 * 1024 * 1024
"""What the buffers of a loopback connection that nobody reads can hold, the kernel's two and uvicorn's."""


@pytest.fixture(autouse=True)
def _enough_files() -> Iterator[None]:
    with open_files(2 * STREAMS + 200):
        yield


def piece(stream: int, number: int) -> str:
    return f"{stream}:{number} "


class Crowd:
    """Answers that all begin when everybody is there; one piece for each, again and again."""

    def __init__(self) -> None:
        self.here = 0
        self.open = asyncio.Event()
        self.said = [0] * STREAMS
        self.slowest_at_first_end = 0
        self.ended = 0

    def answer(self, request: ApiRequest) -> ScriptedAnswer:
        return Speaker(self, int(json.loads(request.body)["user"]))

    def end(self) -> None:
        if not self.ended:
            self.slowest_at_first_end = min(self.said)
        self.ended += 1


class Speaker(ScriptedAnswer):
    def __init__(self, crowd: Crowd, number: int) -> None:
        super().__init__(first=chunk({"role": "assistant", "content": piece(number, 0)}))
        self._crowd = crowd
        self._number = number
        crowd.here += 1
        if crowd.here == STREAMS:
            crowd.open.set()

    async def read(self) -> bytes | None:
        crowd = self._crowd
        await crowd.open.wait()
        await asyncio.sleep(0)  # as one that waits for its next bytes
        said = crowd.said[self._number] = crowd.said[self._number] + 1
        if said < PIECES:
            return chunk({"content": piece(self._number, said)})
        if said == PIECES:
            return chunk({}, "stop")
        crowd.end()
        self.done = Done(1, PIECES)
        return None


async def hear(gateway: Running, number: int) -> str:
    """What one caller hears, until its stream ends as it must."""
    body = ask(stream=True, user=str(number))
    async with gateway.connected() as (reader, writer):
        writer.write(HEAD.format(len(body)).encode() + body)
        reply = await read_reply(reader)
    events = [data for event in Splitter().feed(reply.body) if (data := payload(event))]
    assert (reply.status, events[-1]) == (200, b"[DONE]")
    deltas: list[dict[str, Any]] = [json.loads(data)["choices"][0]["delta"] for data in events[:-1]]
    return "".join(delta.get("content", "") for delta in deltas)


async def test_five_hundred_streams_at_once_are_whole_unmixed_and_take_turns() -> None:
    crowd = Crowd()
    async with running(ScriptedRouter(crowd.answer)) as gateway:
        heard = await asyncio.gather(*(hear(gateway, number) for number in range(STREAMS)))
        text = (await gateway.get("/metrics")).body.decode()
    for number, said in enumerate(heard):
        assert said == "".join(piece(number, each) for each in range(PIECES))
    assert crowd.ended == STREAMS
    assert crowd.slowest_at_first_end > PIECES // 2
    assert f'lloom_http_requests_total{{path="/v1/chat/completions",status="200"}} {STREAMS}.0' in text
    assert "lloom_requests_running 0.0" in text


class Flood(ScriptedAnswer):
    """Has always more, and counts what is taken of it."""

    def __init__(self) -> None:
        super().__init__(first=BLOCK)
        self.taken = 0

    async def read(self) -> bytes | None:
        await asyncio.sleep(0)
        self.taken += len(BLOCK)
        return BLOCK


async def test_callers_that_do_not_read_fill_their_own_buffers_and_hold_nobody_up() -> None:
    floods: list[Flood] = []

    def script(request: ApiRequest) -> ScriptedAnswer:
        if b'"flood"' not in request.body:
            return ScriptedAnswer()
        floods.append(Flood())
        return floods[-1]

    async with running(ScriptedRouter(script)) as gateway:
        body = ask(stream=True, user="flood")
        idle = [await asyncio.open_connection("127.0.0.1", gateway.port, limit=1024) for _ in range(8)]
        for _, writer in idle:
            writer.write(HEAD.format(len(body)).encode() + body)
        # Without a limit every turn of the loop would take another block of each.
        for _ in range(2 * MOST // len(BLOCK)):
            await asyncio.sleep(0)
        assert (await gateway.ask(stream=True)).status == 200
        assert len(floods) == len(idle)
        assert all(0 < flood.taken < MOST for flood in floods)
        for _, writer in idle:
            writer.close()
        for flood in floods:
            await flood.closed.wait()
