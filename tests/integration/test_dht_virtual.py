"""The DHT among hostile and dead nodes, and under churn, in virtual time: what is measured here is the same in every run."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from typing import Any

import pytest
from kademlia.node import Node

from lloom.adapters.dht import Dht
from lloom.adapters.dht.addresses import pack
from lloom.adapters.dht.wire import Found
from lloom.core.errors import PeerFault
from lloom.core.identity import Identity, NodeId
from lloom.core.offer import Endpoint
from lloom.core.records import index_key
from tests.integration.dht_support import endpoint, fingerprint, tuned
from tests.integration.virtual_support import ANCHORS, LOOPBACK, NAME, PORT, Simulation, in_virtual_time, simulation

MODEL = "m"
MINUTE = 60.0


# What hostile nodes do to those who ask them. They are let in like any other, and answer under their own signature.


def silent(_: Simulation, node: Dht) -> None:
    """Takes questions and answers none."""

    def nothing(*_: Any) -> Any:
        raise PeerFault("no answer")

    protocol = node._swarm.protocol
    protocol.rpc_find_node = protocol.rpc_find_value = protocol.rpc_store = nothing  # type: ignore[method-assign]


def hiding(_: Simulation, node: Dht) -> None:
    """Claims to hold everything it is given, and shows nothing."""
    storage = node._swarm.storage
    storage.accept = lambda *_: None  # type: ignore[method-assign]
    storage.page = lambda *_: ([], 0)  # type: ignore[method-assign]


def ghostly(nodes: Simulation, node: Dht) -> None:
    """Names invented nodes, ever closer to whatever is looked for, at addresses where nobody is."""

    def ghosts(key: bytes) -> list[tuple[bytes, bytes, int]]:
        close = [key[:18] + nodes.rng.randbytes(2) for _ in range(8)]
        return [(ghost, pack(f"12.{nodes.rng.randrange(256)}.{nodes.rng.randrange(256)}.9"), PORT) for ghost in close]

    protocol = node._swarm.protocol
    protocol.rpc_find_node = lambda _, key, __: ghosts(key)  # type: ignore[method-assign]
    protocol.rpc_find_value = lambda _, key, __, ___: Found([], 0, ghosts(key))  # type: ignore[method-assign]


def misdirecting(nodes: Simulation, node: Dht) -> None:
    """Names honest nodes, at addresses where they are not."""

    def wrong() -> list[tuple[bytes, bytes, int]]:
        honest = nodes.rng.sample(nodes.nodes, 8)
        return [(nodes.identities[each].address, pack(f"12.{number}.0.9"), PORT) for number, each in enumerate(honest)]

    protocol = node._swarm.protocol
    protocol.rpc_find_node = lambda *_: wrong()  # type: ignore[method-assign]
    protocol.rpc_find_value = lambda *_: Found([], 0, wrong())  # type: ignore[method-assign]


def forging(_: Simulation, node: Dht) -> None:
    """Shows records that were changed on the way: other publishers, other seals."""
    storage = node._swarm.storage
    page = storage.page

    def forged(*arguments: Any) -> tuple[list[bytes], int]:
        raws, total = page(*arguments)
        return [raw[:30] + bytes([raw[30] ^ 1]) + raw[31:] for raw in raws], 100 * total + 100

    storage.page = forged  # type: ignore[method-assign]


HOSTILE: list[Callable[[Simulation, Dht], None]] = [silent, hiding, ghostly, misdirecting, forging]


async def announced(nodes: Simulation, executors: list[Dht], model: str = MODEL) -> set[NodeId]:
    """Who serves `model` now."""
    for number, node in enumerate(executors):
        await node.announce([model], [Endpoint(f"20.0.0.{number + 1}", 9001)], fingerprint(number))
    return {nodes.identities[node].address for node in executors}


async def timed(asker: Dht, model: str = MODEL) -> tuple[float, set[NodeId]]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    found = set(await asker.executors(model))
    return loop.time() - began, found


@pytest.mark.parametrize("validators_too", [False, True], ids=["validators alive", "validators dead"])
@in_virtual_time
async def test_forty_nodes_of_which_a_third_is_dead_and_a_fifth_hostile(validators_too: bool) -> None:
    async with simulation(40, seed=1, link=LOOPBACK) as nodes:
        others = nodes.nodes[ANCHORS:]
        executors, hostile, dying = others[:10], others[10:18], others[18:30]
        served = await announced(nodes, executors)
        askers = [others[-1], *[await nodes.add(client=True) for _ in range(4)]]
        await asyncio.sleep(MINUTE)
        for number, node in enumerate(hostile):
            HOSTILE[number % len(HOSTILE)](nodes, node)
        for node in [*dying, *(nodes.nodes[:ANCHORS] if validators_too else [])]:
            await nodes.kill(node)
        results = [await timed(asker) for _ in range(12) for asker in askers]
        seconds = sorted(took for took, _ in results)
        recalls = [len(found & served) / len(served) for _, found in results]
        assert all(found <= served for _, found in results), "nobody is made up"
        assert statistics.mean(recalls) >= 0.9
        assert min(recalls) >= (0.5 if validators_too else 0.9)
        assert statistics.median(seconds) <= 0.06
        assert seconds[-1] <= 0.3


@in_virtual_time
async def test_twenty_four_ids_ground_around_a_key_hide_nothing_while_there_are_validators() -> None:
    async with simulation(30, seed=2) as nodes:
        executors = nodes.nodes[ANCHORS : ANCHORS + 4]
        own = nodes.identity

        def gap(model: str) -> int:
            """How near the nearest honest node is to the key of `model`."""
            key = Node(index_key(NAME, model))
            return min(int(Node(nodes.identities[node].address).distance_to(key)) for node in nodes.nodes)

        model = max((f"model-{number}" for number in range(100)), key=gap)
        key, nearest = index_key(NAME, model), gap(model) // 16

        def ground() -> Identity:
            while True:
                identity = own()
                if Node(identity.address).distance_to(Node(key)) < nearest:
                    return identity

        nodes.identity = ground  # type: ignore[method-assign]
        for _ in range(24):
            hiding(nodes, await nodes.add())
        nodes.identity = own  # type: ignore[method-assign]
        served = await announced(nodes, executors, model)
        client = await nodes.add(client=True)
        await asyncio.sleep(5)  # in virtual time: it has to know how large the network is
        for _ in range(8):
            _, found = await timed(client, model)
            assert found == served
        for executor in served:
            contact = await client.contact(executor)
            assert contact is not None, "and it is told where each of them listens"
            assert contact.endpoints[0].host.startswith("20.0.0.")
        assert client.status.crowded > 0, "and it is noticed"


@in_virtual_time
async def test_every_node_is_replaced_within_ten_minutes_and_executors_are_found_all_the_time() -> None:
    settings = tuned(table_refresh_seconds=MINUTE)
    async with simulation(24, seed=3, settings=settings) as nodes:
        lasting = nodes.nodes[ANCHORS : ANCHORS + 3]
        served = await announced(nodes, lasting)
        client = await nodes.add(client=True)
        old = [node for node in nodes.nodes[ANCHORS:] if node not in lasting and node is not client]
        doomed = await announced(nodes, old[:3])
        for node in old:
            await asyncio.sleep(10 * MINUTE / len(old))
            await nodes.kill(node)
            await nodes.add()
            _, found = await timed(client)
            assert served <= found <= served | doomed
        for number, node in enumerate(lasting):
            await nodes.kill(node)
            fresh = await nodes.add()
            await fresh.announce([MODEL], [endpoint(number)], fingerprint(number))
            served.add(nodes.identities[fresh].address)
            served.discard(nodes.identities[node].address)
        await asyncio.sleep(settings.record_ttl_seconds)
        _, found = await timed(client)
        assert found == served, "who died without a goodbye is gone after one lifetime of a record"
