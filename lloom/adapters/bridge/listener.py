"""The accepting end of the bridge: who may knock, who is let in, and what happens to their calls. It never answers one itself."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

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
        self._per_host: Counter[str] = Counter()
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
        await Carrier(stream, self._wire(), ours=False).run()

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

    def admit(self, stranger: Accepted, host: str) -> bool:
        """Whether a stranger may begin a handshake."""
        settings = self.service.settings
        if (
            len(self.knocking) >= settings.handshakes
            or self._per_host[host] >= settings.handshakes_per_address
            or self._proven[host] >= settings.connections_per_address
            or len(self.knocking) + len(self.connections) >= settings.connections
            or not self._rate.take(host, asyncio.get_running_loop().time())
        ):
            logger.debug("refused a connection from {}: too many", host)
            return False
        self.knocking.add(stranger)
        self._per_host[host] += 1
        return True

    def dismiss(self, stranger: Accepted, host: str) -> None:
        """The handshake is over, well or not. Idempotent."""
        if stranger in self.knocking:
            self.knocking.remove(stranger)
            self._per_host[host] -= 1
            if not self._per_host[host]:
                del self._per_host[host]

    def let_in(self, guest: Accepted, host: str) -> None:
        """The handshake went well."""
        self.dismiss(guest, host)
        self.connections.add(guest)
        self._proven[host] += 1

    def see_off(self, guest: Accepted, host: str) -> None:
        """All work for somebody who was let in has stopped. Idempotent."""
        if guest in self.connections:
            self.connections.remove(guest)
            self._proven[host] -= 1
            if not self._proven[host]:
                del self._proven[host]

    def _wire(self) -> Wire:
        connection = Accepted(self, self._certificate, Tls(self._context, server_side=True))
        return connection.wire


class Accepted(Connection):
    """A connection that somebody made to us."""

    def __init__(self, listener: Listener, certificate: Certificate, tls: Tls) -> None:
        service = listener.service
        super().__init__(Side.ACCEPTOR, service.settings, service.on_control, service.handler)
        self.wire = Wire(tls, self, service.settings)
        self._listener = listener
        self._host = ""
        self._audience = hello.Audience(service.network, service.server, certificate.der)

    def refuse(self, refusal: Refusal) -> None:
        """Hangs up on a stranger."""
        self._fail(refusal.error())

    def connected(self) -> None:
        """Somebody knocks."""
        self._host = _host(self.wire.address)
        if self._listener.admit(self, self._host):
            super().connected()
        else:
            self.wire.abort()

    def lost(self, error: Exception | None) -> None:
        """The wire is gone."""
        super().lost(error)
        self._listener.dismiss(self, self._host)

    def _over(self) -> None:
        self._listener.see_off(self, self._host)

    def _greeted(self, said: Hello) -> None:
        skew = self._listener.service.settings.clock_skew_seconds
        self.peer = hello.check(said, self._audience, time.time(), skew)
        self.session.welcome()
        self._listener.let_in(self, self._host)

    def _fail(self, error: RetryElsewhere | CallerFault) -> None:
        if isinstance(error, PeerFault):
            who = checksum(self.peer) if self.peer else "a stranger"
            logger.debug("hung up on {} at {}: {}", who, self._host, error)
        super()._fail(error)


def _host(address: str) -> str:
    """What counts as one address: a whole /64 of IPv6 belongs to one customer."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return ip.exploded[:19] if ip.version == 6 and ip.ipv4_mapped is None else address
