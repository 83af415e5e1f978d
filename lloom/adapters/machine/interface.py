"""Which of its own addresses this machine uses. It sends nothing: it asks the kernel."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

_ELSEWHERE: Final = "192.0.2.1"
"""For documentation (RFC 5737): stands for any address beyond the router."""


def own(host: str) -> bool:
    """Whether the literal address `host` is one of this machine."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as trial:
            trial.bind((host, 0))
    except OSError:
        return False
    return True


def loopback(host: str) -> str:
    """The loopback address of the family of `host`; `host` itself if it is one."""
    address = ipaddress.ip_address(host)
    if address.is_loopback:
        return host
    return "::1" if address.version == 6 else "127.0.0.1"


def outward() -> str | None:
    """The IPv4 address from which this machine would talk to others; None if it has no way out."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
            trial.connect((_ELSEWHERE, 9))
            return str(trial.getsockname()[0])
    except OSError:
        return None


def local(host: str, advertise: str | None) -> str | None:
    """The IPv4 address by which neighbours in the local network see a node that listens on `host`; None if there is none."""
    return next((each for each in (advertise, host) if each and _is_specific(each) and own(each)), None) or outward()


def _is_specific(host: str) -> bool:
    """Whether `host` is a literal IPv4 address, and not the one that stands for all."""
    try:
        return not ipaddress.IPv4Address(host).is_unspecified
    except ValueError:
        return False
