"""Brings the log lines of a node's actors to the terminal of its process. It neither filters nor formats them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from lloom.adapters.machine.terminal import show

LINE_BYTES: Final = 16 * 1024
"""Longer lines are cut."""


@contextlib.asynccontextmanager
async def listening(path: Path) -> AsyncIterator[None]:
    """Shows what `sink(path)` of other processes sends, as long as the context lasts."""

    class Shown(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, _address: object) -> None:
            show(data.decode(errors="replace"))

    link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    link.bind(str(path))
    path.chmod(0o600)  # noqa: ASYNC240 (a local file)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Shown, sock=link)
    try:
        yield
    finally:
        transport.close()


def sink(path: str) -> Callable[[str], None]:
    """Sends lines to the process listening at `path`; they are dropped where it is on another machine, or does not keep up."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    link.setblocking(False)

    def send(line: str) -> None:
        with contextlib.suppress(OSError):
            link.sendto(line.encode(errors="replace")[:LINE_BYTES], path)

    return send
