"""One node's end of the DHT with bytes put in and taken out by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from kademlia.node import Node

from lloom.adapters.dht import wire
from lloom.adapters.dht.addresses import Reach
from lloom.adapters.dht.introductions import MAX_AT_ONCE, MAX_PER_SUBNET
from lloom.adapters.dht.protocol import Protocol
from lloom.adapters.dht.storage import RecordStore
from lloom.adapters.dht.wire import MAX_DATAGRAM, Envelope
from lloom.core.identity import Identity, NodeId
from lloom.core.records import Stamp, index_key, index_record, sign
from tests.integration.dht_support import SETTINGS

SKEW = SETTINGS.clock_skew_seconds
US, THEM, OTHER = (Identity(bytes([number]) * 32) for number in (91, 92, 93))
PEER = Node(THEM.address, "127.0.0.1", 4001)
NOW = 1_000_000


def envelope(
    who: Identity = THEM, *, client: bool = False, ahead: float = 0, here: str = "127.0.0.1", network: str = "test"
) -> Envelope:
    return Envelope.of(who, network, Reach.of(here, False), client, lambda: NOW + ahead)


class Wire:
    """Stands for asyncio's transport and keeps what was sent."""

    def __init__(self, host: str) -> None:
        self.sent: list[tuple[bytes, tuple[Any, ...]]] = []
        self.closed = False
        self._host = host

    def sendto(self, data: bytes, address: tuple[Any, ...]) -> None:
        self.sent.append((data, address))

    def get_extra_info(self, name: str) -> tuple[str, int]:
        return self._host, 4000

    def is_closing(self) -> bool:
        return self.closed

    def last(self) -> bytes:
        """The message last sent."""
        return envelope().open(self.sent[-1][0]).message


class Side:
    """A protocol and its wire. It listens on `host`."""

    def __init__(self, host: str = "127.0.0.1", client: bool = False) -> None:
        self.wire = Wire(host)
        self.host = host
        own = envelope(US, client=client, here=host)
        self.protocol = Protocol(Node(US.address), RecordStore("test", SETTINGS, lambda: NOW), SETTINGS, own)
        self.protocol.connection_made(self.wire)
        self._ids = 0

    def receive(self, message: bytes, port: int = 4001, by: Envelope | None = None, **options: Any) -> None:
        """A datagram sealed by `by` arrives."""
        recipient = options.get("recipient", US.address)
        datagram = (by or envelope()).close(message, recipient)
        self.protocol.datagram_received(datagram, (options.get("host", "127.0.0.1"), port))

    def new_id(self) -> bytes:
        self._ids += 1
        return self._ids.to_bytes(20, "big")

    def call(self, method: str, *arguments: object, **options: Any) -> Any:
        """What the protocol answers to a call from port 4001."""
        message_id = self.new_id()
        self.receive(wire.CALL + message_id + msgspec.msgpack.encode([method, arguments]), **options)
        message = self.wire.last()
        assert message[:21] == wire.ANSWER + message_id
        return msgspec.msgpack.decode(message[21:])

    def know(self, count: int) -> None:
        for number in range(1, count + 1):
            self.protocol.router.add_contact(known(number))

    async def end(self) -> None:
        self.wire.closed = True
        self.protocol.connection_lost(None)
        await self.protocol.tasks.close()


def known(number: int) -> Node:
    return Node(bytes([number]) * 20, "127.0.0.1", 5000 + number)


@pytest.fixture
async def side() -> AsyncIterator[Side]:
    made = Side()
    yield made
    await made.end()


async def ask(side: Side) -> tuple[asyncio.Task[Any], bytes]:
    """A ping under way, and the id of its message."""
    task = asyncio.create_task(side.protocol.call_ping(PEER))
    await asyncio.sleep(0)
    return task, side.wire.last()[1:21]


def pong(message_id: bytes, seen: object = (bytes([127, 0, 0, 1]), 4000)) -> bytes:
    return wire.ANSWER + message_id + msgspec.msgpack.encode(seen)


