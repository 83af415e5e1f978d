"""Which actors a role is made of, under which names and ports, and in which order they stop. Nothing is started."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from typing import cast

import dht_support
import pytest
from msgspec import Struct
from msgspec.structs import replace

from lloom.actors.accounting import Accounting
from lloom.actors.client import ClientNode
from lloom.actors.executor import ExecutorNode
from lloom.actors.place import Office
from lloom.actors.roles import GOODBYES, LEDGER, WORK, Plan, plan
from lloom.actors.validator import ValidatorNode
from lloom.actors.worker import Worker
from lloom.core.errors import ConfigError
from lloom.core.identity import Identity
from lloom.core.offer import Endpoint
from lloom.core.settings import (
    AccountingSettings,
    Chain,
    ExecutorSettings,
    GatewaySettings,
    NetworkSettings,
    Resources,
    Settings,
)
from tests.money_support import accounting, chain


class Tree(Struct, frozen=True):
    """As much of the settings as a plan reads."""

    role: str
    network: NetworkSettings
    gateway: GatewaySettings
    executor: ExecutorSettings
    accounting: AccountingSettings
    chain: dict[str, Chain]


def office(
    role: str,
    port: int = 0,
    gateway: int = 0,
    advertise: str | None = None,
    chains: Sequence[str] = (),
    mode: str = "batched",
) -> Office:
    network = replace(dht_support.network(port=port), advertise=advertise)
    server = GatewaySettings(
        host="127.0.0.1",
        port=gateway,
        max_body=1,
        body_seconds=1,
        hold_headers_seconds=1,
        keep_alive_seconds=1,
        replay_seconds=1,
        replay_bytes=1,
        drain_seconds=1,
        header_bytes=65536,
        keys={},
        assumed_output=100,
        cors=(),
    )
    executor = ExecutorSettings(
        workers=2,
        worker=Resources(num_cpus=1, num_gpus=0.5),
        max_body=1,
        bodies=1,
        queue=1,
        queue_seconds=1,
        request_seconds=1,
        requests_per_client=1,
        replay_bytes=0,
        replay_seconds=1,
        discovery_seconds=1,
        discovered_models=1,
    )
    tree = cast(
        Settings, Tree(role, network, server, executor, accounting(mode=mode), {name: chain(name) for name in chains})
    )
    return Office(tree, Identity.generate().address, "key", "providers", "log")


def summary(found: Plan) -> list[tuple[str, type, int, bool]]:
    return [(part.place.name, part.kind, part.stops, part.at_home) for part in found.parts]


def port_of(found: Plan) -> int:
    """The port that was chosen: every actor is told the same one."""
    ports = {part.place.settings.network.port for part in found.parts}
    assert len(ports) == 1
    return ports.pop()


@pytest.fixture
def taken() -> Iterator[int]:
    """A TCP port in use."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_validator_is_one_actor() -> None:
    found = plan(office("validator"), "")
    assert summary(found) == [("validator", ValidatorNode, GOODBYES, True)]
    assert found.gateway is None
    assert port_of(found)


def test_an_executor_says_goodbye_first_and_closes_its_books_last() -> None:
    found = plan(office("executor", advertise="203.0.113.7"), "")
    assert summary(found) == [
        ("accounting", Accounting, LEDGER, True),
        ("executor", ExecutorNode, GOODBYES, True),
        ("executor-worker-0", Worker, WORK, False),
        ("executor-worker-1", Worker, WORK, False),
    ]
    assert GOODBYES < WORK < LEDGER


@pytest.mark.parametrize("role", ["executor", "client"])
def test_each_chain_that_money_is_on_has_books_of_its_own(role: str) -> None:
    books = [part for part in plan(office(role, chains=["base", "polygon"]), "").parts if part.kind is Accounting]
    assert [(part.place.name, part.arguments, part.stops) for part in books] == [
        ("accounting", ("",), LEDGER),
        ("accounting-base", ("base",), LEDGER),
        ("accounting-polygon", ("polygon",), LEDGER),
    ]
    free = plan(office(role, chains=["base"], mode="off"), "")
    assert [part.place.name for part in free.parts if part.kind is Accounting] == ["accounting"]


def test_a_validator_has_books_only_where_it_may_spend_something() -> None:
    def books(budget: int | None, mode: str = "batched") -> list[str]:
        made = office("validator", chains=["base", "polygon"], mode=mode)
        spending = replace(made.settings, accounting=replace(made.settings.accounting, budget=budget))
        return [name for name, *_ in summary(plan(replace(made, settings=spending), ""))]

    assert books(0) == books(1, mode="off") == ["validator"]
    assert books(1) == books(None) == ["accounting-base", "accounting-polygon", "validator"]


def test_workers_take_the_ports_that_follow_and_the_resources_that_are_configured() -> None:
    found = plan(office("executor", advertise="203.0.113.7"), "")
    first, workers = port_of(found), found.parts[2:]
    assert [part.arguments for part in workers] == [
        (first, Endpoint("203.0.113.7", first)),
        (first + 1, Endpoint("203.0.113.7", first + 1)),
    ]
    assert {(part.num_cpus, part.num_gpus) for part in workers} == {(1, 0.5)}
    assert {(part.num_cpus, part.num_gpus) for part in found.parts[:2]} == {(0, 0)}


def test_where_nothing_is_advertised_others_are_told_the_host() -> None:
    found = plan(office("executor"), "")
    assert found.parts[2].arguments[1] == Endpoint("127.0.0.1", port_of(found))


def test_a_client_names_its_gateway_and_all_its_actors_know_its_port() -> None:
    found = plan(office("client"), "")
    assert summary(found) == [("accounting", Accounting, LEDGER, True), ("client", ClientNode, GOODBYES, True)]
    gateways = {part.place.settings.gateway.port for part in found.parts}
    assert gateways - {0}
    assert found.gateway == f"http://127.0.0.1:{gateways.pop()}"


def test_a_taken_port_is_named_with_its_setting(taken: int) -> None:
    with pytest.raises(ConfigError, match=rf"port {taken} \(TCP\).*network\.port"):
        plan(office("executor", port=taken), "")
    with pytest.raises(ConfigError, match=rf"port {taken} \(TCP\).*gateway\.port"):
        plan(office("client", gateway=taken), "")
    with pytest.raises(ConfigError, match=rf"port {taken} \(TCP\).*network\.port"):
        plan(office("validator", port=taken), "")


def test_actors_of_one_node_share_a_namespace_and_those_of_two_do_not() -> None:
    first, second = (plan(office("executor"), label) for label in ("one", "two"))
    spaces = [{part.place.namespace for part in found.parts} for found in (first, second)]
    assert [len(space) for space in spaces] == [1, 1]
    assert not spaces[0] & spaces[1]
    assert first.parts[0].place.title == "one: accounting"
