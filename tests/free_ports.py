"""Ports for tests that need to know one before anybody listens at it, or when nobody does any more."""

from __future__ import annotations

import os
import socket
from typing import Final

_PORTS: Final = iter(range(12_000 + os.getpid() * 97 % 6_000, 20_000))
"""Below those of outgoing connections (ip(7)), and those that nodes choose (`lloom.adapters.machine.ports`). Other test runs
begin elsewhere.
"""


def free_port() -> int:
    """A port that is free for TCP and for UDP, another one at every call: nobody else is given it by chance."""
    for port in _PORTS:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")
