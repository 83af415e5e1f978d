"""One HTTP connection, its bytes given by hand: what is refused before it is a request."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from lloom.adapters.gateway.protocol import Joining, Protocol, bounded

MAX_HEAD = 1000


class Wire(asyncio.Transport):
    """Remembers what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False
        self.ended = asyncio.Event()

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    @property
    def written(self) -> bytes:
        return b"".join(self.writes)

    def close(self) -> None:
        self.closed = True
        self.ended.set()

    def is_closing(self) -> bool:
        return self.closed

    def resume_reading(self) -> None: ...
    def pause_reading(self) -> None: ...

    @property
    def status(self) -> int | None:
        return int(self.written.split()[1]) if self.written else None


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def connection(head_seconds: float = 60) -> tuple[Protocol, Wire]:
    config = uvicorn.Config(app, http=bounded(MAX_HEAD, head_seconds), lifespan="off", log_config=None, ws="none")
    config.load()
    wire = Wire()
    made = config.http_protocol_class(config=config, server_state=ServerState(), app_state={})
    made.connection_made(wire)
    assert isinstance(made, Protocol)
    return made, wire


async def settled(protocol: Protocol) -> None:
    await asyncio.gather(*protocol.tasks)


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nx: ", b"GET /"])
async def test_a_head_without_end_is_a_431_in_openais_words_and_the_end(start: bytes) -> None:
    protocol, wire = connection()
    protocol.data_received(start)
    protocol.data_received(b"x" * MAX_HEAD)
    assert wire.status is None
    protocol.data_received(b"x")
    head, _, body = wire.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n")
    assert b"content-length: %d" % len(body) in head
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert wire.closed


async def test_every_request_has_room_of_its_own_and_bodies_do_not_count() -> None:
    protocol, wire = connection()
    for _ in range(3):
        wire.writes.clear()
        protocol.data_received(b"POST / HTTP/1.1\r\n")
        protocol.data_received(b"a: " + b"x" * 600 + b"\r\ncontent-length: 5000\r\n\r\n")
        protocol.data_received(b"b" * 2500)
        protocol.data_received(b"b" * 2500)
        await settled(protocol)
        assert wire.status == 204
    wire.writes.clear()
    protocol.data_received(b"GET / HTTP/1.1\r\n")
    protocol.data_received(b"a: " + b"x" * MAX_HEAD)
    assert wire.status == 431


async def test_a_head_that_takes_too_long_is_a_408_and_one_that_came_is_not() -> None:
    protocol, wire = connection(head_seconds=0.001)
    protocol.data_received(b"GET / HTTP/1.1\r\nx: ")
    await wire.ended.wait()
    assert (wire.status, wire.closed) == (408, True)
    protocol, wire = connection(head_seconds=0.001)
    protocol.data_received(b"POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\n")
    assert protocol._timer is None
    assert wire.status is None
    protocol.data_received(b"x")
    await settled(protocol)
    assert wire.status == 204


async def test_what_is_no_http_is_a_400_in_openais_words() -> None:
    protocol, wire = connection()
    protocol.data_received(b"\x16\x03\x01\x02\x00\x01 hello\r\n\r\n")
    assert (wire.status, wire.closed) == (400, True)
    assert b'"error"' in wire.written


async def test_garbage_behind_a_request_never_lands_in_its_answer() -> None:
    protocol, wire = connection()
    protocol.data_received(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
    protocol.data_received(b"no size\r\n")
    assert (wire.written, wire.closed) == (b"", True)
    protocol.connection_lost(None)
    await settled(protocol)


async def test_a_connection_that_is_lost_leaves_no_timer() -> None:
    protocol, _ = connection()
    timer = protocol._timer
    assert timer is not None
    protocol.connection_lost(None)
    assert timer.cancelled()


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


async def test_the_head_of_an_answer_leaves_with_the_first_part_of_its_body() -> None:
    wire = Wire()
    joining = Joining(wire, asyncio.get_running_loop())
    for part in (HEAD, b"first", b"second", HEAD, b"third"):
        joining.write(part)
    assert wire.writes == [HEAD + b"first", b"second", HEAD + b"third"]
    await asyncio.sleep(0)
    assert len(wire.writes) == 3


async def test_a_head_without_a_body_waits_for_nothing_else() -> None:
    wire = Wire()
    joining = Joining(wire, asyncio.get_running_loop())
    joining.write(HEAD)
    assert not wire.writes
    await asyncio.sleep(0)
    assert wire.writes == [HEAD]


async def test_closing_writes_what_is_held_first() -> None:
    wire = Wire()
    joining = Joining(wire, asyncio.get_running_loop())
    joining.write(HEAD)
    joining.close()
    assert (wire.writes, wire.closed, joining.is_closing()) == ([HEAD], True, True)
