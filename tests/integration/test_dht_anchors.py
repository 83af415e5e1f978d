"""Validators as anchors of the DHT: pinned, asked by everybody, missed when away; and peers known from an earlier run."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from loguru import logger
from msgspec.structs import replace

from lloom.adapters.dht import Dht
from lloom.core.identity import Identity, checksum
from lloom.core.records import Key, index_key
from tests.free_ports import free_port
from tests.integration.dht_support import (
    DEADLINE,
    SETTINGS,
    endpoint,
    fingerprint,
    network,
    on_both_loops,
    swarm,
    tuned,
    until,
)


async def start(
    *seeds: str, identity: Identity | None = None, port: int = 0, folder: Path | None = None, client: bool = False
) -> Dht:
    where = replace(network(port=port), bootstrap=seeds)
    return await Dht.start(identity or Identity.generate(), where, SETTINGS, client=client, folder=folder)


@on_both_loops
async def test_a_pinned_validator_is_known_by_its_address() -> None:
    me = Identity.generate()
    validator = await start(identity=me)
    node = await start(f"{checksum(me.address)}@127.0.0.1:{validator.port}")
    await until(lambda: node.peers == 1)
    assert [(who, where.port) for who, where in node.anchors] == [(me.address, validator.port)]
    (seed,) = node.status.bootstrap
    assert (seed.node, seed.problem) == (me.address, None)
    assert seed.seconds is not None
    for each in (node, validator):
        await each.stop()


@on_both_loops
async def test_somebody_else_in_the_place_of_a_pinned_validator_is_told_from_it() -> None:
    impostor = await start()
    wanted = checksum(Identity.generate().address)
    node = await start(f"{wanted}@127.0.0.1:{impostor.port}")
    await until(lambda: "not 0x" in str(node.status.bootstrap[0].problem))
    assert f"not {wanted}" in str(node.status.bootstrap[0].problem)
    for each in (node, impostor):
        await each.stop()


@on_both_loops
async def test_ids_ground_around_a_key_hide_nothing_from_who_asks_the_validators() -> None:
    key = index_key("test", "m")
    async with swarm(3) as nodes:
        validators = nodes.nodes[:3]
        seeds = [f"127.0.0.1:{each.port}" for each in validators]
        executor = await start(*seeds)
        client = await start(*seeds, client=True)
        silent = [await start(*seeds, identity=ground(key)) for _ in range(12)]
        for each in silent:
            hide(each)
        await until(lambda: len(client.anchors) == len(executor.anchors) == 3)
        async with asyncio.timeout(DEADLINE):
            await executor.announce(["m"], [endpoint(1)], fingerprint(1))
            assert len(await client.executors("m")) == 1
            assert await client.executors("m") == await client.executors("*")
        for each in (executor, client, *silent):
            await nodes_end(each)


@on_both_loops
async def test_a_validator_that_comes_back_gets_all_records_again_and_nothing_is_restarted() -> None:
    me = Identity.generate()
    settings = tuned(bootstrap_seconds=0.2, table_refresh_seconds=0.2)
    port = free_port()
    validator = await start(identity=me, port=port)
    where = replace(network(), bootstrap=(f"{checksum(me.address)}@127.0.0.1:{port}",))
    executor = await Dht.start(Identity.generate(), where, settings, client=False)
    async with asyncio.timeout(DEADLINE):
        await executor.ready.wait()
        assert await executor.announce(["m"], [endpoint(1)], fingerprint(1)) == 1
    await nodes_end(validator)
    await until(lambda: executor.peers == 0)
    again = await start(identity=me, port=port)
    await until(lambda: again.status.records == 3)
    for each in (executor, again):
        await each.stop()


@on_both_loops
async def test_known_peers_let_a_node_in_while_its_validators_are_down(tmp_path: Path) -> None:
    async with swarm(4) as nodes:
        seed = f"127.0.0.1:{nodes.nodes[0].port}"
        first = await start(seed, folder=tmp_path)
        await until(lambda: first.peers == 4)
        await first.stop()
        kept = json.loads((tmp_path / "peers.json").read_text())
        assert len(kept["peers"]) == 4
        await nodes.kill(nodes.nodes[0])
        again = await start(seed, folder=tmp_path)
        await until(lambda: again.peers == 3)
        async with asyncio.timeout(DEADLINE):
            await again.ready.wait()
        assert again.status.problem is None
        assert "answers at" in str(again.status.bootstrap[0].problem)
        await again.stop()


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"version":1,"network":"test","peers":[{"id":"x","host":"127.0.0.1","port":1}]}', "\xff", "[" * 5000],
    ids=["empty", "a list", "a bad id", "no JSON", "nested"],
)
def test_a_broken_file_of_peers_is_set_aside(tmp_path: Path, text: str) -> None:
    (tmp_path / "peers.json").write_text(text)
    said: list[str] = []
    sink = logger.add(said.append, level="WARNING", format="{message}")

    async def story() -> None:
        node = await start(folder=tmp_path)
        await until(lambda: (tmp_path / "peers.broken").exists())
        await node.stop()

    try:
        asyncio.run(story())
    finally:
        logger.remove(sink)
    assert sum("set aside" in line for line in said) == 1


@on_both_loops
async def test_a_hint_is_enough_to_meet() -> None:
    one, other = await start(), await start()
    one.hint("127.0.0.1", other.port)
    await until(lambda: one.peers == other.peers == 1)
    for each in (one, other):
        await each.stop()


@on_both_loops
async def test_executors_of_a_crowded_key_are_found_in_its_shards() -> None:
    async with swarm(5, settings=tuned(records_per_key=8, records_per_subnet=8)) as nodes:
        served = set()
        for number in range(16):
            node = await nodes.add(client=True)
            await node.announce(["m"], [endpoint(number)], fingerprint(number))
            served.add(nodes.identities[node].address)
        client = await nodes.add(client=True)
        async with asyncio.timeout(DEADLINE):
            found = set(await client.executors("m"))
        assert found <= served
        assert len(found) >= 14, "those in the shards are found as well"


def ground(key: Key) -> Identity:
    """An identity whose id begins as the key does."""
    while True:
        identity = Identity.generate()
        if identity.address[0] == key[0]:
            return identity


def hide(node: Dht) -> None:
    """From now on `node` claims to hold what it is given, and shows nothing."""
    storage = node._swarm.storage
    storage.accept = lambda *_: None  # type: ignore[method-assign]
    storage.page = lambda *_: ([], 0)  # type: ignore[method-assign]


async def nodes_end(node: Dht) -> None:
    """As if its process had been killed."""
    await node._tasks.close()
    await node._swarm.close()
