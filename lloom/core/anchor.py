"""A validator as the configuration names it: where it is, and maybe who. It resolves nothing."""

from __future__ import annotations

from dataclasses import dataclass

from lloom.core.errors import ConfigError
from lloom.core.identity import NodeId, parse_address


@dataclass(frozen=True, slots=True)
class Anchor:
    """One entry of `network.bootstrap`. `address`: who it must be; None: whoever answers there."""

    address: NodeId | None
    host: str
    """A name or a literal address."""
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(where: str) -> Anchor:
    """`[0xADDRESS@]host:port`, IPv6 hosts in brackets; ConfigError if it is none."""
    who, at, place = where.rpartition("@")
    host, _, port = place.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65_535:
        raise ConfigError(
            f"network.bootstrap: {where[:64]!r} is no host:port, such as 203.0.113.7:9000 (for IPv6: [address]:port)"
        )
    try:
        address = parse_address(who) if at else None
    except ValueError as error:
        raise ConfigError(f"network.bootstrap: {where[:128]!r} names no node before the @: {error}") from error
    return Anchor(address, host, int(port))
