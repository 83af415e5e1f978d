"""Real DHT nodes and hostile strangers that speak the wire format by hand: whatever they send harms nobody but themselves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest
from kademlia.node import Node
from loguru import logger

from lloom.adapters.dht import Dht, wire
from lloom.adapters.dht.addresses import Reach
from lloom.adapters.dht.sockets import bind
from lloom.adapters.dht.swarm import Swarm as Server
from lloom.adapters.dht.wire import Envelope
from lloom.core import datagram
from lloom.core.errors import PeerFault
from lloom.core.identity import Identity, NodeId
from lloom.core.records import Stamp, index_key, index_record, sign
from tests.free_ports import free_port
from tests.integration.dht_support import (
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
PING = msgspec.msgpack.encode(["ping", []])


class Stranger(asyncio.DatagramProtocol):
    """A socket and a key. Answers pings as a node does, and every other call with `body`; nothing while it is `silent`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.identity = Identity.generate()
        self.body = b""
        self.silent = False
        self.got: list[bytes] = []
        self.asked: list[str] = []
        self._clock = clock
        self._calls = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.port: int = transport.get_extra_info("sockname")[1]

    def seal(self, message: bytes, to: NodeId | None, by: Identity | None = None) -> bytes:
        return datagram.seal(message, by or self.identity, "test", recipient=to, client=False, now=self._clock())

    def call(self, body: bytes, to: NodeId | None, by: Identity | None = None) -> bytes:
        """A call that nobody made before, ready to be sent."""
        self._calls += 1
        return self.seal(wire.CALL + self._calls.to_bytes(20, "big") + body, to, by)

    def send(self, data: bytes, to: Dht) -> None:
        self.transport.sendto(data, ("127.0.0.1", to.port))

    def answers(self) -> list[bytes]:
        """The messages that answer us, or tell us the time."""
        messages = [datagram.unseal(data, datagram.tag("test")).message for data in self.got]
        return [message for message in messages if message[:1] != wire.CALL]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.got.append(data)
        sealed = datagram.unseal(data, datagram.tag("test"))
        if self.silent or sealed.message[:1] != wire.CALL:
            return
        method, _ = wire.decode_call(sealed.message[21:])
        self.asked.append(method)
        seen = msgspec.msgpack.encode((bytes([127, 0, 0, 1]), addr[1]))
        body = seen if method == "ping" else self.body
        self.transport.sendto(self.seal(wire.ANSWER + sealed.message[1:21] + body, sealed.sender), addr)


@contextlib.asynccontextmanager
async def stranger(clock: Callable[[], float]) -> AsyncIterator[Stranger]:
    """A stranger on loopback."""
    loop = asyncio.get_running_loop()
    transport, made = await loop.create_datagram_endpoint(lambda: Stranger(clock), local_addr=("127.0.0.1", 0))
    try:
        yield made
    finally:
        transport.close()


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What is logged as a warning or worse, a line each."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    yield lines
    logger.remove(sink)


def address(nodes: Swarm, node: Dht) -> NodeId:
    return nodes.identities[node].address


def knows(node: Dht, who: NodeId) -> bool:
    return who in node._swarm.protocol.router


async def is_well(nodes: Swarm, node: Dht) -> None:
    """`node` finds what another one announces, and is found."""
    other = next(each for each in nodes.nodes if each is not node)
    await other.announce(["m"], [endpoint(1)], fingerprint(1))
    await node.announce(["m"], [endpoint(2)], fingerprint(2))
    both = {address(nodes, node), address(nodes, other)}
    assert set(await node.executors("m")) == both == set(await other.executors("m"))
    assert not node._swarm.transport.is_closing()


def neighbour(*entry: object) -> bytes:
    """An answer to find_value and, cut, to find_node that names one neighbour."""
    return msgspec.msgpack.encode([[], 0, [list(entry)]])


