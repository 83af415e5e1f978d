"""uvicorn within a running event loop: it leaves signals, logging and the loop to others."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from lloom.adapters.gateway.cors import open_to
from lloom.adapters.gateway.protocol import bounded
from lloom.core.errors import ConfigError
from lloom.core.settings import GatewaySettings


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the node's, and its loop may not run in the main thread."""
        yield


class Server:
    """An HTTP server in a task of its own. Start it with `start`; `port` is the one it got."""

    def __init__(self, app: ASGIApp, listener: socket.socket, settings: GatewaySettings) -> None:
        self.port: int = listener.getsockname()[1]
        self._uvicorn = _Uvicorn(
            uvicorn.Config(
                app,
                http=bounded(settings.header_bytes, settings.body_seconds),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
            )
        )
        self._task = asyncio.create_task(self._uvicorn.serve([listener]))

    @classmethod
    def start(cls, app: ASGIApp, settings: GatewaySettings) -> Server:
        """Listens at once; ConfigError if the address cannot be had."""
        return cls(open_to(app, settings.cors), _listen(settings.host, settings.port), settings)

    async def close(self) -> None:
        """Stops accepting, lets answers finish for `drain_seconds`, then cuts them."""
        self._uvicorn.should_exit = True
        await self._task


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"gateway.host: {host} is no address to listen on ({error})") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"gateway.port: cannot listen on {host} port {port} ({error.strerror}); choose another, or 0 for any"
        ) from error
    listener.setblocking(False)
    return listener
