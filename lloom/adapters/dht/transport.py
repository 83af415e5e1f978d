"""UDP as the protocol sees it: every datagram sealed, every destination checked. It never receives."""

from __future__ import annotations

import asyncio
from typing import Any

from lloom.adapters.dht.wire import MAX_DATAGRAM, Destination, Envelope


class EnvelopeTransport:
    """Stands before asyncio's transports, one for each family, which one bad port or host name would close for good."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._inner: dict[bool, asyncio.DatagramTransport] = {}
        self.addresses: frozenset[tuple[str, int]] = frozenset()
        """Where the sockets are bound."""

    def add(self, inner: asyncio.DatagramTransport) -> None:
        """Send by `inner` what is of its family."""
        host, port = inner.get_extra_info("sockname")[:2]
        self._inner[":" in host] = inner
        self.addresses |= {(host, port)}

    def sendto(self, message: bytes, to: Destination) -> None:
        """Seal and send `message` if that makes sense; like UDP itself it does not say whether it did."""
        inner = self._inner.get(":" in to.host)
        if inner is None or inner.is_closing() or not self._envelope.accepts(to.host, to.port):
            return
        datagram = self._envelope.close(message, to.id)
        if len(datagram) <= MAX_DATAGRAM:
            inner.sendto(datagram, (to.host, to.port))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the first socket says of itself."""
        return next(iter(self._inner.values())).get_extra_info(name, default)

    def is_closing(self) -> bool:
        """True if no socket is open."""
        return all(inner.is_closing() for inner in self._inner.values())

    def close(self) -> None:
        """Close the sockets."""
        for inner in self._inner.values():
            inner.close()
