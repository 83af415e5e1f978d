"""Which addresses this node talks to over UDP, and which of them are one network. It never resolves names or opens a socket."""

from __future__ import annotations

import functools
import ipaddress
from dataclasses import dataclass
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Lead nowhere from the internet, or into somebody's own network (RFC 6890). The ranges for documentation lead nowhere either,
# and harm nobody.
NEVER_PUBLIC: Final = tuple(
    ipaddress.IPv4Network(block)
    for block in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
    )
)
# All of IPv6's internet; within it 6to4 and Teredo wrap IPv4 addresses, private ones too.
PUBLIC_V6: Final = ipaddress.IPv6Network("2000::/3")
WRAPPED_V4: Final = (ipaddress.IPv6Network("2002::/16"), ipaddress.IPv6Network("2001::/32"))
# What one customer of a provider has at least: a cheap source of addresses counts as one.
SUBNET_BYTES: Final = {4: 3, 6: 6}


@dataclass(frozen=True, slots=True)
class Reach:
    """What makes sense from the listening address: families; loopback only or never; private networks or not."""

    v4: bool
    v6: bool
    loopback: bool
    private: bool

    @classmethod
    def of(cls, host: str, private: bool) -> Reach:
        """The reach of a node that listens on the literal address `host`; one on `::` speaks IPv4 too."""
        address = ipaddress.ip_address(host)
        v6 = address.version == 6
        return cls(v4=not v6 or address.is_unspecified, v6=v6, loopback=address.is_loopback, private=private)

    def accepts(self, host: str, port: int) -> bool:
        """True if a datagram may go to `host`:`port`. Guards every send: a bad one can close the socket."""
        address = parse(host)
        if address is None or not 1 <= port <= 65_535:
            return False
        return (self.v4 if address.version == 4 else self.v6) and self.fits(address)

    def fits(self, address: Address) -> bool:
        """True if `address` makes sense in this network, whatever its family (for endpoints that others announce)."""
        if self.loopback or address.is_loopback:
            return self.loopback and address.is_loopback
        # A link-local IPv6 address means nothing without the interface it belongs to.
        senseless = address.is_multicast or address.is_unspecified or address.is_reserved
        if senseless or (address.version == 6 and address.is_link_local):
            return False
        return self.private or is_public(str(address))


def subnet(host: str, port: int) -> str:
    """What counts as one network: IPv4 /24, IPv6 /48; honest neighbours share those, so for a private address it is the
    address itself, and on loopback each socket.
    """
    address = ipaddress.ip_address(host)
    if address.is_loopback:
        return f"{host}:{port}"
    return address.packed[: SUBNET_BYTES[address.version]].hex() if is_public(host) else host


@functools.lru_cache(maxsize=4096)
def is_public(host: str) -> bool:
    """True if the literal address `host` is one of the internet."""
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv4Address):
        return not address.is_loopback and not any(address in block for block in NEVER_PUBLIC)
    return address in PUBLIC_V6 and not any(address in block for block in WRAPPED_V4)


@functools.lru_cache(maxsize=4096)
def parse(host: str) -> Address | None:
    """`host` as an address if it is a literal one without a zone, else None."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return None if getattr(address, "scope_id", None) else address


def pack(host: str) -> bytes:
    """4 or 16 bytes for a literal address; ValueError for anything else."""
    return ipaddress.ip_address(host).packed


def unpack(packed: bytes) -> str | None:
    """The literal address of 4 or 16 bytes; None if their number is another."""
    return str(ipaddress.ip_address(packed)) if len(packed) in (4, 16) else None