async def test_an_answer_makes_the_peer_known(side: Side) -> None:
    task, message_id = await ask(side)
    side.receive(pong(message_id))
    assert await task == PEER.id
    assert PEER.id in side.protocol.router


async def test_an_answer_from_another_address_does_not_count(side: Side) -> None:
    task, message_id = await ask(side)
    side.receive(pong(message_id), port=4002)
    assert side.protocol.rejected == 1
    assert not task.done()
    side.receive(pong(message_id))
    assert await task == PEER.id


async def test_a_second_answer_and_one_nobody_asked_for_are_dropped(side: Side) -> None:
    task, message_id = await ask(side)
    side.receive(pong(message_id))
    side.receive(pong(message_id))
    side.receive(pong(b"x" * 20))
    assert await task == PEER.id
    assert side.protocol.rejected == 2


async def test_an_answer_to_a_caller_that_gave_up_harms_nothing(side: Side) -> None:
    task, message_id = await ask(side)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    side.receive(pong(message_id))
    assert side.protocol.rejected == 0
    assert not side.protocol._outstanding


async def test_an_answer_signed_by_somebody_else_does_not_count(side: Side) -> None:
    task, message_id = await ask(side)
    side.receive(pong(message_id), by=envelope(OTHER))
    side.receive(pong(message_id), by=envelope(network="other"))
    side.receive(pong(message_id), recipient=OTHER.address)
    side.receive(pong(message_id), recipient=None)
    assert side.protocol.rejected == 4
    assert not task.done()
    side.receive(pong(message_id))
    assert await task == PEER.id


@pytest.mark.parametrize("seen", [7, [], [b"1234"], [b"1234", 0], [b"1234", 70_000], ["1234", 1], b"x" * 20, [[]] * 2])
async def test_a_malformed_answer_is_a_strike(side: Side, seen: Any) -> None:
    task, message_id = await ask(side)
    side.receive(pong(message_id, seen))
    assert await task is None
    assert len(side.protocol.router) == 0
    assert side.protocol.health.resting(PEER, asyncio.get_running_loop().time())


async def test_who_is_greeted_is_known_by_its_signature(side: Side) -> None:
    task = asyncio.create_task(side.protocol.greet("127.0.0.1", 4001))
    await asyncio.sleep(0)
    side.receive(pong(side.wire.last()[1:21]), by=envelope(OTHER))
    assert await task == OTHER.address
    assert OTHER.address in side.protocol.router


async def test_an_answer_in_client_mode_makes_nobody_known(side: Side) -> None:
    task, message_id = await ask(side)
    side.receive(pong(message_id), by=client_mode())
    assert await task == PEER.id
    assert len(side.protocol.router) == 0


def client_mode() -> Envelope:
    """The envelope of a node in client mode."""
    return envelope(client=True)


