"""Real DHT nodes over UDP on loopback: what is announced is found, and nothing else is."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest
from kademlia.node import Node
from loguru import logger

from lloom.adapters.dht import Dht, health
from lloom.adapters.dht.addresses import Reach
from lloom.adapters.dht.wire import Envelope
from lloom.core.errors import ConfigError
from lloom.core.identity import SIGNATURE_BYTES, Identity
from lloom.core.records import (
    ALL,
    OfferBody,
    Record,
    SignedRecord,
    Stamp,
    index_key,
    index_record,
    offer_key,
    offer_record,
    sign,
)
from lloom.core.settings import DhtSettings
from tests.free_ports import free_port
from tests.integration.dht_support import (
    DEADLINE,
    SETTINGS,
    Clock,
    Swarm,
    endpoint,
    fingerprint,
    network,
    on_both_loops,
    swarm,
    tuned,
    until,
)

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What is logged, a line each."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="INFO")
    yield lines
    logger.remove(sink)


@contextlib.asynccontextmanager
async def alone(
    *seeds: int, settings: DhtSettings = SETTINGS, client: bool = False, port: int = 0, name: str = "test"
) -> AsyncIterator[Dht]:
    """One node outside any swarm of ours."""
    started = await Dht.start(Identity.generate(), network(*seeds, name=name, port=port), settings, client=client)
    try:
        yield started
    finally:
        await started.stop()


async def announce_all(nodes: Swarm, model: str) -> set[bytes]:
    """All but the first node serve `model`: their addresses."""
    for number, one in enumerate(nodes.nodes[1:]):
        assert await one.announce([model], [endpoint(number)], fingerprint(number)) > 0
    return {nodes.identities[one].address for one in nodes.nodes[1:]}


async def store(asker: Dht, at: Dht, signed: SignedRecord, key: bytes | None = None) -> bool:
    """What `at` says when `asker` wants `signed` stored there."""
    target = Node(at._swarm.node.id, "127.0.0.1", at.port)
    return await asker._swarm.protocol.call_store(target, key or signed.record.key, signed.raw)


@on_both_loops
async def test_what_is_announced_is_found_by_model_and_under_all(monkeypatch: pytest.MonkeyPatch) -> None:
    # All of them have to say that they hold what was announced. Together they are one process, and a lookup waits 30 ms.
    monkeypatch.setattr(health, "MIN_HEDGE", DEADLINE)
    monkeypatch.setattr(health, "MIN_TIMEOUT", DEADLINE)
    patient = tuned(rpc_seconds=DEADLINE, hedge_seconds=DEADLINE, lookup_seconds=DEADLINE)
    async with swarm(6, settings=patient) as nodes:
        executor, other = nodes.nodes[2], nodes.nodes[3]
        assert await executor.announce(["m1", "m2"], [endpoint(1), endpoint(2)], fingerprint(1)) == 5
        await other.announce(["m2"], [endpoint(3)], fingerprint(2))
        client = await nodes.add(client=True)
        first, second = nodes.identities[executor].address, nodes.identities[other].address
        assert await client.executors("m1") == [first]
        assert set(await client.executors("m2")) == {first, second}
        assert set(await client.executors(ALL)) == {first, second}
        assert await client.executors("unknown") == []
        contact = await client.contact(first)
        assert contact is not None
        assert contact.endpoints == (endpoint(1), endpoint(2))
        assert contact.fingerprint == fingerprint(1)
        assert await client.contact(nodes.identities[client].address) is None


@on_both_loops
async def test_a_swarm_with_a_third_of_its_nodes_dead_still_finds_nine_of_ten() -> None:
    async with swarm(40) as nodes:
        served = await announce_all(nodes, "m")
        client = await nodes.add(client=True)
        for dead in random.sample(nodes.nodes[2:-1], 12):
            await nodes.kill(dead)
        for asker in (client, *nodes.nodes[:5]):
            async with asyncio.timeout(DEADLINE):
                found = set(await asker.executors("m"))
            assert found <= served
            assert len(found) >= 0.9 * len(served)
        async with asyncio.timeout(DEADLINE):
            assert await nodes.nodes[3].announce(["m2"], [endpoint(1)], fingerprint(1)) >= 2


@on_both_loops
async def test_more_records_than_fit_one_answer_are_fetched_page_by_page() -> None:
    async with swarm(2) as nodes:
        holder, asker = nodes.nodes
        stamps = [Stamp(Identity.generate().address, 1, int(nodes.clock()) + 600) for _ in range(60)]
        for stamp in stamps:
            record = index_record("test", "m", stamp)
            holder._swarm.storage.put(sign(record, Identity.generate(), "test"))
        # Signed by nobody in particular: a lookup must reject them all, and still end.
        assert await asker.executors("m") == []
        identities = [Identity.generate() for _ in range(60)]
        for identity in identities:
            record = index_record("test", "m2", Stamp(identity.address, 1, int(nodes.clock()) + 600))
            holder._swarm.storage.put(sign(record, identity, "test"))
        assert set(await asker.executors("m2")) == {identity.address for identity in identities}


@on_both_loops
async def test_forged_expired_and_tampered_records_are_refused() -> None:
    async with swarm(2) as nodes:
        asker, holder = nodes.nodes
        me, victim = Identity.generate(), Identity.generate()
        now = int(nodes.clock())

        def mine(seconds: int = 600, **changes: object) -> Record:
            record = index_record("test", "m", Stamp(me.address, now, now + seconds))
            return msgspec.structs.replace(record, **changes)

        good = sign(mine(), me, "test")
        body, signature = good.raw[:-SIGNATURE_BYTES], good.raw[-SIGNATURE_BYTES:]
        offer = offer_record("test", OfferBody((endpoint(1),), fingerprint(1)), Stamp(me.address, now, now + 600))
        refused = {
            "expired": sign(mine(seconds=-1), me, "test"),
            "lives too long": sign(mine(seconds=100_000), me, "test"),
            "forged": sign(mine(publisher=victim.address), me, "test"),
            "of another network": sign(mine(), me, "elsewhere"),
            "under a foreign key": sign(mine(key=index_key("test", "m2")), me, "test"),
            "offer of somebody else": sign(
                msgspec.structs.replace(offer, key=offer_key("test", victim.address)), me, "test"
            ),
            "tampered body": SignedRecord(good.record, body[:-2] + b"x" + body[-1:] + signature),
            "tampered signature": SignedRecord(good.record, body + bytes([signature[0] ^ 1]) + signature[1:]),
        }
        for what, signed in refused.items():
            assert not await store(asker, holder, signed), what
        assert not await store(asker, holder, good, key=index_key("test", "m3"))
        assert holder.status.records == 0
        assert await store(asker, holder, good)
        assert holder.status.records == 1
        assert await asker.executors("m") == [me.address]


@on_both_loops
async def test_records_a_holder_tampered_with_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with swarm(2) as nodes:
        holder, executor = nodes.nodes
        await executor.announce(["m"], [endpoint(1)], fingerprint(1))
        honest = holder._swarm.storage.page

        def tampering(*arguments: object) -> tuple[list[bytes], int]:
            page, total = honest(*arguments)
            return [bytes([*raw[:40], raw[40] ^ 1, *raw[41:]]) for raw in page], total

        monkeypatch.setattr(holder._swarm.storage, "page", tampering)
        await nodes.kill(executor)
        client = await nodes.add(client=True)
        assert await client.executors("m") == []
        assert client.status.rejected > 0


@on_both_loops
async def test_records_that_belong_elsewhere_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with swarm(2) as nodes:
        holder, asker = nodes.nodes
        me = Identity.generate()
        other = sign(index_record("test", "m2", Stamp(me.address, 1, int(nodes.clock()) + 600)), me, "test")
        monkeypatch.setattr(holder._swarm.storage, "page", lambda *_: ([other.raw], 1))
        assert await asker.executors("m") == []
        assert await asker.executors("m2") == [me.address]


@pytest.mark.parametrize("late", [0.005, 0.03, 0.4])
@on_both_loops
async def test_what_was_answered_while_our_own_loop_stood_still_is_read_before_anybody_gives_up(late: float) -> None:
    async with swarm(1) as nodes:
        holder, asker = nodes.nodes[0], await nodes.add(client=True)
        await holder.announce(["m"], [endpoint(1)], fingerprint(1))
        await asker.executors("m")
        contact = Node(nodes.identities[holder].address, "127.0.0.1", holder.port)
        patience = asker._swarm.protocol.health.timeout(contact)
        for _ in range(3):
            asking = asyncio.create_task(asker.executors("m"))
            await until(lambda: bool(asker._swarm.protocol._outstanding), poll=0)
            time.sleep(patience + late)  # noqa: ASYNC251 - all of it stands still: that is what is tested
            assert await asking == [contact.id]


@on_both_loops
async def test_a_goodbye_removes_what_was_announced() -> None:
    async with swarm(5) as nodes:
        executor = nodes.nodes[1]
        address = nodes.identities[executor].address
        client = await nodes.add(client=True)
        await executor.announce(["m1", "m2"], [endpoint(1)], fingerprint(1))
        await executor.announce(["m2"], [endpoint(1)], fingerprint(2))
        assert await client.executors("m1") == []
        assert await client.executors("m2") == [address]
        nodes.nodes.remove(executor)
        await executor.stop()
        assert await client.executors("m2") == []
        assert await client.contact(address) is None


@on_both_loops
async def test_a_new_announcement_replaces_the_old_one_everywhere() -> None:
    async with swarm(5) as nodes:
        executor = nodes.nodes[1]
        address = nodes.identities[executor].address
        await executor.announce(["m"], [endpoint(1)], fingerprint(1))
        before = await nodes.nodes[2].contact(address)
        await executor.announce(["m"], [endpoint(2)], fingerprint(2))
        after = await nodes.nodes[2].contact(address)
        assert before is not None
        assert after is not None
        assert (after.endpoints, after.fingerprint) == ((endpoint(2),), fingerprint(2))
        assert after.seq > before.seq


@on_both_loops
async def test_what_a_killed_executor_announced_expires() -> None:
    clock = Clock()
    async with swarm(5, clock=clock) as nodes:
        executor = nodes.nodes[1]
        await executor.announce(["m"], [endpoint(1)], fingerprint(1))
        await nodes.kill(executor)
        assert len(await nodes.nodes[2].executors("m")) == 1
        clock.ahead = SETTINGS.record_ttl_seconds - 5
        assert len(await nodes.nodes[2].executors("m")) == 1
        clock.ahead = SETTINGS.record_ttl_seconds + 5
        assert await nodes.nodes[2].executors("m") == []


@on_both_loops
async def test_a_living_executor_outlives_the_life_of_its_records() -> None:
    async with swarm(4, settings=tuned(record_ttl_seconds=3.0)) as nodes:
        executor = nodes.nodes[1]
        address = nodes.identities[executor].address
        await executor.announce(["m"], [endpoint(1)], fingerprint(1))
        key, storage = index_key("test", "m"), nodes.nodes[2]._swarm.storage
        (first,) = storage.records(key)
        await until(lambda: any(s.record.expiry >= first.record.expiry + 3 for s in storage.records(key)))
        assert await nodes.nodes[3].executors("m") == [address]


@on_both_loops
async def test_client_mode_nodes_are_in_no_routing_table_and_hold_nothing() -> None:
    async with swarm(5) as nodes:
        clients = [await nodes.add(client=True) for _ in range(3)]
        hidden = {nodes.identities[client].address for client in clients}
        for client in clients:
            await client.announce(["m"], [endpoint(1)], fingerprint(1))
            assert await client.executors("m")
        me = Identity.generate()
        signed = sign(index_record("test", "m", Stamp(me.address, 1, int(nodes.clock()) + 600)), me, "test")
        assert not await store(nodes.nodes[0], clients[0], signed)
        for one in nodes.nodes:
            assert not hidden & {contact.id for contact in one._swarm.protocol.router}
        assert [client.status.records for client in clients] == [0, 0, 0]


@on_both_loops
async def test_bootstrap_to_a_dead_node_tells_why_once_and_succeeds_when_it_lives(
    log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    async with alone(port, settings=tuned(rpc_seconds=0.1)) as early:
        tries = 0
        greet = early._swarm.protocol.greet

        async def count(*arguments: object) -> object:
            nonlocal tries
            tries += 1
            return await greet(*arguments)

        monkeypatch.setattr(early._swarm.protocol, "greet", count)
        await until(lambda: tries >= 3)
        assert f"127.0.0.1:{port}" in str(early.status.problem)
        assert not early.ready.is_set()
        async with alone(port=port) as late:
            async with asyncio.timeout(DEADLINE):
                await early.ready.wait()
            await until(lambda: early.peers == 1 and late.peers == 1)
            await until(lambda: early.status.problem is None)
    assert len([line for line in log if line.startswith("Not in the network test")]) == 1


@on_both_loops
async def test_what_nobody_heard_is_said_again_as_soon_as_somebody_is_there() -> None:
    port = free_port()
    # So long that only the network's coming can be the reason.
    patient = tuned(bootstrap_seconds=3600.0)
    async with alone(port, settings=patient, client=True) as early:
        await until(lambda: early.status.problem is not None)
        async with asyncio.timeout(DEADLINE):
            assert await early.announce(["m"], [endpoint(1)], fingerprint(1)) == 0
        async with alone(port=port) as late:
            await until(lambda: late.status.records == 3)


@on_both_loops
async def test_a_node_whose_peers_are_all_gone_finds_its_seed_again() -> None:
    port = free_port()
    async with alone(port=port):
        member = await Dht.start(Identity.generate(), network(port), tuned(rpc_seconds=0.2), client=False)
        await until(lambda: member.peers == 1)
    try:
        while member.peers:
            await member.executors("m")
        async with alone(port=port) as reborn:
            await until(lambda: member.peers == 1 and reborn.peers == 1)
    finally:
        await member.stop()


@on_both_loops
async def test_without_anybody_to_ask_a_node_is_ready_at_once() -> None:
    async with alone() as lonely:
        assert lonely.ready.is_set()
        async with asyncio.timeout(DEADLINE):
            assert await lonely.announce(["m"], [endpoint(1)], fingerprint(1)) == 0
            assert len(await lonely.executors("m")) == 1


@on_both_loops
async def test_a_node_that_is_its_own_seed_is_ready() -> None:
    port = free_port()
    async with alone(port, port=port) as seed, asyncio.timeout(DEADLINE):
        await seed.ready.wait()
        assert seed.status.problem is None


@on_both_loops
async def test_networks_of_different_names_do_not_mix() -> None:
    async with swarm(2) as nodes, alone(nodes.nodes[0].port, name="other") as stranger:
        await until(lambda: stranger.status.problem is not None)
        await until(lambda: nodes.nodes[0].status.rejected > 0)
        assert "'other'" in str(stranger.status.problem)
        assert stranger.peers == 0
        assert nodes.nodes[0].peers == 1


@pytest.mark.parametrize("seed", ["nohost", "host:", "host:99999", ":4001", "host:0", "host:-1"])
@on_both_loops
async def test_a_seed_that_is_not_host_and_port_is_a_configuration_error(seed: str) -> None:
    settings = msgspec.structs.replace(network(), bootstrap=(seed,))
    with pytest.raises(ConfigError, match=r"network\.bootstrap"):
        await Dht.start(Identity.generate(), settings, SETTINGS, client=False)


@on_both_loops
async def test_a_port_in_use_is_a_configuration_error() -> None:
    async with alone() as first:
        with pytest.raises(ConfigError, match=r"network\.port.*127\.0\.0\.1"):
            await Dht.start(Identity.generate(), network(port=first.port), SETTINGS, client=False)


@on_both_loops
async def test_garbage_and_hostile_answers_leave_a_node_working() -> None:
    async with swarm(3) as nodes:
        target = nodes.nodes[0]
        stranger = Envelope.of(Identity.generate(), "test", Reach.of("127.0.0.1", True), False, nodes.clock)
        victim = nodes.identities[target].address
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=("127.0.0.1", target.port)
        )
        pings = [b"\x00" + bytes([number]) * 20 + body for number, body in enumerate(HOSTILE_CALLS)]
        sealed = [stranger.close(message, victim) for message in (b"", bytes(21), *pings)]
        for datagram in (b"", b"x", bytes(2000), *sealed):
            transport.sendto(datagram)
        await until(lambda: target.status.rejected >= 4 + len(HOSTILE_CALLS))
        transport.close()
        assert not target._swarm.transport.is_closing()
        await target.announce(["m"], [endpoint(1)], fingerprint(1))
        assert len(await nodes.nodes[1].executors("m")) == 1


HOSTILE_CALLS = [
    b"\xc1",
    msgspec.msgpack.encode(["stun", []]),
    msgspec.msgpack.encode(["ping", [b"x"]]),
    msgspec.msgpack.encode(["find_node", ["x" * 20, b""]]),
    msgspec.msgpack.encode(["find_node", [b"\0" + bytes(20), b""]]),
    msgspec.msgpack.encode(["find_value", [bytes(20), 7, b""]]),
    msgspec.msgpack.encode(["store", [bytes(20), bytes(1000)]]),
    msgspec.msgpack.encode(["__class__", []]),
    b"\x91" * 1000,
]


@on_both_loops
async def test_bad_addresses_from_a_peer_never_reach_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = [
        (b"1" * 20, bytes([127, 0, 0, 1]), 70_000),
        (b"2" * 20, b"no-such-host", 9999),
        (b"3" * 20, bytes([224, 0, 0, 1]), 9999),
        (b"4" * 20, bytes(4), 9999),
        (b"5" * 20, bytes([8, 8, 8, 8]), 53),
        (b"6" * 20, bytes(16), 9999),
        (b"7" * 20, bytes([127, 0, 0, 1]), 0),
    ]
    async with swarm(2) as nodes:
        liar, asker = nodes.nodes
        for entry in bad:
            monkeypatch.setattr(liar._swarm.protocol, "_neighbours", lambda *_, entry=entry: [entry])
            async with asyncio.timeout(DEADLINE):
                assert await asker.executors("m") == []
        assert not asker._swarm.transport.is_closing()
        monkeypatch.undo()
        await liar.announce(["m"], [endpoint(1)], fingerprint(1))
        assert len(await asker.executors("m")) == 1


@on_both_loops
async def test_endless_ghosts_do_not_make_a_lookup_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    async with swarm(3) as nodes:
        liar, _, asker = nodes.nodes
        key = int.from_bytes(index_key("test", "m"), "big")
        distances = itertools.count(2**100, -1)

        def ghosts(*_: object) -> list[tuple[bytes, bytes, int]]:
            nearer = ((key ^ next(distances)).to_bytes(20, "big") for _ in range(8))
            return [(ghost, bytes([127, 0, 0, 1]), liar.port) for ghost in nearer]

        asked = 0
        ask = asker._swarm.protocol.call_find_value

        async def count(*arguments: object) -> object:
            nonlocal asked
            asked += 1
            return await ask(*arguments)

        monkeypatch.setattr(liar._swarm.protocol, "_neighbours", ghosts)
        monkeypatch.setattr(asker._swarm.protocol, "call_find_value", count)
        async with asyncio.timeout(DEADLINE):
            await asker.executors("m")
        assert asked <= SETTINGS.max_queries


@on_both_loops
async def test_senseless_endpoints_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async with swarm(2) as nodes:
        executor, asker = nodes.nodes
        address = nodes.identities[executor].address
        elsewhere = msgspec.structs.replace(endpoint(1), host="203.0.113.7")
        await executor.announce(["m"], [elsewhere, endpoint(2)], fingerprint(1))
        contact = await asker.contact(address)
        assert contact is not None
        assert contact.endpoints == (endpoint(2),)
        await executor.announce(["m"], [elsewhere], fingerprint(1))
        assert await asker.contact(address) is None


@on_both_loops
async def test_stopping_leaves_no_task_behind() -> None:
    before = asyncio.all_tasks()
    async with swarm(3) as nodes:
        await nodes.nodes[1].announce(["m"], [endpoint(1)], fingerprint(1))
    assert asyncio.all_tasks() == before
