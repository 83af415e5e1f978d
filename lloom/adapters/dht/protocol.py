"""The four remote procedures, both sides, on rpcudp and kademlia with every field checked. It never decides whom to look up.

rpcudp turns an unknown public attribute into a remote call, and `ping`, `store`, `find_node` and `find_value` are such.
Its `datagram_received` starts two unowned tasks per datagram and lets any exception out; here a datagram is answered at once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from kademlia.node import Node
from kademlia.protocol import KademliaProtocol

from lloom.adapters.dht import wire
from lloom.adapters.dht.addresses import pack, unpack
from lloom.adapters.dht.health import Health
from lloom.adapters.dht.routing import Table
from lloom.adapters.dht.storage import RecordStore
from lloom.adapters.dht.tasks import Tasks
from lloom.adapters.dht.transport import EnvelopeTransport
from lloom.adapters.dht.wire import Envelope, Found, Neighbour, Sender
from lloom.core.errors import PeerFault
from lloom.core.records import Key, SignedRecord
from lloom.core.settings import DhtSettings

T = TypeVar("T")

# Calls that wait for an answer, and strangers being pinged, at once: bounds on what strangers can make us hold.
MAX_OUTSTANDING: Final = 2000
MAX_INTRODUCTIONS: Final = 32
# A timer that fires later than this says that the machine is busy, not that the peer is dead; then it gets this much more.
STALL: Final = 0.05
AFTER_STALL: Final = 0.25
# Hand-overs to new neighbours at once, and keys looked at before others get their turn.
MAX_HANDOVERS: Final = 4
HANDOVER_BATCH: Final = 64


class Reply(NamedTuple):
    """An answer as it came, `seconds` after the question."""

    sender: Sender
    body: bytes
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
        self.router = Table(self, settings.k, source_node)
        self.health = Health(settings.rpc_seconds, settings.hedge_seconds)
        self.tasks = Tasks()
        self.emptied = asyncio.Event()
        self.lost = asyncio.Event()
        self.rejected = 0
        self._envelope = envelope
        self._loop = asyncio.get_running_loop()
        self._asked: dict[bytes, tuple[str, int]] = {}
        self._introducing: set[bytes] = set()
        self._handovers = 0

    # Datagrams.

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        """Send through envelopes from now on."""
        super().connection_made(EnvelopeTransport(transport, self._envelope))

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        """Nobody will answer any more: end all waiting calls."""
        for message_id, (_, timer) in list(self._outstanding.items()):
            timer.cancel()
            self._give_up(message_id)
        self.lost.set()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Answer a call, or hand an answer to whom it belongs; whatever is malformed is counted and dropped."""
        try:
            sender, message = self._envelope.open(data, addr)
            kind, message_id, body = message[:1], message[1 : 1 + wire.MESSAGE_ID_BYTES], message[21:]
            if kind == wire.CALL:
                method, arguments = wire.decode_call(body)
                answer = getattr(self, f"rpc_{method}")(sender, *arguments)
                self.transport.sendto(wire.ANSWER + message_id + wire.encode(answer), sender)
            elif kind == wire.ANSWER:
                self._accept_response(message_id, body, sender)
        except PeerFault:
            self.rejected += 1

    def _accept_response(self, msg_id: bytes, data: bytes, address: Sender) -> None:
        """Complete the call `msg_id`, if it was asked of this very address."""
        if self._asked.get(msg_id) != address[:2]:
            raise PeerFault("an answer that nobody asked for")
        del self._asked[msg_id]
        super()._accept_response(msg_id, (address, data), address)

    def _timeout(self, msg_id: bytes) -> None:
        """No answer in time. Where it was our own loop that stood still, the answer may lie in the socket: read on, once."""
        future, timer = self._outstanding[msg_id]
        if self._loop.time() - timer.when() > STALL:
            self._outstanding[msg_id] = (future, self._loop.call_later(AFTER_STALL, self._give_up, msg_id))
        else:
            self._give_up(msg_id)

    def _give_up(self, msg_id: bytes) -> None:
        self._asked.pop(msg_id, None)
        future, _ = self._outstanding.pop(msg_id)
        future.set_result((False, None))

    # What others ask of us. Lengths and types were checked by `wire`.

    def rpc_ping(self, sender: Sender, nodeid: bytes) -> bytes:
        """Our id."""
        self._meet(sender, nodeid)
        return bytes(self.source_node.id)

    def rpc_store(self, sender: Sender, nodeid: bytes, key: Key, value: bytes) -> bool:
        """True if we now hold `value`, or something newer of the same publisher."""
        self._meet(sender, nodeid)
        if self._envelope.client:
            return False
        try:
            self.storage[key] = value
        except PeerFault:
            self.rejected += 1
            return False
        return True

    def rpc_find_node(self, sender: Sender, nodeid: bytes, key: bytes) -> list[Neighbour]:
        """Contacts near `key`."""
        self._meet(sender, nodeid)
        return self._neighbours(sender, key, min(self.router.ksize, wire.MAX_NEIGHBOURS))

    def rpc_find_value(self, sender: Sender, nodeid: bytes, key: Key, after: bytes) -> Found:
        """A page of the records under `key`, from publisher `after` on, *and* contacts near it."""
        self._meet(sender, nodeid)
        neighbours = self._neighbours(sender, key, min(self.router.ksize, wire.MAX_NEIGHBOURS_BESIDE_RECORDS))
        room = wire.MAX_ANSWER - wire.FOUND_OVERHEAD - len(wire.encode(neighbours))
        page, total = self.storage.page(key, after, room, wire.RECORD_OVERHEAD)
        return Found(page, total, neighbours)

    def _neighbours(self, sender: Sender, key: bytes, count: int) -> list[Neighbour]:
        asker = Node(self.source_node.id, sender.host, sender.port)
        near = self.router.find_neighbors(Node(key), k=count, exclude=asker)
        now = self._loop.time()
        return [(n.id, pack(n.ip), n.port) for n in near if not self.health.resting(n.id, now)]

    # What we ask of others.

    async def greet(self, host: str, port: int) -> bytes | None:
        """Ping somebody of whom only the address is known: its node id (maybe our own), None if nobody answered properly."""
        reply = await self._request(Node(self.source_node.id, host, port), "ping", self.health.timeout(None))
        node_id = _decoded(reply, wire.ping_answer)
        if reply is not None and node_id is not None and node_id != self.source_node.id:
            self._answered(Node(node_id, host, port), reply)
        return node_id

    async def call_ping(self, node_to_ask: Node) -> bytes | None:
        """The id of `node_to_ask`, if it is there and still itself."""
        node_id = await self._call(node_to_ask, wire.ping_answer, "ping")
        if node_id is None or node_id == node_to_ask.id:
            return node_id
        self._failed(node_to_ask)
        self.router.remove_contact(node_to_ask)
        return None

    async def call_store(self, node_to_ask: Node, key: Key, value: bytes) -> bool:
        """True if `node_to_ask` holds the record `value` now."""
        return await self._call(node_to_ask, wire.store_answer, "store", key, value) is True

    async def call_find_node(self, node_to_ask: Node, node_to_find: Node) -> list[Node] | None:
        """Contacts of `node_to_ask` near `node_to_find`; those that make no sense are left out."""
        answer = await self._call(node_to_ask, wire.find_node_answer, "find_node", node_to_find.id)
        return None if answer is None else self._nodes(answer)

    async def call_find_value(self, node_to_ask: Node, node_to_find: Node, after: bytes) -> Page | None:
        """A page of unchecked records under `node_to_find`, from publisher `after` on, and contacts near it."""
        answer = await self._call(node_to_ask, wire.find_value_answer, "find_value", node_to_find.id, after)
        return None if answer is None else Page(answer.records, answer.total, self._nodes(answer.neighbours))

    async def _call(self, node: Node, answer: msgspec.msgpack.Decoder[T], method: str, *arguments: object) -> T | None:
        """Ask a known node; its answer, or its silence, goes into the books."""
        reply = await self._request(node, method, self.health.timeout(node.id), *arguments)
        decoded = _decoded(reply, answer)
        if reply is None or decoded is None:
            self._failed(node)
            return None
        self._answered(node, reply)
        return decoded

    async def _request(self, node: Node, method: str, timeout: float, *arguments: object) -> Reply | None:
        """One exchange of datagrams. Cancelling it loses nothing but the answer."""
        if len(self._outstanding) >= MAX_OUTSTANDING or not self._envelope.reach.accepts(node.ip, node.port):
            return None
        # rpcudp reads the timeout when it sends, and files the call last.
        self._wait_timeout = timeout
        future = getattr(self, method)((node.ip, node.port), self.source_node.id, *arguments)
        self._asked[next(reversed(self._outstanding))] = (node.ip, node.port)
        started = self._loop.time()
        # Unshielded, a cancelled caller would leave a cancelled future where the answer is to be put.
        answered, answer = await asyncio.shield(future)
        if not answered:
            return None
        sender, body = answer
        return Reply(sender, body, self._loop.time() - started)

    def _nodes(self, neighbours: list[Neighbour]) -> list[Node]:
        """What a peer said about others: only addresses we can reach, nobody twice, not ourselves."""
        found: dict[bytes, Node] = {}
        for node_id, packed, port in neighbours:
            host = unpack(packed)
            if host is not None and node_id != self.source_node.id and self._envelope.reach.accepts(host, port):
                found.setdefault(node_id, Node(node_id, host, port))
        return list(found.values())

    # Who gets into the routing table.

    def welcome_if_new(self, node: Node) -> None:
        """Put `node`, which just answered from there, into the table; a new one gets the records that are now its to hold."""
        new = node.id not in self.router
        self.router.add_contact(node)
        if new and node.id in self.router and not self._envelope.client and self._handovers < MAX_HANDOVERS:
            self.tasks.spawn(self._hand_over(node))

    def doubt(self, node: Node) -> None:
        """Find out whether `node`, the oldest of a full bucket, is still there."""
        self.tasks.spawn(self.call_ping(node))

    def _meet(self, sender: Sender, node_id: bytes) -> None:
        """Somebody asks. A stranger, or a contact that moved, is asked back: it is known only once it answers from there."""
        if sender.client or node_id == self.source_node.id or node_id in self._introducing:
            return
        known = self.router.get(node_id)
        if known is not None and (known.ip, known.port) == sender[:2]:
            return
        if len(self._introducing) < MAX_INTRODUCTIONS:
            self._introducing.add(node_id)
            self.tasks.spawn(self._introduce(Node(node_id, sender.host, sender.port)))

    async def _introduce(self, stranger: Node) -> None:
        try:
            await self.greet(stranger.ip, stranger.port)
        finally:
            self._introducing.discard(stranger.id)

    def _answered(self, node: Node, reply: Reply) -> None:
        self.health.answered(node.id, reply.seconds)
        if reply.sender.client:
            self.router.remove_contact(node)
        else:
            self.welcome_if_new(node)

    def _failed(self, node: Node) -> None:
        if self.health.missed(node.id, self._loop.time()):
            self.router.remove_contact(node)

    async def _hand_over(self, node: Node) -> None:
        """Store at `node` what we hold and it should (paper, 2.5), one record after the other, until it fails."""
        self._handovers += 1
        try:
            for number, key in enumerate(self.storage.keys()):
                if number % HANDOVER_BATCH == HANDOVER_BATCH - 1:
                    await asyncio.sleep(0)
                held = self.storage.records(key) if self._should_hand_over(Node(key), node) else []
                if not await self._store_all(node, key, held):
                    return
        finally:
            self._handovers -= 1

    async def _store_all(self, node: Node, key: Key, held: list[SignedRecord]) -> bool:
        for signed in held:
            if not await self.call_store(node, key, signed.raw):
                return False
        return True

    def _should_hand_over(self, key: Node, node: Node) -> bool:
        """True if `node` is among the nearest to `key` and, of all others we know, we are the nearest: so that one does it."""
        near = [n for n in self.router.find_neighbors(key, self.router.ksize + 1) if n.id != node.id]
        if not near:
            return True
        is_near = len(near) < self.router.ksize or node.distance_to(key) < near[-1].distance_to(key)
        return bool(is_near and self.source_node.distance_to(key) < near[0].distance_to(key))


def _decoded(reply: Reply | None, using: msgspec.msgpack.Decoder[T]) -> T | None:
    if reply is None:
        return None
    try:
        return wire.decode(reply.body, using)
    except PeerFault:
        return None
