"""The UDP sockets of one node, one for each family of addresses, on one port. It never reads or writes."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

# A port that the system chose for one family may be taken in the other; then it chooses again.
TRIES: Final = 8


def bind(port: int, interface: str, *, both: bool) -> list[socket.socket]:
    """Non-blocking sockets on the literal address `interface`; `both`: on all addresses of IPv4 and of IPv6.

    OSError if that cannot be. They are bound here because uvloop leaks a socket that it failed to bind.
    """
    tries = TRIES if both and port == 0 else 1
    for left in reversed(range(tries)):
        try:
            return _bind_all(port, ["0.0.0.0", "::"] if both else [interface])
        except OSError:
            if not left:
                raise
    raise AssertionError("the last try returns or raises")


def _bind_all(port: int, interfaces: list[str]) -> list[socket.socket]:
    with contextlib.ExitStack() as failed:
        bound = []
        for interface in interfaces:
            v6 = ":" in interface
            one = failed.enter_context(socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM))
            one.setblocking(False)
            if v6:
                # Else it would want IPv4 as well, which is the other socket's.
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((interface, port))
            port = one.getsockname()[1]
            bound.append(one)
        failed.pop_all()
        return bound