ID, HERE = b"i" * 20, bytes([127, 0, 0, 1])
DEEP = b"\x91" * 1000 + b"\xc0"
HOSTILE_ANSWERS = {
    "a port beyond all": neighbour(ID, HERE, 70_000),
    "port zero": neighbour(ID, HERE, 0),
    "a negative port": neighbour(ID, HERE, -1),
    "a port in words": neighbour(ID, HERE, "4001"),
    "no port": neighbour(ID, HERE),
    "a port of nothing": neighbour(ID, HERE, None),
    "a host name": neighbour(ID, b"example.org", 4001),
    "a host name as text": neighbour(ID, "localhost", 4001),
    "nowhere": neighbour(ID, bytes(4), 4001),
    "multicast": neighbour(ID, bytes([224, 0, 0, 1]), 4001),
    "a short id": neighbour(b"x", HERE, 4001),
    "its double": neighbour(b"\0x", HERE, 4001),
    "both": msgspec.msgpack.encode([[], 0, [[b"x", HERE, 4001], [b"\0x", HERE, 4001]]]),
    "a long id": neighbour(bytes(21), HERE, 4001),
    "an id as text": neighbour("i" * 20, HERE, 4001),
    "an id as a number": neighbour(7, HERE, 4001),
    "a map as an id": neighbour({"a": []}, HERE, 4001),
    "a list as a key": b"\x81\x91\x01\x02",
    "a map as a key": b"\x81\x81\x01\x02\x03",
    "a thousand lists": DEEP,
    "a thousand lists within": b"\x93\x90\x00" + DEEP,
    "a promise of much": b"\xdd\xff\xff\xff\xff",
    "a wrong total": msgspec.msgpack.encode([[], -1, []]),
    "records that are none": msgspec.msgpack.encode([[b"x" * 100, b"", bytes(450)], 3, []]),
    "a text that is none": b"\xa4\xff\xff\xff\xff",
    "an extension": b"\xc7\x04\x05abcd",
    "nothing": b"",
    "rubbish": b"\xc1\xc1\xc1",
    "as much as UDP takes": bytes(65_000),
}


@on_both_loops
async def test_no_answer_whatever_it_says_spoils_a_lookup() -> None:
    async with swarm(3) as nodes, stranger(nodes.clock) as liar:
        victim, executor, _ = nodes.nodes
        await executor.announce(["m"], [endpoint(1)], fingerprint(1))
        liar.send(liar.call(PING, None), victim)
        await until(lambda: knows(victim, liar.identity.address))
        for what, liar.body in HOSTILE_ANSWERS.items():
            victim._swarm.protocol.router.add_contact(as_node(liar))
            victim._swarm.protocol.health._peers.clear()
            asked = len(liar.asked)
            assert await victim.executors("m") == [address(nodes, executor)], what
            assert len(liar.asked) > asked, what
        await is_well(nodes, victim)


def as_node(liar: Stranger) -> Node:
    return Node(liar.identity.address, "127.0.0.1", liar.port)


@on_both_loops
async def test_who_asks_is_known_once_it_has_answered_from_there_and_not_before() -> None:
    async with swarm(2) as nodes, stranger(nodes.clock) as honest, stranger(nodes.clock) as silent:
        victim = nodes.nodes[0]
        silent.silent = True
        silent.send(silent.call(PING, address(nodes, victim)), victim)
        honest.send(honest.call(PING, address(nodes, victim)), victim)
        await until(lambda: knows(victim, honest.identity.address))
        await until(lambda: len(silent.got) == 2)
        assert not knows(victim, silent.identity.address)


@on_both_loops
async def test_nobody_is_served_in_the_name_of_another() -> None:
    async with swarm(3) as nodes, stranger(nodes.clock) as thief:
        victim, other = nodes.nodes[:2]
        honest, before = address(nodes, other), victim.status.rejected
        home = victim._swarm.protocol.router.get(honest).port
        data = thief.call(PING, address(nodes, victim))
        thief.send(data[:8] + honest + data[28:], victim)
        await until(lambda: victim.status.rejected == before + 1)
        assert not thief.got
        assert victim._swarm.protocol.router.get(honest).port == home


@on_both_loops
async def test_whose_id_moves_to_a_strangers_address_stays_where_it_answers() -> None:
    async with swarm(3) as nodes, stranger(nodes.clock) as thief:
        victim, other = nodes.nodes[:2]
        thief.silent = True
        # A greeting that `other` made for somebody else, sent on from another address: it is true, and proves no address.
        thief.send(thief.call(PING, None, by=nodes.identities[other]), victim)
        await until(lambda: len(thief.got) == 2)
        await until(lambda: not victim._swarm.protocol.members.busy)
        contact = victim._swarm.protocol.router.get(address(nodes, other))
        assert contact.port == other.port
        await is_well(nodes, victim)


class Between(asyncio.DatagramProtocol):
    """Passes every datagram of either of two nodes on to the other."""

    def __init__(self, one: Dht, other: Dht) -> None:
        self.passed = 0
        self._ports = {one.port: other.port, other.port: one.port}

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.passed += 1
        self.transport.sendto(data, ("127.0.0.1", self._ports[addr[1]]))


@on_both_loops
async def test_who_passes_on_the_datagrams_of_others_does_not_draw_them_to_his_address() -> None:
    async with swarm(3) as nodes:
        victim, other = nodes.nodes[:2]
        loop = asyncio.get_running_loop()
        transport, between = await loop.create_datagram_endpoint(
            lambda: Between(victim, other), local_addr=("127.0.0.1", 0)
        )
        port = transport.get_extra_info("sockname")[1]
        assert await victim._swarm.protocol.greet("127.0.0.1", port) == address(nodes, other)
        assert between.passed >= 2
        await until(lambda: not victim._swarm.protocol.members.busy and not other._swarm.protocol.members.busy)
        assert victim._swarm.protocol.router.get(address(nodes, other)).port == other.port
        assert other._swarm.protocol.router.get(address(nodes, victim)).port == victim.port
        transport.close()


