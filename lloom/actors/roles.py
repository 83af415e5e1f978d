"""Which actors each role is made of, and where they listen. It starts none of them.

Actors are imported where they are needed: what a role does not run, its process does not load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lloom.actors.place import Place
from lloom.actors.supervisor import Part
from lloom.adapters import ports
from lloom.core.identity import NodeId
from lloom.core.offer import Endpoint
from lloom.core.settings import Settings


@dataclass(frozen=True, slots=True)
class Plan:
    """The actors of one node in the order of their start; each stage waits for the one before.

    They stop in the same order, but `ledger` last: the receipts of what is drained still go there.
    """

    ledger: tuple[Part, ...]
    stages: tuple[tuple[Part, ...], ...]
    gateway: str | None = None
    """`http://host:port` of a client."""


def plan(settings: Settings, node: NodeId, key_socket: Path, log_socket: Path) -> Plan:
    """The actors of `settings.role`, their ports chosen; ConfigError if one is taken."""
    place = Place(settings=settings, node=node, name="", key_socket=str(key_socket), log_socket=str(log_socket))
    match settings.role:
        case "validator":
            return _validator(place)
        case "executor":
            return _executor(place)
        case "client":
            return _client(place)
    raise AssertionError(f"the role {settings.role} has no actors of its own")


def _validator(place: Place) -> Plan:
    from lloom.actors.validator import ValidatorNode

    place = _at_port(place, ports.DHT)
    return Plan((), ((Part(place.named("validator"), ValidatorNode),),))


def _executor(place: Place) -> Plan:
    from lloom.actors.executor import ExecutorNode
    from lloom.actors.worker import Worker

    settings = place.settings
    workers = range(settings.executor.workers)
    place = _at_port(place, ports.executor(settings.executor.workers))
    network, resources = place.settings.network, settings.executor.worker
    parts = tuple(
        Part(
            place.named(f"executor-worker-{worker}"),
            Worker,
            (network.port + worker, Endpoint(network.advertise or network.host, network.port + worker)),
            num_cpus=resources.num_cpus,
            num_gpus=resources.num_gpus,
            at_home=False,
        )
        for worker in workers
    )
    return Plan((_ledger(place),), ((Part(place.named("executor"), ExecutorNode),), parts))


def _client(place: Place) -> Plan:
    from lloom.actors.client import ClientNode, reachable

    place = _at_port(place, ports.DHT)
    gateway = place.settings.gateway
    port = ports.first_port(gateway.host, gateway.port, ports.GATEWAY, "gateway.port")
    chosen = msgspec.structs.replace(place.settings, gateway=msgspec.structs.replace(gateway, port=port))
    place = msgspec.structs.replace(place, settings=chosen)
    return Plan(
        (_ledger(place),), ((Part(place.named("client"), ClientNode),),), f"http://{reachable(gateway.host)}:{port}"
    )


def _ledger(place: Place) -> Part:
    from lloom.actors.accounting import Accounting

    return Part(place.named("accounting"), Accounting)


def _at_port(place: Place, needs: Sequence[ports.Need]) -> Place:
    """`place` with the first port chosen: actors that Ray restarts have to find it unchanged."""
    network = place.settings.network
    port = ports.first_port(network.host, network.port, needs, "network.port")
    chosen = msgspec.structs.replace(place.settings, network=msgspec.structs.replace(network, port=port))
    return msgspec.structs.replace(place, settings=chosen)
