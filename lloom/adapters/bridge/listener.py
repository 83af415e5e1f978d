"""The accepting end of the bridge: who may knock, who is let in, and what happens to their calls. It never answers one itself."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, NamedTuple

from loguru import logger

from lloom.adapters.bridge.carrier import Carrier
from lloom.adapters.bridge.connection import Connection, Handler, OnControl
from lloom.adapters.bridge.stream import Stream
from lloom.adapters.bridge.tls import Tls, server_context
from lloom.adapters.bridge.wire import Wire
from lloom.core.bridge import hello
from lloom.core.bridge.certificate import Certificate
from lloom.core.bridge.session import CLOSING
from lloom.core.bridge.states import Side
from lloom.core.buckets import Buckets
from lloom.core.errors import CallerFault, PeerFault, RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import Hello, Refusal
from lloom.core.settings import BridgeSettings

TOTAL: Final = 16
"""Handshakes a second from everywhere, as a multiple of what one address may begin."""


class Source(NamedTuple):
    """Where a connection comes from, and how many of there may be at once."""

    name: str
    handshakes: int
    connections: int

    @classmethod
    def of(cls, address: str, settings: BridgeSettings, *, relayed: bool) -> Source:
        """An address (IPv6: its /64); behind a relay are many clients, who have half of the places and are shared out there."""
        if relayed:
            return cls(f"the relay {address}", settings.handshakes // 2, settings.connections // 2)
        return cls(_host(address), settings.handshakes_per_address, settings.connections_per_address)


@dataclass(frozen=True, slots=True)
class Service:
    """What a listener serves, and in whose name."""

    server: NodeId
    network: str
    settings: BridgeSettings
    handler: Handler
    """Answers one call, in a task of its own; cancelled when the caller cancels or is lost. What it raises becomes a RESET."""
    on_control: OnControl


class Listener:
    """Accepts bridge connections at one port. `start` makes one."""

    def __init__(self, service: Service, certificate: Certificate) -> None:
        self.service = service
        self.connections: set[Connection] = set()
        """Those whose HELLO was verified, until all work for them has stopped."""
        self.knocking: set[Accepted] = set()
        """Those on which it was not yet."""
        self.port = 0
        """Where it really listens."""
        self._shaking: Counter[str] = Counter()
        self._proven: Counter[str] = Counter()
        self._rate = Buckets(service.settings.handshakes_per_second, TOTAL * service.settings.handshakes_per_second)
        self._servers: list[asyncio.Server] = []
        self.renew(certificate)

    @classmethod
    async def start(cls, host: str, port: int, certificate: Certificate, service: Service) -> Listener:
        """Listens at `host` and `port` (0: any free one); at `::` on IPv4 too. OSError if that is not possible."""
        listener = cls(service, certificate)
        listener.port = port
        try:
            for each in ("0.0.0.0", host) if host == "::" else (host,):
                server = await asyncio.get_running_loop().create_server(listener._wire, each, listener.port)
                listener._servers.append(server)
                listener.port = server.sockets[0].getsockname()[1]
        except OSError:
            await listener.close()
            raise
        return listener

    async def take(self, stream: Stream) -> None:
        """Accepts a connection that a relay passes on over `stream`, until it ends; it is a stranger's like any other."""
        await Carrier(stream, self._wire(relayed=True), ours=False).run()

    def renew(self, certificate: Certificate) -> None:
        """Shows `certificate` to all who connect from now on."""
        self._certificate = certificate
        self._context = server_context(certificate)

    async def close(self) -> None:
        """Stops accepting, sends GOAWAY to everybody, waits up to `drain_seconds` for their streams, and hangs up."""
        for server in self._servers:
            server.close()
        for stranger in tuple(self.knocking):
            stranger.refuse(CLOSING)
        everybody = [*self.connections, *self.knocking]
        await asyncio.gather(*(connection.close() for connection in everybody))

    def admit(self, stranger: Accepted, source: Source) -> bool:
        """Whether a stranger may begin a handshake."""
        settings = self.service.settings
        if (
            len(self.knocking) >= settings.handshakes
            or self._shaking[source.name] >= source.handshakes
            or self._proven[source.name] >= source.connections
            or len(self.knocking) + len(self.connections) >= settings.connections
            or not self._rate.take(source.name, asyncio.get_running_loop().time())
        ):
            logger.debug("refused a connection from {}: too many", source.name)
            return False
        self.knocking.add(stranger)
        self._shaking[source.name] += 1
        return True

    def dismiss(self, stranger: Accepted, source: Source) -> None:
        """The handshake is over, well or not. Idempotent."""
        if stranger in self.knocking:
            self.knocking.remove(stranger)
            _subtract(self._shaking, source.name)

    def let_in(self, guest: Accepted, source: Source) -> None:
        """The handshake went well."""
        self.dismiss(guest, source)
        self.connections.add(guest)
        self._proven[source.name] += 1

    def see_off(self, guest: Accepted, source: Source) -> None:
        """All work for somebody who was let in has stopped. Idempotent."""
        if guest in self.connections:
            self.connections.remove(guest)
            _subtract(self._proven, source.name)

    def _wire(self, *, relayed: bool = False) -> Wire:
        connection = Accepted(self, self._certificate, Tls(self._context, server_side=True), relayed=relayed)
        return connection.wire


class Accepted(Connection):
    """A connection that somebody made to us."""

    def __init__(self, listener: Listener, certificate: Certificate, tls: Tls, *, relayed: bool) -> None:
        service = listener.service
        super().__init__(Side.ACCEPTOR, service.settings, service.on_control, service.handler)
        self.wire = Wire(tls, self, service.settings)
        self._listener = listener
        self._relayed = relayed
        self._source = Source("", 0, 0)
        self._audience = hello.Audience(service.network, service.server, certificate.der)

    def refuse(self, refusal: Refusal) -> None:
        """Hangs up on a stranger."""
        self._fail(refusal.error())

    def connected(self) -> None:
        """Somebody knocks."""
        self._source = Source.of(self.wire.address, self._listener.service.settings, relayed=self._relayed)
        if self._listener.admit(self, self._source):
            super().connected()
        else:
            self.wire.abort()

    def lost(self, error: Exception | None) -> None:
        """The wire is gone."""
        super().lost(error)
        self._listener.dismiss(self, self._source)

    def _over(self) -> None:
        self._listener.see_off(self, self._source)

    def _greeted(self, said: Hello) -> None:
        skew = self._listener.service.settings.clock_skew_seconds
        self.peer = hello.check(said, self._audience, time.time(), skew)
        self.session.welcome()
        self._listener.let_in(self, self._source)

    def _fail(self, error: RetryElsewhere | CallerFault) -> None:
        if isinstance(error, PeerFault):
            who = checksum(self.peer) if self.peer else "a stranger"
            logger.debug("hung up on {} at {}: {}", who, self._source.name, error)
        super()._fail(error)


def _subtract(counter: Counter[str], name: str) -> None:
    counter[name] -= 1
    if not counter[name]:
        del counter[name]


def _host(address: str) -> str:
    """What counts as one address: a whole /64 of IPv6 belongs to one customer."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return ip.exploded[:19] if ip.version == 6 and ip.ipv4_mapped is None else address
