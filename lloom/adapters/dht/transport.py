"""The UDP transport as the protocol sees it: every datagram in its envelope, every destination checked. It never receives."""

from __future__ import annotations

import asyncio
from typing import Any

from lloom.adapters.dht.wire import MAX_DATAGRAM, Envelope


class EnvelopeTransport:
    """Stands before asyncio's transport, which one bad port or host name would close for good."""

    def __init__(self, inner: asyncio.DatagramTransport, envelope: Envelope) -> None:
        self._inner = inner
        self._envelope = envelope

    def sendto(self, message: bytes, address: tuple[Any, ...]) -> None:
        """Send `message` to (host, port, …) if that makes sense; like UDP itself it does not say whether it did."""
        host, port = address[:2]
        datagram = self._envelope.close(message)
        if len(datagram) > MAX_DATAGRAM or self._inner.is_closing() or not self._envelope.reach.accepts(host, port):
            return
        self._inner.sendto(datagram, (self._envelope.reach.outward(host), port))

    def close(self) -> None:
        """Close the socket."""
        self._inner.close()