@on_both_loops
async def test_a_node_that_moved_is_found_at_its_new_address() -> None:
    async with swarm(2, settings=tuned(rpc_seconds=0.2)) as nodes:
        victim, other = nodes.nodes
        identity = nodes.identities[other]
        await nodes.kill(other)
        moved = await Dht.start(identity, network(victim.port), nodes.settings, client=False, clock=nodes.clock)
        try:
            router = victim._swarm.protocol.router
            await until(lambda: getattr(router.get(identity.address), "port", None) == moved.port)
        finally:
            await moved.stop()


@on_both_loops
async def test_a_call_sent_again_or_to_another_node_is_not_answered() -> None:
    async with swarm(2) as nodes, stranger(nodes.clock) as attacker:
        victim, other = nodes.nodes
        before, elsewhere = victim.status.rejected, other.status.rejected
        data = attacker.call(msgspec.msgpack.encode(["find_node", [bytes(20), b""]]), address(nodes, victim))
        for _ in range(5):
            attacker.send(data, victim)
        attacker.send(data, other)
        await until(lambda: victim.status.rejected == before + 4 and other.status.rejected == elsewhere + 1)
        await until(lambda: len(attacker.answers()) == 1)


@on_both_loops
async def test_a_call_from_yesterday_is_answered_with_the_time_only() -> None:
    clock = Clock()
    async with swarm(1, clock=clock) as nodes, stranger(nodes.clock) as attacker:
        victim = nodes.nodes[0]
        data = attacker.call(PING, address(nodes, victim))
        clock.ahead = SETTINGS.clock_skew_seconds + 5
        attacker.send(data, victim)
        await until(lambda: len(attacker.got) == 1)
        assert attacker.answers()[0][:1] == wire.CLOCK
        assert len(attacker.got[0]) <= len(data)
        assert not knows(victim, attacker.identity.address)


@on_both_loops
async def test_a_datagram_with_one_byte_changed_is_dropped_wherever_that_is() -> None:
    async with swarm(1) as nodes, stranger(nodes.clock) as attacker:
        victim = nodes.nodes[0]
        data = attacker.call(PING, address(nodes, victim))
        for position in range(len(data)):
            attacker.send(data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :], victim)
        await until(lambda: victim.status.rejected == len(data))
        assert not attacker.got
        attacker.send(data, victim)
        await until(lambda: len(attacker.answers()) == 1)


@on_both_loops
async def test_of_3000_pings_from_one_address_a_burst_is_answered_and_others_are_served_meanwhile() -> None:
    settings = tuned(datagrams_per_second=100)
    async with swarm(3, settings=settings) as nodes, stranger(nodes.clock) as attacker:
        victim, executor, asker = nodes.nodes
        await executor.announce(["m"], [endpoint(1)], fingerprint(1))
        attacker.silent = True
        started = asyncio.get_running_loop().time()
        for round_ in range(30):
            for _ in range(100):
                attacker.send(attacker.call(PING, None, by=Identity.generate()), victim)
            if round_ % 10 == 0:
                assert await asker.executors("m") == [address(nodes, executor)]
            await asyncio.sleep(0)
        seconds = asyncio.get_running_loop().time() - started
        await is_well(nodes, victim)
        assert 100 <= len(attacker.answers()) <= 100 * (1 + seconds) + 1
        assert victim.peers == 2


@pytest.mark.parametrize("method", ["ping", "find_node", "find_value", "padded"])
@on_both_loops
async def test_a_spoofed_source_gets_at_most_three_times_what_was_sent_in_its_name(method: str) -> None:
    async with swarm(1) as nodes, stranger(nodes.clock) as reflected:
        victim = nodes.nodes[0]
        reflected.silent = True
        key = index_key("test", "m")
        for number in range(1, 30):
            who = Identity(bytes([number]) * 32)
            stamp = Stamp(who.address, 1, int(nodes.clock()) + 600)
            victim._swarm.storage.put(sign(index_record("test", "m", stamp), who, "test"))
            victim._swarm.protocol.router.add_contact(Node(who.address, "127.0.0.1", 1000 + number))
        arguments: dict[str, list[Any]] = {
            "ping": ["ping", []],
            "find_node": ["find_node", [key, b""]],
            "find_value": ["find_value", [key, bytes(20), b""]],
            "padded": ["find_value", wire.padded("find_value", key, bytes(20))],
        }
        data = reflected.call(msgspec.msgpack.encode(arguments[method]), address(nodes, victim))
        reflected.send(data, victim)
        # The answer, and the ping back.
        await until(lambda: len(reflected.got) == 2)
        assert sum(map(len, reflected.got)) <= wire.AMPLIFICATION * len(data)


