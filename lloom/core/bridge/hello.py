"""HELLO: how a dialler proves its address to one server, over one connection's certificate. It never reads a clock.

TLS proves the server only: Python's ssl verifies no self-signed client certificates and exports no keying material (RFC 5705), so
the dialler signs in-band. The signature names the server and the hash of the certificate it showed: a HELLO made for one server
is of no use at another, nor to somebody in the middle, who cannot show the same certificate.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from lloom.core.errors import PeerFault
from lloom.core.identity import Identity, NodeId, verify
from lloom.core.messages import VERSION, Hello, Limits


@dataclass(frozen=True, slots=True)
class Audience:
    """Who a HELLO is for: a server of a network, and the certificate (DER) that it showed."""

    network: str
    server: NodeId
    certificate: bytes


def greet(identity: Identity, audience: Audience, limits: Limits, now: float) -> Hello:
    """The HELLO of `identity`, made at `now` (Unix seconds)."""
    timestamp = int(now * 1000)
    signature = identity.sign("hello", audience.network, _statement(timestamp, identity.address, audience))
    return Hello(VERSION, timestamp, identity.address, limits, signature)


def check(hello: Hello, audience: Audience, now: float, skew: float) -> NodeId:
    """The address that said `hello`. PeerFault if it is for another server, more than `skew` seconds from `now`, or forged."""
    if hello.version != VERSION:
        raise PeerFault(
            f"this node speaks version {VERSION} of the protocol, the dialler {hello.version}", code="bad_version"
        )
    if abs(hello.timestamp / 1000 - now) > skew:
        raise PeerFault("the HELLO is from another time; one of the two clocks is wrong", code="bad_hello")
    address = NodeId(hello.address)
    verify("hello", audience.network, _statement(hello.timestamp, address, audience), hello.signature, address)
    return address


def _statement(timestamp: int, dialler: NodeId, audience: Audience) -> bytes:
    certificate = hashlib.sha256(audience.certificate).digest()
    return timestamp.to_bytes(8, "big") + dialler + certificate + audience.server
