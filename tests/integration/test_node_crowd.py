"""Five hundred streams at once through one client node and over the bridge: whole, unmixed, in turns, and in bounded memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, Iterator

import pytest

from lloom.core.api.request import Operation
from lloom.core.billing.receipt import Status
from lloom.core.bridge.frames import MAX_DATA
from lloom.core.lineup import Lineup
from lloom.core.messages import MIN_CONTROL
from lloom.core.rates import Limits
from lloom.core.sse import Splitter, event, payload
from tests.integration.bridge_support import until
from tests.integration.gateway_support import ask, chunk, open_files, read_chunk, read_head
from tests.integration.node_support import Node, connect, node

STREAMS = 500
SLOW = range(0, STREAMS, 25)
"""Those who do not read before all others are done."""
PIECES = 24
BLOCK = 64_000
"""Bytes of a piece for one of these: all pieces are more than what the buffers on their way take."""
ROUNDS = 40
"""Pieces of everybody else, at most, before a newcomer has its first one: it needs turns of the loop to get in, half as many."""
HIGH = 64 * 1024
"""Bytes from which uvicorn lets writers wait."""
SOME = 1024
"""Bytes of an event's frame, HTTP chunk and TLS record, of which a buffer may have some."""
USAGE = event(
    b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":%d,"total_tokens":%d}}' % (PIECES, PIECES + 1)
)


@pytest.fixture(autouse=True)
def _enough_files() -> Iterator[None]:
    with open_files(2 * STREAMS + 300):
        yield


class Crowd:
    """What all engines have in common: their answers begin when all `streams` are there, and say a piece in each turn."""

    def __init__(self, streams: int = STREAMS, slow: range = range(0)) -> None:
        self.streams = streams
        self.slow = slow
        self.said: dict[int, int] = {}
        """The number of each answer's last piece."""
        self.all_here = asyncio.Event()
        self.enough = asyncio.Event()
        """Before it is set no answer ends."""

    def join(self, stream: int) -> None:
        self.said[stream] = 0
        if len(self.said) == self.streams:
            self.all_here.set()

    def piece(self, stream: int, number: int) -> str:
        return f"{stream}:{number} ".ljust(BLOCK if stream in self.slow else 0, ".")

    def whole(self, stream: int) -> str:
        return "".join(self.piece(stream, each) for each in range(self.said[stream] + 1))


class Speaker:
    """An `Engine` whose answer tells whom it is for, and numbers its pieces."""

    def __init__(self, crowd: Crowd, parallel: int) -> None:
        self.name = "speaker"
        self.limits = Limits(parallel)
        self._crowd = crowd

    async def start(self) -> None: ...

    async def look(self) -> Lineup:
        return Lineup({})

    async def close(self) -> None: ...

    async def stream(self, operation: Operation, model: str, body: bytes) -> AsyncGenerator[bytes, None]:
        crowd, number = self._crowd, int(json.loads(body)["user"])
        crowd.join(number)
        yield chunk({"role": "assistant", "content": crowd.piece(number, 0)})
        await crowd.all_here.wait()
        while (said := crowd.said[number] + 1) < PIECES or not crowd.enough.is_set():
            await asyncio.sleep(0)  # as one that waits for its backend's next bytes
            crowd.said[number] = said
            yield chunk({"content": crowd.piece(number, said)})
        yield chunk({}, "stop") + USAGE + event(b"[DONE]")


