"""Hands secrets to the node's own actors over Unix sockets: they stand neither in Ray's store nor in an environment."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from pathlib import Path
from typing import Final

from loguru import logger

from lloom.core.errors import ConfigError

_LIMIT: Final = 64 * 1024
_TIMEOUT: Final = 5.0
"""Seconds; both ends are processes of one machine."""


async def serve(path: Path, secret: bytes) -> asyncio.Server:
    """Listens at `path` (in a folder that only the user may enter) and gives `secret` to processes of the same user."""

    async def give(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer: socket.socket = writer.get_extra_info("socket")
        try:
            if _user(peer) == os.getuid():
                writer.write(secret)
                await asyncio.wait_for(writer.drain(), _TIMEOUT)
            else:
                logger.warning("a process of another user asked for a secret of the node and was refused")
        except OSError as error:
            logger.debug("a process went away while it was given a secret: {}", error)
        finally:
            writer.close()

    server = await asyncio.start_unix_server(give, path)
    path.chmod(0o600)  # noqa: ASYNC240 (a local file)
    return server


def fetch(path: str) -> bytes:
    """The secret from the agent at `path`; ConfigError if nobody hands it out."""
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(_TIMEOUT)
            link.connect(path)
            secret = b""
            while len(secret) < _LIMIT and (part := link.recv(_LIMIT)):
                secret += part
    except OSError as error:
        raise ConfigError(f"the node's process did not hand over its key ({error}); start the node again") from error
    if not secret:
        raise ConfigError("the node's process refused to hand over its key: another user runs this one")
    return secret


def _user(link: socket.socket) -> int:
    """The user id at the other end (unix(7), SO_PEERCRED)."""
    size = struct.calcsize("3i")
    _pid, uid, _gid = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(uid)