@on_both_loops
async def test_a_node_whose_clock_is_wrong_is_told_so_once_and_works_when_it_is_set_right(log: list[str]) -> None:
    async with swarm(4) as nodes:
        executor = nodes.nodes[1]
        await executor.announce(["m"], [endpoint(1)], fingerprint(1))
        clock = Clock()
        clock.ahead = -300.0
        seeds = [node.port for node in nodes.nodes]
        late = await Dht.start(Identity.generate(), network(*seeds), SETTINGS, client=False, clock=clock)
        late._patience = 0.3  # for somebody to be there; a lookup may take its time
        try:
            protocol = late._swarm.protocol
            await until(lambda: protocol.clock_offset is not None)
            assert 299 < protocol.clock_offset < 301
            assert late.peers == 0
            assert await late.executors("m") == []
            clock.ahead = 0.0
            await until(lambda: late.peers == 4)
            assert await late.executors("m") == [address(nodes, executor)]
            assert protocol.clock_offset is None
        finally:
            await late.stop()
    told = [line for line in log if "clock" in line]
    assert len(told) == 1
    assert "about 300 s behind" in told[0]


@on_both_loops
async def test_two_liars_about_the_time_do_not_convince_a_node_that_many_others_serve(log: list[str]) -> None:
    async with swarm(5) as nodes, stranger(lambda: nodes.clock() + 5000) as one, stranger(one._clock) as two:
        victim = nodes.nodes[0]
        for liar in (one, two):
            await victim._swarm.protocol.greet("127.0.0.1", liar.port)
        await victim._swarm.nearest(bytes(20))
        assert victim._swarm.protocol.clock_offset is None
    assert not [line for line in log if "clock" in line]


@on_both_loops
async def test_a_node_learns_where_it_is_seen() -> None:
    async with swarm(2) as nodes:
        assert [node._swarm.protocol.observed for node in nodes.nodes] == ["127.0.0.1"] * 2


@on_both_loops
async def test_a_node_on_all_addresses_has_a_socket_for_each_family_on_one_port() -> None:
    async with families("::") as both, families("127.0.0.1") as four, families("::1") as six:
        assert both.protocol.transport.addresses == {("0.0.0.0", both.port), ("::", both.port)}
        assert await four.protocol.greet("127.0.0.1", both.port) == both.node.id
        assert await six.protocol.greet("::1", both.port) == both.node.id
        assert await both.protocol.greet("127.0.0.1", four.port) == four.node.id
        assert await both.protocol.greet("::1", six.port) == six.node.id
        homes = {(contact.ip, contact.port) for contact in both.protocol.router}
        assert homes == {("127.0.0.1", four.port), ("::1", six.port)}


@contextlib.asynccontextmanager
async def families(host: str) -> AsyncIterator[Server]:
    """A node on `host` that may reach loopback in any family it listens in."""
    identity, clock = Identity.generate(), Clock()
    reach = Reach(v4=host != "::1", v6=":" in host, loopback=True, private=True)
    server = Server(identity.address, "test", SETTINGS, Envelope.of(identity, "test", reach, False, clock), clock)
    await server.listen(0, host)
    try:
        yield server
    finally:
        await server.close()


def test_a_port_taken_in_one_family_leaves_no_socket_of_the_other_behind() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as taken:
        taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        port = free_port()
        taken.bind(("::", port))
        with pytest.raises(OSError, match="in use"):
            bind(port, "::", both=True)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("0.0.0.0", port))


def test_what_the_wire_format_says_by_hand_is_what_is_sent() -> None:
    """The layout byte by byte, so that nobody changes it without knowing."""
    alice, bob = Identity(bytes([1]) * 32), Identity(bytes([2]) * 32)
    data = datagram.seal(b"message", alice, "test", recipient=bob.address, client=True, now=1.5)
    assert data[:3] == b"Ll\x02"
    assert data[3] == 1
    assert data[4:8] == datagram.tag("test")
    assert data[8:28] == alice.address
    assert data[28:36] == (1500).to_bytes(8, "big")
    signed = bytes([1]) + alice.address + (1500).to_bytes(8, "big") + bob.address + b"message"
    assert data[36:101] == alice.sign("datagram", "test", signed)
    assert data[101:] == b"message"
    with pytest.raises(PeerFault):
        datagram.check(datagram.unseal(data, datagram.tag("test")), "test", alice.address)
