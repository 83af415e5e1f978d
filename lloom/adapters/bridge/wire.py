"""Plain bytes over TLS over any asyncio transport. It knows no frames, and never stops reading."""

from __future__ import annotations

import asyncio
import ssl
from typing import Protocol

from lloom.adapters.bridge.tls import Tls
from lloom.core.errors import PeerFault
from lloom.core.settings import BridgeSettings


class User(Protocol):
    """Who uses a wire. The wire calls these, never one within another but `lost`."""

    def connected(self) -> None:
        """The transport is there; TLS is about to start."""

    def secured(self) -> None:
        """TLS is up: `write` may be called."""

    def received(self, data: bytes) -> None:
        """Plain bytes arrived."""

    def resumed(self) -> None:
        """The wire is no longer `full`."""

    def lost(self, error: Exception | None) -> None:
        """It is over: by the peer's fault, by an error of the transport, or (None) in good order. The last call."""


class Wire(asyncio.Protocol):
    """One TLS connection. Reading never pauses: whoever sits on top bounds what may come."""

    def __init__(self, tls: Tls, user: User, settings: BridgeSettings) -> None:
        self.full = False
        """Whether the peer reads so slowly that no more than necessary should be written."""
        self._tls = tls
        self.user = user
        self._settings = settings
        self._transport: asyncio.Transport | None = None
        self._fault: PeerFault | None = None
        self._linger: asyncio.TimerHandle | None = None

    @property
    def address(self) -> str:
        """The peer's host, as the transport tells it."""
        name = self._transport.get_extra_info("peername") if self._transport else None
        return str(name[0]) if name else "somewhere"

    @property
    def certificate(self) -> bytes:
        """What the server showed, in DER."""
        return self._tls.certificate

    def write(self, data: bytes) -> None:
        """Sends plain bytes, once TLS is up. Hangs up on a peer that makes us write and never reads."""
        if self._transport is None or self._transport.is_closing() or not self._tls.secured:
            return
        self._tls.send(data)
        self._pump()

    def close(self) -> None:
        """Ends it once everything is written, or when the peer does not take it in time."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._tls.secured:
            self._tls.end()
        self._pump()
        self._transport.close()
        loop = asyncio.get_running_loop()
        self._linger = loop.call_later(self._settings.handshake_seconds, self._transport.abort)

    def abort(self) -> None:
        """Ends it now."""
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        transport.set_write_buffer_limits(high=self._settings.send_buffer)
        self.user.connected()
        self._tls.handshake()
        self._pump()

    def data_received(self, data: bytes) -> None:
        was_secured = self._tls.secured
        try:
            plain = self._tls.receive(data)
        except ssl.SSLError as error:
            self._pump()  # the alert that says what is wrong
            self._fail(PeerFault(f"TLS failed: {error.reason or error}", code="tls"))
            return
        self._pump()  # TLS has things to say of its own
        if self._tls.secured and not was_secured:
            self.user.secured()
        if plain:
            self.user.received(plain)
        if self._tls.over:
            self.close()

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        self.user.resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._linger is not None:
            self._linger.cancel()
        self.user.lost(self._fault or exc)

    def _pump(self) -> None:
        if self._transport is None or not (data := self._tls.take()):
            return
        self._transport.write(data)
        # Data is held back at `send_buffer`; the rest of this is room for control messages and for what answers the peer.
        if self._transport.get_write_buffer_size() > 3 * self._settings.send_buffer + self._settings.control_bytes:
            self._fail(PeerFault("the peer does not read what it asks for", code="does_not_read"))

    def _fail(self, fault: PeerFault) -> None:
        self._fault = self._fault or fault
        if self._transport is not None:
            self._transport.abort()
