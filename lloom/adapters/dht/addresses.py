"""Which addresses this node talks to over UDP, judged from where it listens itself. It never resolves names or opens a socket."""

from __future__ import annotations

import functools
import ipaddress
from dataclasses import dataclass

from lloom.core.errors import ConfigError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Reach:
    """What can be reached from the listening address: families, and either loopback only or everything but loopback."""

    v4: bool
    v6: bool
    loopback: bool

    @classmethod
    def of(cls, host: str) -> Reach:
        """The reach of a socket bound to the literal address `host`; a socket on `::` speaks IPv4 too."""
        address = ipaddress.ip_address(host)
        v6 = address.version == 6
        return cls(v4=not v6 or address.is_unspecified, v6=v6, loopback=address.is_loopback)

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
        return not senseless and not (address.version == 6 and address.is_link_local)

    def outward(self, host: str) -> str:
        """`host` as our socket wants it: one that speaks both families wants IPv4 in IPv6's clothes (RFC 4291, 2.5.5.2)."""
        return f"::ffff:{host}" if self.v6 and ":" not in host else host


def inward(host: str) -> str:
    """The plain form of a sender's address, so that nodes of either family can pass it on."""
    return host.removeprefix("::ffff:") if "." in host else host


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


def split(where: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` of the configuration in two; ConfigError if it is neither."""
    host, _, port = where.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65_535:
        raise ConfigError(f"network.bootstrap: {where!r} is not of the form host:port (for IPv6: [address]:port)")
    return host, int(port)
