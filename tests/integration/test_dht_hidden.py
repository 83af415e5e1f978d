"""Nodes of the DHT that nobody is to find: executors behind a router, and those that hide. In virtual time."""

from __future__ import annotations

import pytest

from lloom.adapters.dht import Dht
from lloom.core.offer import Endpoint
from tests.integration.dht_support import fingerprint
from tests.integration.virtual_support import Network, Simulation, in_virtual_time, simulation

RELAYED = Endpoint("11.0.1.1", 9000, bytes(20))


def knowing(nodes: Simulation, of: Dht) -> int:
    """How many have `of` in their routing tables."""
    return sum(nodes.identities[of].address in each._swarm.protocol.router for each in nodes.nodes if each is not of)


@in_virtual_time
async def test_who_hides_is_found_and_only_validators_hear_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    partners = set()

    async with simulation(20, seed=1) as nodes:
        hiding = await nodes.add(hidden=True)
        ((own, _),) = hiding._swarm.protocol.transport.addresses
        carry = Network.carry

        def tapped(self: Network, data: bytes, source: tuple[str, int], to: tuple[str, int]) -> None:
            if source[0] == own:
                partners.add(to[0])
            carry(self, data, source, to)

        monkeypatch.setattr(Network, "carry", tapped)
        validators = {where.host for _, where in hiding.anchors}
        assert await hiding.announce(["m"], [RELAYED], fingerprint(1)) == len(validators)
        for stranger in nodes.nodes[5:]:  # they know where it is, and get no answer
            await stranger._swarm.protocol.greet(own, hiding.port)
        assert await hiding.executors("*") == [nodes.identities[hiding].address]
        assert partners == validators
        client = await nodes.add(client=True)
        assert await client.executors("m") == [nodes.identities[hiding].address]
        hiding.serve(True)
        await hiding.executors("other")
        assert knowing(nodes, hiding) == 0


@in_virtual_time
async def test_who_is_told_that_it_cannot_be_dialled_leaves_the_tables_and_may_come_back() -> None:
    async with simulation(20, seed=1) as nodes:
        node = await nodes.add()
        await node.executors("m")
        known = knowing(nodes, node)
        assert known >= 8
        node.serve(False)
        for other in nodes.nodes[:20]:
            await other._swarm.protocol.greet(*node._swarm.protocol.transport.get_extra_info("sockname"))
        assert knowing(nodes, node) == 0
        node.serve(True)
        await node.executors("m")
        await node.executors("n")
        assert knowing(nodes, node) > 0


@in_virtual_time
async def test_a_client_that_asks_is_taken_out_of_the_table_at_its_address_only() -> None:
    async with simulation(3, seed=1) as nodes:
        node, other = nodes.nodes[1:]
        router = node._swarm.protocol.router
        assert nodes.identities[other].address in router
        twin = await nodes.add(client=True)
        twin._swarm._envelope.identity = nodes.identities[other]  # the same key, elsewhere: the doctor beside its node
        here = node._swarm.protocol.transport.get_extra_info("sockname")
        await twin._swarm.protocol.greet(*here)
        assert nodes.identities[other].address in router
        other.serve(False)
        await other._swarm.protocol.greet(*here)
        assert nodes.identities[other].address not in router
