"""What tests and benchmarks of the bridge share: settings, a certificate, two nodes that are connected."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop
from msgspec import structs

from lloom.adapters.bridge import Certificate, Connection, Link, Listener, Service, Stream, dial
from lloom.adapters.bridge.tls import client_context
from lloom.core import messages
from lloom.core.bridge import hello
from lloom.core.bridge.certificate import endorse, issue, new_key, public_hash
from lloom.core.bridge.frames import Decoder, Frame, Kind, encode
from lloom.core.identity import Identity, NodeId
from lloom.core.messages import Control, Limits
from lloom.core.offer import Endpoint
from lloom.core.settings import BridgeSettings

LIMITS = Limits(16, 1 << 18, 1 << 20, 1 << 16)
NETWORK = "test"


def settings(**changes: Any) -> BridgeSettings:
    """Settings of a bridge, as in conf/ but for `changes`."""
    values: dict[str, Any] = {
        "connect_seconds": 5,
        "handshake_seconds": 5,
        "handshakes": 64,
        "handshakes_per_address": 64,
        "clock_skew_seconds": 60,
        "connections": 128,
        "connections_per_address": 128,
        "handshakes_per_second": 1000,
        "small_frames_per_second": 100_000,
        "streams": 256,
        "stream_window": 256 * 1024,
        "connection_window": 8 * 1024 * 1024,
        "control_bytes": 64 * 1024,
        "send_buffer": 1024 * 1024,
        "ping_seconds": 15,
        "idle_seconds": 300,
        "drain_seconds": 5,
        "certificate_seconds": 3600,
    }
    return BridgeSettings(**{**values, **changes})


def certificate(identity: Identity, network: str = NETWORK, now: float | None = None) -> Certificate:
    """A fresh certificate that `identity` endorses for an hour from `now`."""
    key = new_key()
    now = time.time() if now is None else now
    return Certificate(key, issue(key, endorse(identity, network, public_hash(key), now, 3600)))


@dataclass
class Executor:
    """An executor that listens, and what it was told."""

    identity: Identity
    listener: Listener
    told: list[Control] = field(default_factory=list)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.listener.port)


@asynccontextmanager
async def executor(handler: Any, shown: Certificate | None = None, **changes: Any) -> AsyncIterator[Executor]:
    """An executor whose calls `handler` answers; it shows `shown` instead of a good certificate."""
    identity = Identity.generate()
    told: list[Control] = []
    service = Service(identity.address, NETWORK, settings(**changes), handler, lambda _, message: told.append(message))
    listener = await Listener.start("127.0.0.1", 0, shown or certificate(identity), service)
    try:
        yield Executor(identity, listener, told)
    finally:
        await listener.close()


@asynccontextmanager
async def client(to: Executor, told: list[Control] | None = None, **changes: Any) -> AsyncIterator[Connection]:
    """A connection of a new client to an executor."""
    link = Link(Identity.generate(), NETWORK, settings(**changes))
    heard = [] if told is None else told
    connection = await dial(to.endpoint, to.identity.address, link, lambda _, message: heard.append(message))
    try:
        yield connection
    finally:
        await connection.close()


async def read_all(stream: Stream) -> bytes:
    """Everything up to the peer's END."""
    parts = []
    while (part := await stream.receive()) is not None:
        parts.append(part)
    return b"".join(parts)


async def until(true: Callable[[], bool]) -> None:
    """Lets the loop turn, and threads, until something is true; the test's deadline bounds it."""
    while not true():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.001)  # 0 would keep the interpreter's lock from the journal's thread


async def echo(stream: Stream) -> None:
    """Answers a call with what it brought."""
    while (part := await stream.receive()) is not None:
        await stream.send(part)
    await stream.finish()


class Stranger:
    """A peer that speaks TLS and frames, and otherwise does what a test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.identity = Identity.generate()
        self._decoder = Decoder(1 << 20)

    @classmethod
    async def knock(cls, to: Executor) -> Stranger:
        """TLS is up, nothing is said."""
        return cls(*await asyncio.open_connection(to.endpoint.host, to.endpoint.port, ssl=client_context()))

    @property
    def shown(self) -> bytes:
        """The certificate of the server, in DER."""
        der = self.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert isinstance(der, bytes)
        return der

    def say(self, kind: Kind, stream: int = 0, payload: bytes = b"") -> None:
        """Sends one frame."""
        self.writer.write(encode(Frame(kind, stream, payload)))

    def greet(self, server: NodeId, **changes: Any) -> None:
        """Says HELLO to `server`, which may be another one than it is connected to."""
        said = hello.greet(self.identity, hello.Audience(NETWORK, server, self.shown), LIMITS, time.time())
        self.say(Kind.HELLO, 0, messages.encode(structs.replace(said, **changes)))

    async def hear(self) -> list[Frame]:
        """The next frames; none once the other side has hung up."""
        while data := await self.reader.read(1 << 16):
            if frames := list(self._decoder.feed(data)):
                return frames
        return []

    async def hear_all(self) -> list[Frame]:
        """Everything until the other side hangs up."""
        heard = []
        while frames := await self.hear():
            heard += frames
        return heard


def on_both_loops(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs `test` on asyncio and on uvloop, within a deadline; an error that only the loop saw fails it, too."""

    async def bounded() -> None:
        unseen: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        async with asyncio.timeout(20):
            await test()
        assert not unseen

    def run(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(bounded())

    run.__name__ = test.__name__
    run.__module__ = test.__module__
    both = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return pytest.mark.parametrize("loop_factory", both.values(), ids=list(both))(run)
