"""The dialling end of a bridge connection: checks whose server it is, then proves who we are. It never tries twice."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from lloom.adapters.bridge.connection import Connection, OnControl
from lloom.adapters.bridge.tls import Tls, client_context
from lloom.adapters.bridge.wire import Wire
from lloom.core.bridge import certificate, hello
from lloom.core.bridge.states import Side
from lloom.core.errors import CallerFault, PeerFault, RetryElsewhere
from lloom.core.identity import Identity, NodeId, checksum
from lloom.core.offer import Endpoint
from lloom.core.settings import BridgeSettings


@dataclass(frozen=True, slots=True)
class Link:
    """What all connections of a node have in common."""

    identity: Identity
    network: str
    settings: BridgeSettings


async def dial(endpoint: Endpoint, executor: NodeId, link: Link, on_control: OnControl) -> Connection:
    """A connection to `executor` at `endpoint`, both sides authenticated.

    RetryElsewhere if nobody answers within `connect_seconds` and `handshake_seconds`, or if we are not let in; PeerFault if it is
    somebody else.
    """

    def connected() -> Wire:
        return Dialled(executor, link, on_control).wire

    try:
        async with asyncio.timeout(link.settings.connect_seconds):
            _, wire = await asyncio.get_running_loop().create_connection(connected, endpoint.host, endpoint.port)
    except OSError as error:  # TimeoutError is one
        why = str(error) or f"no answer within {link.settings.connect_seconds:g} s"
        raise RetryElsewhere(
            f"{checksum(executor)} cannot be reached at {endpoint}: {why}", code="unreachable"
        ) from error
    connection = wire.user
    assert isinstance(connection, Dialled)
    await connection.welcomed()
    return connection


class Dialled(Connection):
    """A connection that we made."""

    def __init__(self, executor: NodeId, link: Link, on_control: OnControl) -> None:
        super().__init__(Side.DIALLER, link.settings, on_control, None)
        self.peer = executor
        self._link = link
        self._welcome: asyncio.Future[None] = self._loop.create_future()
        self.wire = Wire(Tls(client_context(), server_side=False), self, link.settings)

    async def welcomed(self) -> None:
        """Waits until the acceptor let us in (the session bounds the time); raises why it did not. Cancelled, it hangs up."""
        try:
            await self._welcome
        except asyncio.CancelledError:
            self.wire.abort()
            raise

    def secured(self) -> None:
        """TLS is up: nothing is said before the certificate is checked."""
        now, link = time.time(), self._link
        try:
            certificate.check(self.wire.certificate, self.peer, link.network, now)
        except PeerFault as fault:
            self._fail(fault)
            return
        audience = hello.Audience(link.network, self.peer, self.wire.certificate)
        self.session.hello(hello.greet(link.identity, audience, self.session.limits, now))
        self.flush_soon()

    def _welcomed(self) -> None:
        if not self._welcome.done():
            self._welcome.set_result(None)

    def _fail(self, error: RetryElsewhere | CallerFault) -> None:
        super()._fail(error)
        if not self._welcome.done():
            self._welcome.set_exception(error)
            self._welcome.exception()  # `dial` may have given up before, and nobody else would look at it