class Callers:
    """Those who ask, and how much each of them has heard."""

    def __init__(self, net: Node, crowd: Crowd) -> None:
        self.net = net
        self.crowd = crowd
        self.heard = [0] * STREAMS
        self.slowest_at_first_end = 0
        self.done = 0
        self.others_done = asyncio.Event()
        """All who read at once have been answered."""
        self.all_read = asyncio.Event()
        self.newcomer = asyncio.Event()
        """The last one has heard something."""

    async def ask(self, number: int) -> str:
        """What one caller hears, until its stream ends as it must."""
        loop, slow = asyncio.get_running_loop(), number in self.crowd.slow
        body = ask(stream=True, user=str(number))
        with await connect(loop, self.net.port) as caller:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
            await loop.sock_sendall(caller, head.encode() + body)
            if slow:
                await self.all_read.wait()
            said = await self._listen(number, caller)
        if not slow:
            self._ended()
        return said

    def _ended(self) -> None:
        if not self.done:
            self.slowest_at_first_end = min(self.heard[each] for each in range(STREAMS) if each not in self.crowd.slow)
        self.done += 1
        if self.done == STREAMS - len(self.crowd.slow):
            self.others_done.set()

    async def _listen(self, number: int, caller: socket.socket) -> str:
        said = ""
        async with contextlib.aclosing(events(caller)) as told:
            async for data in told:
                if data == b"[DONE]":
                    return said
                said += json.loads(data)["choices"][0]["delta"].get("content", "")
                self.heard[number] += 1
                if number == STREAMS - 1:
                    self.newcomer.set()
        raise AssertionError("it has no end")


async def events(caller: socket.socket) -> AsyncGenerator[bytes, None]:
    """The payloads of all events of one answer as they come."""
    reader, writer = await asyncio.open_connection(sock=caller)
    try:
        status, _ = await read_head(reader)
        assert status == 200
        splitter = Splitter(limit=None)
        while part := await read_chunk(reader):
            for data in map(payload, splitter.feed(part)):
                if data:
                    yield data
    finally:
        writer.close()


@pytest.mark.parametrize("places", [[64] * 8, [512]], ids=["eight executors", "one executor"])
async def test_five_hundred_streams_are_whole_unmixed_in_turns_and_within_bounds(places: list[int]) -> None:
    crowd = Crowd(slow=SLOW)
    crowd.enough.set()
    async with asyncio.timeout(60), node(*(Speaker(crowd, each) for each in places)) as net:
        callers = Callers(net, crowd)
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(callers.ask(number)) for number in range(STREAMS)]
            await crowd.all_here.wait()
            assert net.running == STREAMS
            await callers.others_done.wait()
            check_bounds(net, crowd)
            callers.all_read.set()
        assert set(crowd.said.values()) == {PIECES - 1}
        assert [task.result() for task in asking] == [crowd.whole(number) for number in range(STREAMS)]
        assert callers.slowest_at_first_end > PIECES // 2
        drafts = [draft for counter in net.counters for draft in counter.drafts]
        assert [draft.status for draft in drafts] == [Status.COMPLETE] * STREAMS


def check_bounds(net: Node, crowd: Crowd) -> None:
    """While the slow do not read, their backends wait, and buffers hold what they may: of each answer two windows, about."""
    bridge, slow = net.settings.bridge, len(crowd.slow)
    unread, waiting = net.unread(), net.http_buffers()
    assert all(crowd.said[number] < PIECES - 1 for number in crowd.slow)
    assert len(unread) == slow
    assert bridge.stream_window // 2 < min(unread)
    assert max(unread) <= bridge.stream_window
    assert sum(each > 0 for each in waiting) <= slow
    assert 0 < max(waiting) <= HIGH + bridge.stream_window + SOME
    assert max(net.outgoing()) <= 2 * bridge.send_buffer + MAX_DATA + MIN_CONTROL


async def test_a_newcomer_gets_its_turn_while_a_crowd_talks() -> None:
    crowd = Crowd(STREAMS - 1)
    async with asyncio.timeout(60), node(Speaker(crowd, STREAMS)) as net:
        callers = Callers(net, crowd)
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(callers.ask(number)) for number in range(STREAMS - 1)]
            await crowd.all_here.wait()
            await until(lambda: min(callers.heard[:-1]) > 1)
            before = sum(callers.heard)
            asking.append(group.create_task(callers.ask(STREAMS - 1)))
            await callers.newcomer.wait()
            others, slowest, fastest = sum(callers.heard) - before, min(callers.heard[:-1]), max(callers.heard[:-1])
            crowd.enough.set()
        print(f"{others / STREAMS:.0f} pieces of each before the newcomer's; {slowest} to {fastest} of each in all")
        assert others < ROUNDS * STREAMS
        assert slowest > fastest // 2
        assert [task.result() for task in asking] == [crowd.whole(number) for number in range(STREAMS)]
