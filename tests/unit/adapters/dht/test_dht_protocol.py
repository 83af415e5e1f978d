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
from lloom.adapters.dht.protocol import Protocol
from lloom.adapters.dht.storage import RecordStore
from lloom.adapters.dht.wire import MAX_DATAGRAM, SEAL_BYTES, Envelope
from lloom.core.identity import Identity
from lloom.core.records import Stamp, index_key, index_record, sign
from tests.integration.dht_support import SETTINGS

ENVELOPE = Envelope.of("test", Reach.of("127.0.0.1"), client=False)
US, PEER = b"u" * 20, Node(b"p" * 20, "127.0.0.1", 4001)
NOW = 1_000_000


class Wire:
    """Stands for asyncio's transport and keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, tuple[Any, ...]]] = []

    def sendto(self, data: bytes, address: tuple[Any, ...]) -> None:
        self.sent.append((data, address))

    def is_closing(self) -> bool:
        return False

    def last(self) -> bytes:
        """The message last sent."""
        return ENVELOPE.open(self.sent[-1][0], self.sent[-1][1])[1]


class Side:
    """A protocol and its wire."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.protocol = Protocol(Node(US), RecordStore("test", SETTINGS, lambda: NOW), SETTINGS, ENVELOPE)
        self.protocol.connection_made(self.wire)

    def receive(self, message: bytes, port: int = 4001, envelope: Envelope = ENVELOPE) -> None:
        self.protocol.datagram_received(envelope.close(message), ("127.0.0.1", port))

    def call(self, method: str, *arguments: object, envelope: Envelope = ENVELOPE) -> Any:
        """What the protocol answers to a call from port 4001."""
        self.receive(wire.CALL + b"i" * 20 + msgspec.msgpack.encode([method, arguments]), envelope=envelope)
        message = self.wire.last()
        assert message[:21] == wire.ANSWER + b"i" * 20
        return msgspec.msgpack.decode(message[21:])

    def know(self, count: int) -> None:
        for number in range(1, count + 1):
            self.protocol.router.add_contact(Node(bytes([number]) * 20, "127.0.0.1", 5000 + number))


@pytest.fixture
async def side() -> AsyncIterator[Side]:
    made = Side()
    yield made
    made.protocol.connection_lost(None)
    await made.protocol.tasks.close()


async def ask(side: Side) -> tuple[asyncio.Task[Any], bytes]:
    """A ping under way, and the id of its message."""
    task = asyncio.create_task(side.protocol.call_ping(PEER))
    await asyncio.sleep(0)
    return task, side.wire.last()[1:21]


def pong(message_id: bytes, node_id: bytes = PEER.id) -> bytes:
    return wire.ANSWER + message_id + msgspec.msgpack.encode(node_id)


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


@pytest.mark.parametrize("node_id", [b"q" * 20, b"short", "p" * 20, 7])
async def test_who_answers_a_ping_as_somebody_else_is_not_known(side: Side, node_id: Any) -> None:
    task, message_id = await ask(side)
    side.receive(pong(message_id, node_id))
    assert await task is None
    assert len(side.protocol.router) == 0
    assert side.protocol.health.resting(PEER.id, asyncio.get_running_loop().time())


async def test_an_answer_in_client_mode_makes_nobody_known(side: Side) -> None:
    task, message_id = await ask(side)
    side.receive(pong(message_id), envelope=client_mode())
    assert await task == PEER.id
    assert len(side.protocol.router) == 0


def client_mode() -> Envelope:
    """The envelope of a node in client mode."""
    return Envelope.of("test", Reach.of("127.0.0.1"), client=True)


async def test_a_stranger_that_asks_is_asked_back_before_it_is_known(side: Side) -> None:
    assert side.call("ping", PEER.id) == US
    assert len(side.protocol.router) == 0
    await asyncio.sleep(0)
    message = side.wire.last()
    assert wire.decode_call(message[21:]) == ("ping", (US,))
    side.call("ping", PEER.id)
    await asyncio.sleep(0)
    assert len(side.wire.sent) == 3, "asked back once only"
    side.receive(pong(message[1:21]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert PEER.id in side.protocol.router


async def test_a_client_that_asks_is_answered_and_not_asked_back(side: Side) -> None:
    assert side.call("ping", PEER.id, envelope=client_mode()) == US
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
    side.protocol.connection_lost(None)
    assert await task is None


@pytest.mark.parametrize("model", ["m", "m" * 128])
async def test_every_answer_leaves_room_for_a_seal_in_a_safe_datagram(side: Side, model: str) -> None:
    side.know(40)
    for number in range(1, 30):
        identity = Identity(bytes([number]) * 32)
        record = index_record("test", model, Stamp(identity.address, 2**62, NOW + 600))
        side.protocol.storage.put(sign(record, identity, "test"))
    key = index_key("test", model)
    records, total, neighbours = side.call("find_value", PEER.id, key, bytes(20))
    assert total == 29
    assert len(records) >= 3
    assert len(neighbours) == SETTINGS.k
    assert len(side.wire.sent[-1][0]) <= MAX_DATAGRAM - SEAL_BYTES
    assert len(side.call("find_node", PEER.id, key)) == SETTINGS.k


async def test_neighbours_that_do_not_answer_are_not_passed_on(side: Side) -> None:
    side.know(1)
    assert len(side.call("find_node", PEER.id, bytes(20))) == 1
    side.protocol.health.missed(bytes([1]) * 20, asyncio.get_running_loop().time())
    assert side.call("find_node", PEER.id, bytes(20)) == []


async def test_a_new_neighbour_is_given_what_it_should_hold(side: Side) -> None:
    identity = Identity(bytes([1]) * 32)
    signed = sign(index_record("test", "m", Stamp(identity.address, 1, NOW + 600)), identity, "test")
    side.protocol.storage.put(signed)
    task, message_id = await ask(side)
    side.receive(pong(message_id))
    await task
    await asyncio.sleep(0)
    method, arguments = wire.decode_call(side.wire.last()[21:])
    assert (method, arguments[1:]) == ("store", (signed.record.key, signed.raw))
