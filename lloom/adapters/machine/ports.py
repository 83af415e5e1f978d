"""Free and taken ports, chosen before any actor starts: a restarted one gets its first arguments again. It keeps none open."""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Sequence
from typing import Final

from lloom.core.errors import ConfigError

_TRIES: Final = 64
_SPAN: Final = (20_000, 32_000)
"""Where free ports are looked for: below the range from which Linux takes the ports of outgoing connections (ip(7))."""

Need = tuple[socket.SocketKind, int]
"""A kind of socket, and its distance from the first port."""

DHT: Final[tuple[Need, ...]] = ((socket.SOCK_DGRAM, 0),)
VALIDATOR: Final[tuple[Need, ...]] = (*DHT, (socket.SOCK_STREAM, 0))
GATEWAY: Final[tuple[Need, ...]] = ((socket.SOCK_STREAM, 0),)


def executor(workers: int) -> tuple[Need, ...]:
    """The DHT's port, which the first worker's bridge shares, and one more for each further worker."""
    return (*DHT, *((socket.SOCK_STREAM, worker) for worker in range(workers)))


def first_port(host: str, wanted: int, needs: Sequence[Need], setting: str) -> int:
    """`wanted`, if everything in `needs` can be bound on `host` from there on; with 0 a first port where it can.

    ConfigError if `wanted` is taken or `host` is no address of this machine; it names `setting`.
    """
    if wanted:
        _refuse_taken(host, wanted, needs, setting)
        return wanted
    generator = secrets.SystemRandom()
    for _ in range(_TRIES):
        port = generator.randrange(*_SPAN)
        if all(_problem(host, port + distance, kind) is None for kind, distance in needs):
            return port
    raise ConfigError(f"no free port was found on {host}; name one with {setting}=…")


def _refuse_taken(host: str, port: int, needs: Sequence[Need], setting: str) -> None:
    for kind, distance in needs:
        problem = _problem(host, port + distance, kind)
        if problem is None:
            continue
        protocol = "TCP" if kind == socket.SOCK_STREAM else "UDP"
        if problem.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port + distance} ({protocol}) on {host} is in use; choose another with {setting}=…"
            )
        raise ConfigError(f"cannot listen on {host}:{port + distance} ({protocol}): {problem.strerror}")


def _problem(host: str, port: int, kind: socket.SocketKind) -> OSError | None:
    """Why a socket cannot be bound, None if it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, kind) as trial:
            if kind == socket.SOCK_STREAM:  # as servers do: a port that waits out old connections is free
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except OSError as error:
        return error
    except OverflowError:
        return OSError(errno.EINVAL, "there is no such port")
    return None
