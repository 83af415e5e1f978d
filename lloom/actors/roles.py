"""Which actors each role is made of, and where they listen. It starts none of them.

Actors are imported where they are needed: what a role does not run, its process does not load.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from lloom.actors.place import Office, Place, ledger_name, worker_name
from lloom.actors.supervisor import Part
from lloom.adapters.machine import ports
from lloom.core.offer import Endpoint
from lloom.core.payment.domain import active, paying

GOODBYES, WORK, LEDGER = range(3)
"""Stages of stopping: first the network is told, then open requests end, and their receipts still reach the journal."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The actors of one node."""

    parts: tuple[Part, ...]
    gateway: str | None = None
    """`http://host:port` of a client."""


def plan(office: Office, label: str) -> Plan:
    """The actors of the office's role, their ports chosen; ConfigError if one is taken."""
    match office.settings.role:
        case "validator":
            return _validator(office, label)
        case "executor":
            return _executor(office, label)
        case "client":
            return _client(office, label)
    raise AssertionError(f"the role {office.settings.role} has no actors of its own")


def _validator(office: Office, label: str) -> Plan:
    from lloom.actors.validator import ValidatorNode

    office = _at_port(office, ports.VALIDATOR)
    head = Part(_place(office, "validator", label), ValidatorNode, stops=GOODBYES)
    return Plan((*_ledgers(office, label, paying(office.settings)), head))


def _executor(office: Office, label: str) -> Plan:
    from lloom.actors.executor import ExecutorNode
    from lloom.actors.worker import Worker

    settings = office.settings
    office = _at_port(office, ports.executor(settings.executor.workers))
    network, resources = office.settings.network, settings.executor.worker
    workers = (
        Part(
            _place(office, worker_name(number), label),
            Worker,
            (network.port + number, Endpoint(network.advertise or network.host, network.port + number)),
            num_cpus=resources.num_cpus,
            num_gpus=resources.num_gpus,
            stops=WORK,
            at_home=False,
        )
        for number in range(settings.executor.workers)
    )
    head = Part(_place(office, "executor", label), ExecutorNode, stops=GOODBYES)
    return Plan((*_ledgers(office, label, ("", *active(office.settings))), head, *workers))


def _client(office: Office, label: str) -> Plan:
    from lloom.actors.client import ClientNode, reachable

    office = _at_port(office, ports.DHT)
    gateway = office.settings.gateway
    port = ports.first_port(gateway.host, gateway.port, ports.GATEWAY, "gateway.port")
    chosen = replace(office.settings, gateway=replace(gateway, port=port))
    office = replace(office, settings=chosen)
    head = Part(_place(office, "client", label), ClientNode, stops=GOODBYES)
    return Plan(
        (*_ledgers(office, label, ("", *active(office.settings))), head), f"http://{reachable(gateway.host)}:{port}"
    )


def _ledgers(office: Office, label: str, chains: Iterable[str]) -> list[Part]:
    """One for each chain that money is on, and for what nobody pays (empty)."""
    from lloom.actors.accounting import Accounting

    return [Part(_place(office, ledger_name(chain), label), Accounting, (chain,), stops=LEDGER) for chain in chains]


def _place(office: Office, name: str, label: str) -> Place:
    return Place(**msgspec.structs.asdict(office), name=name, label=label)


def _at_port(office: Office, needs: Sequence[ports.Need]) -> Office:
    """`office` with the first port chosen: actors that Ray restarts have to find it unchanged."""
    network = office.settings.network
    port = ports.first_port(network.host, network.port, needs, "network.port")
    return replace(office, settings=replace(office.settings, network=replace(network, port=port)))
