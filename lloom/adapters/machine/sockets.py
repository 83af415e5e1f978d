"""Which process holds a port, as far as this user may see it (proc(5)). It opens none."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_TABLES: Final = {socket.SOCK_STREAM: ("tcp", "tcp6"), socket.SOCK_DGRAM: ("udp", "udp6")}
_LISTENS: Final = "0A"
"""State of a TCP socket that accepts connections (include/net/tcp_states.h)."""


def holder(port: int, kind: socket.SocketKind) -> tuple[int, str] | None:
    """Process id and name of who listens at `port`; None if nobody does, or it is somebody else's process."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port, kind)}
    for process in Path("/proc").iterdir() if wanted else ():
        if process.name.isdigit() and _holds(process, wanted):
            return int(process.name), (process / "comm").read_text().strip()
    return None


def _inodes(port: int, kind: socket.SocketKind) -> Iterator[str]:
    for name in _TABLES[kind]:
        try:
            lines = Path("/proc/net", name).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            listens = kind == socket.SOCK_DGRAM or fields[3] == _LISTENS
            if listens and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _holds(process: Path, wanted: set[str]) -> bool:
    try:
        return any(str(entry.readlink()) in wanted for entry in (process / "fd").iterdir())
    except OSError:  # not ours, or gone
        return False
