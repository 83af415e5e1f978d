"""The four remote procedures, both sides, on rpcudp and kademlia with every field checked. It never decides whom to look up.

rpcudp turns an unknown public attribute into a remote call, and `ping`, `store`, `find_node` and `find_value` are such.
Its `datagram_received` starts two unowned tasks per datagram and lets any exception out; here a datagram is answered at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from kademlia.node import Node
from kademlia.protocol import KademliaProtocol

from lloom.adapters.dht import wire
from lloom.adapters.dht.addresses import is_public, pack, subnet, unpack
from lloom.adapters.dht.gate import Arrival, Gate
from lloom.adapters.dht.handover import Handover
from lloom.adapters.dht.health import Health
from lloom.adapters.dht.membership import Membership
from lloom.adapters.dht.mirror import Mirror
from lloom.adapters.dht.routing import Table
from lloom.adapters.dht.storage import RecordStore
from lloom.adapters.dht.tasks import Tasks
from lloom.adapters.dht.transport import EnvelopeTransport
from lloom.adapters.dht.wire import Destination, Envelope, Found, Neighbour, Sender
from lloom.core.errors import PeerFault
from lloom.core.identity import NodeId
from lloom.core.records import Key
from lloom.core.settings import DhtSettings

T = TypeVar("T")

# Calls that wait for an answer at once: a bound on what strangers can make us hold.
MAX_OUTSTANDING: Final = 2000
# A timer that fires later than this says that the machine is busy, not that the peer is dead: then one waits on, the longer the
# later it is, so often. Even one that fires in time may come before an answer that is there: loops run timers first and read
# sockets then.
STALL: Final = 0.01
LAST_LOOK: Final = 0.02
LONGEST_LOOK: Final = 0.25
LOOKS: Final = 3


class Reply(NamedTuple):
    """An answer as it came, `seconds` after the question. `body`: None if all it says is that our clock is off."""

    sender: Sender
    body: bytes | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Page:
    """What one holder said about a key: records as they came, how many it claims to hold, and neighbours."""

    records: list[bytes]
    total: int
    neighbours: list[Node]


class Protocol(KademliaProtocol):  # type: ignore[misc]
    """One node's end of the DHT. `rpc_*` answer others, `call_*` ask them; a call without a proper answer gives None."""

    def __init__(self, source_node: Node, storage: RecordStore, settings: DhtSettings, envelope: Envelope) -> None:
        super().__init__(source_node, storage, settings.k)
        self.router = Table(self, settings.k, source_node, settings.contacts_per_subnet)
        self.health = Health(settings.rpc_seconds, settings.hedge_seconds)
        self.tasks = Tasks()
        self.emptied = asyncio.Event()
        self.lost = asyncio.Event()
        self.rejected = 0
        self._envelope = envelope
        self._gate = Gate(envelope, settings)
        self._mirror = Mirror(settings.clock_skew_seconds, self._bound)
        self._handover = Handover(source_node, self.router, storage, self.call_store)
        self.members = Membership(self.router, self.health, self.tasks, self.call_ping, self._handing_over)
        self._contacts_per_subnet = settings.contacts_per_subnet
        self._loop = asyncio.get_running_loop()
        self._asked: dict[bytes, Destination] = {}

    @property
    def observed(self) -> str | None:
        """The host at which most peers see us; None until enough of them say so."""
        return self._mirror.observed

    @property
    def clock_offset(self) -> float | None:
        """Seconds by which our clock is behind the network's; None while it serves, or nobody knows."""
        return self._mirror.clock_offset

    @property
    def clocks(self) -> tuple[float, ...]:
        """By how many seconds each clock we heard of is ahead of ours."""
        return self._mirror.clocks

    # Datagrams.

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        """Send through envelopes from now on; called once for each family of addresses."""
        if self.transport is None:
            super().connection_made(EnvelopeTransport(self._envelope))
        self.transport.add(transport)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        """When the last socket is gone nobody will answer any more: end all waiting calls."""
        if not self.transport.is_closing():
            return
        for message_id, (_, timer) in list(self._outstanding.items()):
            timer.cancel()
            self._give_up(message_id)
        self.lost.set()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Answer a call, or hand an answer to whom it belongs; whatever is malformed or too much is counted and dropped."""
        try:
            arrival = self._gate.admit(data, addr, self._asked, self._loop.time())
            if arrival.kind != wire.CALL:
                self._accept_response(arrival.message_id, arrival, arrival.sender)
            elif arrival.timely:
                self._accept_call(arrival)
            else:
                self._answer(wire.CLOCK, arrival, b"")
        except PeerFault:
            self.rejected += 1

    def _accept_call(self, arrival: Arrival) -> None:
        method, arguments = wire.decode_call(arrival.body)
        if arrival.greeting and method != "ping":
            raise PeerFault("a call to whoever is there that is no ping")
        answer = getattr(self, f"rpc_{method}")(arrival.sender, *arguments)
        self._answer(wire.ANSWER, arrival, wire.encode(answer))

    def _answer(self, kind: bytes, arrival: Arrival, body: bytes) -> None:
        sender = arrival.sender
        self.transport.sendto(kind + arrival.message_id + body, Destination(sender.host, sender.port, sender.id))

    def _accept_response(self, msg_id: bytes, data: Arrival, address: Sender) -> None:
        """Complete the call `msg_id`. An answer is a word on our clock in any case."""
        del self._asked[msg_id]
        self._mirror.hear_clock(address, data.ahead)
        super()._accept_response(msg_id, data, address)

    def _timeout(self, msg_id: bytes, looks: int = LOOKS) -> None:
        """No answer in time. It may still lie in the socket, most of all if our own loop stood still: read on first."""
        future, timer = self._outstanding[msg_id]
        late = self._loop.time() - timer.when()
        if looks and (late > STALL or looks == LOOKS):
            pause = min(LAST_LOOK + 2 * late, LONGEST_LOOK)
            self._outstanding[msg_id] = (future, self._loop.call_later(pause, self._timeout, msg_id, looks - 1))
        else:
            self._give_up(msg_id)

    def _give_up(self, msg_id: bytes) -> None:
        self._asked.pop(msg_id, None)
        future, _ = self._outstanding.pop(msg_id)
        future.set_result((False, None))

    # What others ask of us. Lengths and types were checked by `wire`.

    def rpc_ping(self, sender: Sender) -> tuple[bytes, int]:
        """Where we see the caller."""
        self._meet(sender)
        return pack(sender.host), sender.port

    def rpc_store(self, sender: Sender, key: Key, value: bytes) -> bool:
        """True if we now hold `value`, or something newer of the same publisher."""
        self._meet(sender)
        if self._envelope.client:
            return False
        try:
            self.storage.accept(key, value, sender.id, subnet(sender.host, sender.port))
        except PeerFault:
            self.rejected += 1
            return False
        return True

    def rpc_find_node(self, sender: Sender, key: bytes, padding: bytes) -> list[Neighbour]:  # noqa: ARG002
        """Contacts near `key`."""
        self._meet(sender)
        fit = (sender.room - wire.RECORD_OVERHEAD) // wire.NEIGHBOUR_BYTES
        return self._neighbours(sender, key, min(self.router.ksize, wire.MAX_NEIGHBOURS, fit))

    def rpc_find_value(self, sender: Sender, key: Key, after: bytes, padding: bytes) -> Found:  # noqa: ARG002
        """A page of the records under `key`, from publisher `after` on, *and* contacts near it."""
        self._meet(sender)
        room = sender.room - wire.FOUND_OVERHEAD
        most = min(self.router.ksize, wire.MAX_NEIGHBOURS_BESIDE_RECORDS, room // wire.NEIGHBOUR_BYTES)
        neighbours = self._neighbours(sender, key, most)
        page, total = self.storage.page(key, after, room - len(wire.encode(neighbours)), wire.RECORD_OVERHEAD)
        return Found(page, total, neighbours)

    def _neighbours(self, sender: Sender, key: bytes, count: int) -> list[Neighbour]:
        if count < 1:
            return []
        asker = Node(self.source_node.id, sender.host, sender.port)
        near = self.router.find_neighbors(Node(key), k=count, exclude=asker)
        now = self._loop.time()
        return [(n.id, pack(n.ip), n.port) for n in near if not self.health.resting(n, now)]

    # What we ask of others.

    async def greet(self, host: str, port: int) -> bytes | None:
        """Ping somebody of whom only the address is known: its node id (maybe our own), None if nobody answered properly."""
        reply = await self._request(Destination(host, port, None), "ping", self.health.timeout(None))
        if reply is None or not self._heard_ping(reply):
            return None
        node_id = reply.sender.id
        if node_id == self.source_node.id:
            self._mirror.found_at(host, port)
        else:
            self.members.answered(Node(node_id, host, port), reply.seconds, client=reply.sender.client)
        return node_id

    async def call_ping(self, node_to_ask: Node) -> bytes | None:
        """The id of `node_to_ask`, if it is there and still itself."""
        answer = await self._call(node_to_ask, wire.ping_answer, "ping")
        return None if answer is None else bytes(node_to_ask.id)

    async def call_store(self, node_to_ask: Node, key: Key, value: bytes) -> bool:
        """True if `node_to_ask` holds the record `value` now."""
        return await self._call(node_to_ask, wire.store_answer, "store", key, value) is True

    async def call_find_node(self, node_to_ask: Node, node_to_find: Node) -> list[Node] | None:
        """Contacts of `node_to_ask` near `node_to_find`; those that make no sense are left out."""
        arguments = wire.padded("find_node", node_to_find.id)
        answer = await self._call(node_to_ask, wire.find_node_answer, "find_node", *arguments)
        return None if answer is None else self._nodes(answer)

    async def call_find_value(self, node_to_ask: Node, node_to_find: Node, after: bytes) -> Page | None:
        """A page of unchecked records under `node_to_find`, from publisher `after` on, and contacts near it."""
        arguments = wire.padded("find_value", node_to_find.id, after)
        answer = await self._call(node_to_ask, wire.find_value_answer, "find_value", *arguments)
        return None if answer is None else Page(answer.records, answer.total, self._nodes(answer.neighbours))

    async def _call(self, node: Node, answer: msgspec.msgpack.Decoder[T], method: str, *arguments: object) -> T | None:
        """Ask a known node; its answer, or its silence, goes into the books."""
        if self._mirror.shows(node.ip, node.port):
            return None
        to = Destination(node.ip, node.port, NodeId(node.id))
        reply = await self._request(to, method, self.health.timeout(node), *arguments)
        decoded = _decoded(reply, answer)
        if reply is None or decoded is None:
            self._failed(node, reply)
            return None
        if method == "ping":
            self._heard_ping(reply)
        self.members.answered(node, reply.seconds, client=reply.sender.client)
        return decoded

    async def _request(self, to: Destination, method: str, timeout: float, *arguments: object) -> Reply | None:
        """One exchange of datagrams. Cancelling it loses nothing but the answer."""
        if len(self._outstanding) >= MAX_OUTSTANDING or not self._envelope.accepts(to.host, to.port):
            return None
        # rpcudp reads the timeout when it sends, and files the call last.
        self._wait_timeout = timeout
        future = getattr(self, method)(to, *arguments)
        self._asked[next(reversed(self._outstanding))] = to
        started = self._loop.time()
        # Unshielded, a cancelled caller would leave a cancelled future where the answer is to be put.
        answered, arrival = await asyncio.shield(future)
        if not answered:
            return None
        body = arrival.body if arrival.kind == wire.ANSWER else None
        return Reply(arrival.sender, body, self._loop.time() - started)

    def _heard_ping(self, reply: Reply) -> bool:
        """Note where the answerer sees us; False if that makes no sense."""
        seen = _decoded(reply, wire.ping_answer)
        host = unpack(seen[0]) if seen is not None else None
        if seen is None or host is None or not self._envelope.reach.accepts(host, seen[1]):
            return False
        self._mirror.hear_host(reply.sender, host)
        return True

    def _nodes(self, neighbours: list[Neighbour]) -> list[Node]:
        """What a peer said about others: only addresses we can reach, few of one subnet, nobody twice, not ourselves."""
        found: dict[bytes, Node] = {}
        subnets: Counter[str] = Counter()
        for node_id, packed, port in neighbours:
            host = unpack(packed)
            if host is None or node_id == self.source_node.id or not self._envelope.accepts(host, port):
                continue
            if node_id in found or self._mirror.shows(host, port):
                continue
            if is_public(host):
                subnets[subnet(host, port)] += 1
            if subnets[subnet(host, port)] <= self._contacts_per_subnet:
                found[node_id] = Node(node_id, host, port)
        return list(found.values())

    def _bound(self) -> frozenset[tuple[str, int]]:
        return frozenset() if self.transport is None else self.transport.addresses

    def doubt(self, node: Node) -> None:
        """Find out whether `node`, the oldest of a full bucket, is still there."""
        self.tasks.spawn(self.call_ping(node))

    def _meet(self, sender: Sender) -> None:
        """Somebody asks; it may be this very node, by another of its addresses."""
        if sender.id != self.source_node.id:
            self.members.met(sender)

    def _failed(self, node: Node, reply: Reply | None) -> None:
        """A strike against `node`, unless it answered that our clock is off and it seems to be right."""
        if reply is None or reply.body is not None or self.clock_offset is None:
            self.members.missed(node)

    def _handing_over(self) -> Handover | None:
        return None if self._envelope.client else self._handover


def _decoded(reply: Reply | None, using: msgspec.msgpack.Decoder[T]) -> T | None:
    if reply is None or reply.body is None:
        return None
    try:
        return wire.decode(reply.body, using)
    except PeerFault:
        return None