async def test_a_stranger_that_asks_is_asked_back_before_it_is_known(side: Side) -> None:
    assert side.call("ping") == [bytes([127, 0, 0, 1]), 4001]
    assert len(side.protocol.router) == 0
    await asyncio.sleep(0)
    message = side.wire.last()
    assert wire.decode_call(message[21:]) == ("ping", ())
    side.call("ping")
    await asyncio.sleep(0)
    assert len(side.wire.sent) == 3, "asked back once only"
    side.receive(pong(message[1:21]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert PEER.id in side.protocol.router


async def test_strangers_are_asked_back_a_few_at_once_from_one_subnet_and_some_in_all() -> None:
    side = Side("0.0.0.0")
    for number in range(1, 201):
        who = Identity(number.to_bytes(32, "big"))
        side.call("ping", by=envelope(who), host=f"203.0.113.{number}")
    await asyncio.sleep(0)
    pings = len(side.wire.sent) - 200
    assert pings == MAX_PER_SUBNET
    for number in range(1, 201):
        who = Identity((1000 + number).to_bytes(32, "big"))
        side.call("ping", by=envelope(who), host=f"198.51.{number}.7")
    await asyncio.sleep(0)
    assert len(side.wire.sent) - 400 == MAX_AT_ONCE
    await side.end()


async def test_a_client_that_asks_is_answered_and_not_asked_back(side: Side) -> None:
    assert side.call("ping", by=client_mode())
    await asyncio.sleep(0)
    assert len(side.wire.sent) == 1


async def test_a_peer_is_not_blamed_when_it_was_our_loop_that_stood_still(side: Side) -> None:
    task, message_id = await ask(side)
    _, timer = side.protocol._outstanding[message_id]
    late = timer.when() + 10
    side.protocol._loop = Frozen(late)
    side.protocol._timeout(message_id)
    side.receive(pong(message_id))
    assert await task == PEER.id
    timer.cancel()


class Frozen:
    """An event loop as the protocol sees it, at one moment."""

    def __init__(self, now: float) -> None:
        self._now = now

    def time(self) -> float:
        return self._now

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: object) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(delay, callback, *arguments)


async def test_the_end_of_the_connection_ends_all_calls(side: Side) -> None:
    task, _ = await ask(side)
    await side.end()
    assert await task is None


async def test_as_long_as_one_family_has_its_socket_calls_go_on(side: Side) -> None:
    other = Wire("::1")
    side.protocol.connection_made(other)
    task, message_id = await ask(side)
    other.closed = True
    side.protocol.connection_lost(None)
    side.receive(pong(message_id))
    assert await task == PEER.id


async def test_each_datagram_goes_by_the_socket_of_its_family() -> None:
    side = Side("::")
    v4 = Wire("0.0.0.0")
    side.protocol.connection_made(v4)
    for host in ("203.0.113.7", "2606::7"):
        side.protocol.tasks.spawn(side.protocol.greet(host, 4001))
    await asyncio.sleep(0)
    assert [to for _, to in v4.sent] == [("203.0.113.7", 4001)]
    assert [to for _, to in side.wire.sent] == [("2606::7", 4001)]
    v4.closed = True
    await side.end()


@pytest.mark.parametrize("model", ["m", "m" * 128])
async def test_every_answer_fits_a_safe_datagram(side: Side, model: str) -> None:
    side.know(40)
    for number in range(1, 30):
        identity = Identity(bytes([number]) * 32)
        record = index_record("test", model, Stamp(identity.address, 2**62, NOW + 600))
        side.protocol.storage.put(sign(record, identity, "test"))
    key = index_key("test", model)
    records, total, neighbours = side.call("find_value", *wire.padded("find_value", key, bytes(20)))
    assert total == 29
    assert len(records) >= 3
    assert len(neighbours) == SETTINGS.k
    assert len(side.wire.sent[-1][0]) <= MAX_DATAGRAM
    assert len(side.call("find_node", *wire.padded("find_node", key))) == SETTINGS.k


async def test_an_answer_is_no_longer_than_three_times_the_call_whatever_its_padding(side: Side) -> None:
    side.know(40)
    for number in range(1, 30):
        identity = Identity(bytes([number]) * 32)
        side.protocol.storage.put(
            sign(index_record("test", "m", Stamp(identity.address, 1, NOW + 600)), identity, "test")
        )
    key = index_key("test", "m")
    for padding in range(0, 400, 7):
        for call in (["find_value", key, bytes(20), bytes(padding)], ["find_node", key, bytes(padding)], ["ping"]):
            asked = len(
                envelope().close(wire.CALL + bytes(20) + msgspec.msgpack.encode([call[0], call[1:]]), US.address)
            )
            side.call(*call, by=client_mode())
            assert len(side.wire.sent[-1][0]) <= wire.AMPLIFICATION * asked


async def test_neighbours_that_do_not_answer_are_not_passed_on(side: Side) -> None:
    side.know(1)
    assert len(side.call("find_node", bytes(20), b"")) == 1
    side.protocol.health.missed(known(1), asyncio.get_running_loop().time())
    assert side.call("find_node", bytes(20), b"") == []


async def test_a_new_neighbour_is_given_what_it_should_hold(side: Side) -> None:
    identity = Identity(bytes([1]) * 32)
    signed = sign(index_record("test", "m", Stamp(identity.address, 1, NOW + 600)), identity, "test")
    side.protocol.storage.put(signed)
    task, message_id = await ask(side)
    side.receive(pong(message_id))
    await task
    await asyncio.sleep(0)
    method, arguments = wire.decode_call(side.wire.last()[21:])
    assert (method, arguments) == ("store", (signed.record.key, signed.raw))


async def test_a_greeting_may_ping_and_nothing_else(side: Side) -> None:
    assert side.call("ping", recipient=None)
    sent = len(side.wire.sent)
    for call in (
        ["find_node", [bytes(20), b""]],
        ["find_value", [bytes(20), bytes(20), b""]],
        ["store", [bytes(20), b""]],
    ):
        side.receive(wire.CALL + side.new_id() + msgspec.msgpack.encode(call), recipient=None)
    assert len(side.wire.sent) == sent
    assert side.protocol.rejected == 3


async def test_a_call_that_comes_again_is_not_answered_again(side: Side) -> None:
    datagram = envelope().close(wire.CALL + bytes(20) + msgspec.msgpack.encode(["ping", []]), US.address)
    for _ in range(3):
        side.protocol.datagram_received(datagram, ("127.0.0.1", 4001))
    side.protocol.datagram_received(datagram, ("127.0.0.1", 6666))
    assert side.protocol.rejected == 3
    assert len(side.wire.sent) == 1


async def test_a_call_made_for_another_node_is_not_answered(side: Side) -> None:
    side.receive(wire.CALL + bytes(20) + msgspec.msgpack.encode(["ping", []]), recipient=OTHER.address)
    assert side.protocol.rejected == 1
    assert not side.wire.sent


async def test_no_signature_is_checked_for_answers_nobody_waits_for_and_for_floods(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = 0

    def count(*_: object) -> None:
        nonlocal checked
        checked += 1

    monkeypatch.setattr(Envelope, "check", count)
    for _ in range(100):
        side.receive(pong(b"x" * 20))
        side.receive(wire.CLOCK + b"x" * 20)
    assert checked == 0
    monkeypatch.setattr(side.protocol._loop, "time", lambda: 50.0, raising=False)
    for _ in range(3000):
        side.receive(wire.CALL + side.new_id() + msgspec.msgpack.encode(["ping", []]), by=client_mode())
    assert checked == SETTINGS.datagrams_per_second
    assert side.call("ping", port=4002)


@pytest.mark.parametrize("ahead", [-SKEW - 180, SKEW + 180, 1e15])
async def test_who_has_a_wrong_clock_is_told_so_and_served_nothing(side: Side, ahead: float) -> None:
    late = envelope(ahead=ahead)
    side.receive(wire.CALL + b"i" * 20 + msgspec.msgpack.encode(["ping", []]), by=late)
    data, _ = side.wire.sent[-1]
    told = late.open(data)
    assert told.message == wire.CLOCK + b"i" * 20
    assert told.time == NOW
    assert told.sender == US.address
    await asyncio.sleep(0)
    assert len(side.wire.sent) == 1, "nor is it asked back"


async def test_answers_from_another_time_do_not_count(side: Side) -> None:
    task, message_id = await ask(side)
    side.receive(pong(message_id), by=envelope(ahead=SKEW + 1))
    assert side.protocol.rejected == 1
    side.receive(pong(message_id), by=envelope(ahead=SKEW - 1))
    assert await task == PEER.id


async def test_our_clock_is_off_when_two_say_so_and_then_nobody_is_blamed(side: Side) -> None:
    for number, who in enumerate((THEM, OTHER)):
        assert side.protocol.clock_offset is None
        task = asyncio.create_task(side.protocol.call_ping(Node(who.address, "127.0.0.1", 4001 + number)))
        await asyncio.sleep(0)
        side.receive(wire.CLOCK + side.wire.last()[1:21], by=envelope(who, ahead=300), port=4001 + number)
        assert await task is None
    assert side.protocol.clock_offset == 300
    now = asyncio.get_running_loop().time()
    assert not side.protocol.health.resting(Node(OTHER.address, "127.0.0.1", 4002), now)
    task, message_id = await ask(side)
    side.receive(pong(message_id))
    assert await task == PEER.id
    assert side.protocol.clock_offset is None


async def seen_at(side: Side, *hosts: str) -> None:
    """One peer after the other, the last twice, says at which host it sees us."""
    for number, seen in enumerate((*hosts, hosts[-1]), 1):
        assert side.protocol.observed is None
        who = Identity(bytes([number]) * 32)
        task = asyncio.create_task(side.protocol.call_ping(Node(who.address, f"192.0.{number + 2}.1", 4001)))
        await asyncio.sleep(0)
        answer = pong(side.wire.last()[1:21], (bytes(map(int, seen.split("."))), 4000))
        side.receive(answer, by=envelope(who), host=f"192.0.{number + 2}.1")
        assert await task == who.address


async def test_a_node_learns_at_which_host_it_is_seen_and_asks_nobody_there() -> None:
    side = Side("0.0.0.0")
    await seen_at(side, "203.0.113.9", "198.51.100.1")
    assert side.protocol.observed == "198.51.100.1"
    sent = len(side.wire.sent)
    assert await side.protocol.call_ping(Node(THEM.address, "198.51.100.1", 4000)) is None
    assert len(side.wire.sent) == sent
    await side.end()


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.1", 0), ("10.0.0.1", 4001), ("203.0.113.7", 4001), ("224.0.0.1", 4001), ("::1", 4001)]
)
async def test_what_comes_from_an_address_that_cannot_be_answered_costs_no_signature(
    side: Side, host: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Envelope, "check", lambda *_: pytest.fail("it was checked"))
    side.receive(wire.CALL + side.new_id() + msgspec.msgpack.encode(["ping", []]), host=host, port=port)
    assert side.protocol.rejected == 1


async def test_of_contacts_in_one_subnet_a_few_are_believed_and_private_ones_not_at_all() -> None:
    side = Side("0.0.0.0")
    crowd = [(bytes([number]) * 20, bytes([203, 0, 113, number]), 4001) for number in range(1, 9)]
    senseless = [(b"x" * 20, bytes([10, 0, 0, 1]), 1), (b"y" * 20, b"12345", 1), (US.address, bytes([8, 8, 8, 8]), 1)]
    honest = (b"h" * 20, bytes([198, 51, 100, 1]), 4001)
    await seen_at(side, "198.51.100.7")
    ourselves = (b"o" * 20, bytes([198, 51, 100, 7]), 4000)
    nodes = side.protocol._nodes([ourselves, *crowd, *senseless, honest, honest])
    assert [node.ip for node in nodes] == ["203.0.113.1", "203.0.113.2", "198.51.100.1"]
    await side.end()


async def test_a_contact_is_not_forgotten_because_it_is_silent_where_somebody_else_said_it_was(side: Side) -> None:
    side.protocol.router.add_contact(PEER)
    wrong = Node(PEER.id, "127.0.0.1", 9999)
    for _ in range(2):
        side.protocol._failed(wrong, None)
    assert PEER.id in side.protocol.router
    for _ in range(2):
        side.protocol._failed(PEER, None)
    assert PEER.id not in side.protocol.router


async def test_a_call_is_answered_to_where_it_came_from_for_who_signed_it(side: Side) -> None:
    side.call("ping", port=4321, by=envelope(OTHER))
    data, to = side.wire.sent[-1]
    assert to == ("127.0.0.1", 4321)
    envelope(OTHER).check(envelope(OTHER).open(data))
    assert envelope(OTHER).open(data).sender == NodeId(US.address)
