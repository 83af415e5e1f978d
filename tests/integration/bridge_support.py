"""What tests and benchmarks of the bridge share: settings, a certificate, two nodes that are connected."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from lloom.adapters.bridge import Certificate, Connection, Link, Listener, Service, Stream, dial
from lloom.core.certificate import endorse, issue, new_key, public_hash
from lloom.core.identity import Identity
from lloom.core.messages import Control
from lloom.core.offer import Endpoint
from lloom.core.settings import BridgeSettings

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


async def echo(stream: Stream) -> None:
    """Answers a call with what it brought."""
    while (part := await stream.receive()) is not None:
        await stream.send(part)
    await stream.finish()
