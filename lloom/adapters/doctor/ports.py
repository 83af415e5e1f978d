"""Whether the ports of a node are free, or who has them. It keeps none."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from lloom.adapters.machine import ports, sockets
from lloom.core.errors import ConfigError
from lloom.core.finding import Finding, ok, problem
from lloom.core.settings import Settings


def needs(settings: Settings) -> tuple[ports.Need, ...]:
    """What a node of this role listens at, beginning with `network.port`."""
    match settings.role:
        case "validator":
            return ports.VALIDATOR
        case "executor":
            return ports.executor(settings.executor.workers)
    return ports.DHT


def check(settings: Settings, running: int | None) -> list[Finding]:
    """The ports of the node, each group in one line. `running`: the process of this very node, which has them then."""
    network, gateway = settings.network, settings.gateway
    found = [_group("ports", network.host, network.port, needs(settings), "network.port", running)]
    if settings.role == "client":
        found.append(_group("gateway", gateway.host, gateway.port, ports.GATEWAY, "gateway.port", running))
    return found


def _group(
    check: str, host: str, port: int, wanted: Sequence[ports.Need], setting: str, running: int | None
) -> Finding:
    names = ", ".join(f"{port + distance} {_protocol(kind)}" for kind, distance in wanted)
    if not port:
        return ok(check, f"any free one ({setting}=0)")
    if running is not None:
        return ok(check, f"{names}: this node runs already (process {running})")
    try:
        ports.first_port(host, port, wanted, setting)
    except ConfigError as error:
        return problem(
            check, f"{error}{_by(port, wanted)}", f"stop that program, or choose another port with {setting}=…"
        )
    return ok(check, f"{names} on {host} are free")


def _by(port: int, wanted: Sequence[ports.Need]) -> str:
    """Who has one of these ports."""
    for kind, distance in wanted:
        if (found := sockets.holder(port + distance, kind)) is not None:
            return f" ({found[1]}, process {found[0]}, listens at {port + distance})"
    return f" (to find out by whom: ss -lnptu 'sport = :{port}')"


def _protocol(kind: socket.SocketKind) -> str:
    return "TCP" if kind == socket.SOCK_STREAM else "UDP"
