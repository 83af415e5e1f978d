"""The raw path over connections whose server is scripted byte by byte: where answers end, and which connection serves again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from lloom.adapters.llm.http import MAX_HEAD, MAX_UNREAD, Address
from lloom.adapters.llm.upstream import Target, Upstream
from lloom.core.errors import ConfigError, RetryElsewhere
from tests.integration.llm_support import until

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
EVENT, END = b'data: {"a":1}\n\n', b"data: [DONE]\n\n"
WHOLE = HEAD + b"content-length: %d\r\n\r\n" % len(EVENT + END) + EVENT + END


@dataclass
class Server:
    """Plays one script for each request: bytes are sent, None hangs up."""

    script: tuple[bytes | None, ...] = (WHOLE,)
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self.requests.append(head + await reader.readexactly(length))
        for part in self.script:
            if part is None:
                return False
            writer.write(part)
        return True

    @property
    def open(self) -> int:
        return sum(not writer.is_closing() for writer in self.writers)


@asynccontextmanager
async def upstream(server: Server, connections: int = 4, reuse: bool = True) -> AsyncIterator[Upstream]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    subject = Upstream(Target(f"http://127.0.0.1:{server.port}/v1/", "key", connections, 5, 5, reuse))
    try:
        async with asyncio.timeout(20):
            yield subject
    finally:
        await subject.close()
        listening.close()
        for writer in server.writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def read(subject: Upstream) -> bytes:
    async with aclosing(subject.stream("chat", b"{}")) as answer:
        return b"".join([data async for data in answer])


async def test_a_request_is_what_it_should_be() -> None:
    server = Server()
    async with upstream(server) as subject:
        assert await read(subject) == EVENT + END
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    assert (first, body) == (b"POST /v1/chat/completions HTTP/1.1", b"{}")
    assert {b"host: 127.0.0.1:%d" % server.port, b"authorization: Bearer key", b"content-length: 2"} < set(lines)


@pytest.mark.parametrize(
    "script",
    [
        (HEAD + b"connection: close\r\n\r\n" + EVENT, END, None),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", WHOLE),
        (
            HEAD + b"transfer-encoding: chunked\r\n\r\n",
            b"%x\r\n%b\r\n" % (len(EVENT + END), EVENT + END),
            b"0\r\ncontent-type: text/html\r\n\r\n",
        ),
        tuple(bytes([byte]) for byte in WHOLE),
    ],
    ids=["until the server hangs up", "after an early answer", "in chunks, with a trailer", "byte by byte"],
)
async def test_an_answer_ends_where_http_says(script: tuple[bytes | None, ...]) -> None:
    async with upstream(Server(script)) as subject:
        for _ in range(2):
            assert await read(subject) == EVENT + END


@pytest.mark.parametrize(
    "script",
    [
        (HEAD + b"content-length: 100\r\n\r\n" + EVENT + END, None),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nda", None),
        (None,),
        (b"SSH-2.0-OpenSSH\r\n",),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",),
        (HEAD + b"x: " + b"y" * 2 * MAX_HEAD,),
    ],
    ids=["too short", "within a chunk", "nothing", "no HTTP", "another protocol", "a head without end"],
)
async def test_what_is_no_whole_answer_was_cut(script: tuple[bytes | None, ...]) -> None:
    server = Server(script)
    async with upstream(server) as subject:
        with pytest.raises(RetryElsewhere) as raised:
            await read(subject)
        assert raised.value.code == "backend_cut"
        await until(lambda: server.open == 0)


async def test_a_connection_serves_again_and_a_closed_one_is_replaced() -> None:
    server = Server()
    async with upstream(server) as subject:
        for _ in range(3):
            await read(subject)
        assert len(server.writers) == 1
        server.writers[0].close()
        await until(lambda: not subject._connections._open)
        assert await read(subject) == EVENT + END
        assert len(server.writers) == 2


async def test_a_connection_with_something_left_on_it_never_serves_again() -> None:
    server = Server((HEAD + b"content-length: %d\r\n\r\n" % len(EVENT + END) + EVENT,))
    async with upstream(server) as subject:
        async with aclosing(subject.stream("chat", b"{}")) as answer:
            assert await anext(answer) == EVENT
            (connection,) = subject._connections._open
            server.writers[0].write(END)
            await until(lambda: connection._ended)
        for script in ((WHOLE + WHOLE,), (WHOLE,)):
            server.script = script
            assert await read(subject) == EVENT + END
        assert len(server.writers) == 3
        await until(lambda: server.open == 1)


async def test_without_reuse_every_request_has_a_connection_of_its_own() -> None:
    server = Server()
    async with upstream(server, reuse=False) as subject:
        for _ in range(3):
            await read(subject)
        await until(lambda: server.open == 0)
    assert len(server.writers) == 3
    assert b"connection: close\r\n" in server.requests[0]


async def test_no_more_connections_than_allowed_are_open_at_once() -> None:
    server = Server()
    async with upstream(server, connections=2) as subject:
        answers = await asyncio.gather(*(read(subject) for _ in range(20)))
    assert set(answers) == {EVENT + END}
    assert len(server.writers) == 2


async def test_a_slow_reader_holds_up_the_backend_and_gets_everything() -> None:
    long = EVENT * (64 * MAX_UNREAD // len(EVENT)) + END
    server = Server((HEAD + b"content-length: %d\r\n\r\n" % len(long), long))
    async with upstream(server) as subject, aclosing(subject.stream("chat", b"{}")) as answer:
        first = await anext(answer)
        for _ in range(100):  # the server writes as long as somebody takes it
            await asyncio.sleep(0)
        transport = server.writers[0].transport
        assert isinstance(transport, asyncio.WriteTransport)
        assert transport.get_write_buffer_size() > 0
        assert first + b"".join([data async for data in answer]) == long


@pytest.mark.parametrize(
    ("url", "address", "name"),
    [
        ("http://127.0.0.1:8000/v1", Address(False, "127.0.0.1", 8000, "/v1"), "127.0.0.1:8000"),
        ("https://api.openai.com/v1/", Address(True, "api.openai.com", 443, "/v1"), "api.openai.com"),
        ("http://[::1]", Address(False, "::1", 80, ""), "[::1]"),
        (
            "http://bücher.example/a b\r\n",
            Address(False, "xn--bcher-kva.example", 80, "/a%20b"),
            "xn--bcher-kva.example",
        ),
    ],
)
def test_an_address_is_read_from_its_url(url: str, address: Address, name: str) -> None:
    assert (Address.of(url), Address.of(url).name) == (address, name)


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:99999", "http://user:secret@x/v1", "x:80"])
def test_what_is_no_address_is_told_at_the_start(url: str) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        Upstream(Target(url, None, 1, 1, 1, True))
