"""The dialling end of a bridge connection: checks whose server it is, then proves who we are. It never tries twice.

Where a validator relays, the same runs over a stream of a connection to it: it carries TLS between us and the executor.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lloom.adapters.bridge.carrier import Carrier
from lloom.adapters.bridge.connection import Connection, Handler, OnControl
from lloom.adapters.bridge.tls import Tls, client_context
from lloom.adapters.bridge.wire import Wire
from lloom.core.bridge import certificate, hello
from lloom.core.bridge.states import Side
from lloom.core.errors import CallerFault, LloomError, PeerFault, RetryElsewhere
from lloom.core.identity import Identity, NodeId, checksum
from lloom.core.messages import Hello, Limits, RelayCall
from lloom.core.offer import Endpoint
from lloom.core.settings import BridgeSettings

Greeter = Callable[[hello.Audience, Limits], Awaitable[Hello]]
"""Has a HELLO signed where the key is. LloomError if that is not possible now."""
Relays = Callable[[NodeId, Endpoint], Awaitable[Connection]]
"""A connection to a validator, shared by all that it relays to: `Pool.connection`."""


@dataclass(frozen=True, slots=True)
class Link:
    """What all connections of a node have in common."""

    identity: Identity | Greeter
    """Who signs HELLOs: we do, or another process of this node (a Worker has no key)."""
    network: str
    settings: BridgeSettings
    relays: Relays | None = None
    """None: nobody is reached through a relay."""
    source: str | None = None
    """Our address that others should see. None: whichever the system takes."""
    fits: Callable[[str], bool] | None = None
    """Which hosts may be dialled, where strangers say whom. None: any."""


async def dial(
    endpoint: Endpoint, executor: NodeId, link: Link, on_control: OnControl, handler: Handler | None = None
) -> Connection:
    """A connection to `executor` at `endpoint`, both sides authenticated. `handler` answers what is called from there.

    RetryElsewhere if the host does not fit, nobody answers in `connect_seconds` and `handshake_seconds`, or we are not let in;
    PeerFault if it is somebody else.
    """
    if link.fits is not None and not link.fits(endpoint.host):
        raise RetryElsewhere(f"{endpoint} makes no sense from here", code="unreachable")
    connection = Dialled(executor, link, on_control, handler)
    try:
        async with asyncio.timeout(link.settings.connect_seconds):
            if endpoint.via:
                await connection.go_through(endpoint)
            else:
                loop = asyncio.get_running_loop()
                local = _local(link.source, endpoint.host)
                await loop.create_connection(lambda: connection.wire, endpoint.host, endpoint.port, local_addr=local)
    except OSError as error:  # TimeoutError is one
        why = str(error) or f"no answer within {link.settings.connect_seconds:g} s"
        raise RetryElsewhere(
            f"{checksum(executor)} cannot be reached at {endpoint}: {why}", code="unreachable"
        ) from error
    await connection.welcomed()
    return connection


def _local(source: str | None, host: str) -> tuple[str, int] | None:
    """What to bind to before dialling `host`: nothing, where `source` is a name, every address, or of the other family."""
    try:
        ours = ipaddress.ip_address(source or "")
    except ValueError:
        return None
    return None if ours.is_unspecified or (ours.version == 6) != (":" in host) else (str(ours), 0)


class Dialled(Connection):
    """A connection that we made."""

    def __init__(self, executor: NodeId, link: Link, on_control: OnControl, handler: Handler | None) -> None:
        super().__init__(Side.DIALLER, link.settings, on_control, handler)
        self.peer = executor
        self._link = link
        self._welcome: asyncio.Future[None] = self._loop.create_future()
        self._work: asyncio.Task[None] | None = None
        self._greeting: asyncio.Task[None] | None = None
        self.wire = Wire(Tls(client_context(), server_side=False), self, link.settings)

    async def go_through(self, endpoint: Endpoint) -> None:
        """Begins over a stream of the validator that relays at `endpoint`; RetryElsewhere if it cannot be had."""
        if self._link.relays is None:
            raise RetryElsewhere(f"{checksum(self.peer)} is reached through relays only", code="unreachable")
        relay = await self._link.relays(NodeId(endpoint.via), Endpoint(endpoint.host, endpoint.port))
        stream = await relay.open(RelayCall(self.peer, endpoint.worker))
        self._work = self._loop.create_task(self._ride(relay, Carrier(stream, self.wire, ours=True)))

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
        if isinstance(link.identity, Identity):
            self._greet(hello.greet(link.identity, audience, self.session.limits, now))
        else:
            self._greeting = self._loop.create_task(self._greet_signed_by(link.identity, audience))

    def lost(self, error: Exception | None) -> None:
        """The wire is gone."""
        if self._greeting is not None:
            self._greeting.cancel()
        super().lost(error)

    async def _ride(self, relay: Connection, carrier: Carrier) -> None:
        """The whole life of a relayed connection. When the relay stops it ends with its open streams, so that nobody has to wait
        for one that is merely kept warm.
        """
        leave = self._loop.create_task(self._leave_with(relay))
        try:
            await carrier.run()
        finally:
            leave.cancel()

    async def _leave_with(self, relay: Connection) -> None:
        await relay.leaving.wait()
        await asyncio.wait([self._welcome])
        await self.close()

    async def _greet_signed_by(self, greeter: Greeter, audience: hello.Audience) -> None:
        """The session bounds the time, as for all of the handshake."""
        try:
            said = await greeter(audience, self.session.limits)
        except LloomError as error:
            self._fail(RetryElsewhere(f"no HELLO could be signed: {error}", code="unreachable"))
        else:
            self._greet(said)

    def _greet(self, said: Hello) -> None:
        if not self.session.closed:
            self.session.hello(said)
            self.flush_soon()

    def _welcomed(self) -> None:
        if not self._welcome.done():
            self._welcome.set_result(None)

    def _fail(self, error: RetryElsewhere | CallerFault) -> None:
        super()._fail(error)
        if not self._welcome.done():
            self._welcome.set_exception(error)
            self._welcome.exception()  # `dial` may have given up before, and nobody else would look at it
