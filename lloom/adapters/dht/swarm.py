"""This node's place in the swarm: the socket, and searching and storing over many nodes. It never decides what to publish."""

from __future__ import annotations

import asyncio
import statistics
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from kademlia.network import Server
from kademlia.node import Node
from loguru import logger

from lloom.adapters.dht.addresses import Reach
from lloom.adapters.dht.gathering import CrowdLookup, ValueLookup
from lloom.adapters.dht.lookup import NodeLookup
from lloom.adapters.dht.protocol import Protocol
from lloom.adapters.dht.sockets import bind
from lloom.adapters.dht.storage import Clock, RecordStore
from lloom.adapters.dht.wire import Envelope
from lloom.core import density, records
from lloom.core.errors import PeerFault
from lloom.core.identity import NodeId
from lloom.core.offer import Endpoint
from lloom.core.records import Key, SignedRecord
from lloom.core.settings import DhtSettings

# Lookups whose duration is remembered.
WINDOW: Final = 256
# Estimates of the size of the network, of which the middle one counts.
SIZES: Final = 15
# Keys that looked crowded are remembered so that each gives one warning an hour.
ALARMS: Final = 1024
ALARM_SECONDS: Final = 3600.0


class Stored(NamedTuple):
    """What became of a record: how many others hold it, and how many records are under its key already."""

    holders: int
    crowd: int


class Swarm(Server):  # type: ignore[misc]
    """kademlia's `Server` with our protocol, storage and lookups, and without its upkeep (an O(k²) republish)."""

    protocol: Protocol
    storage: RecordStore

    def __init__(self, address: NodeId, network: str, settings: DhtSettings, envelope: Envelope, clock: Clock) -> None:
        super().__init__(settings.k, settings.alpha, address, RecordStore(network, settings, clock))
        self.lookup_seconds: deque[float] = deque(maxlen=WINDOW)
        self.lookups = 0
        self.crowded = 0
        self.validators: Callable[[], tuple[tuple[NodeId, Endpoint], ...]] = tuple
        self._sizes: deque[float] = deque(maxlen=SIZES)
        self._quiet: dict[Key, float] = {}
        self._settings = settings
        self._envelope = envelope

    def _create_protocol(self) -> Protocol:
        return Protocol(self.node, self.storage, self._settings, self._envelope)

    async def listen(self, port: int, interface: str) -> None:
        """Bind UDP on the literal address `interface`; OSError if that cannot be. Upkeep is left to `Bootstrap`."""
        sockets = bind(port, interface, both=self.reach.v4 and self.reach.v6)
        loop = asyncio.get_running_loop()
        self.protocol = self._create_protocol()
        for own in sockets:
            await loop.create_datagram_endpoint(lambda: self.protocol, sock=own)
        self.transport = self.protocol.transport

    @property
    def port(self) -> int:
        """The UDP port."""
        return int(self.transport.get_extra_info("sockname")[1])

    @property
    def reach(self) -> Reach:
        """Which addresses make sense from here."""
        return self._envelope.reach

    def serve(self, serves: bool) -> None:
        """Hold records for others and be in their tables from now on, or not. Who hides never does."""
        self._envelope.client = not serves or self._envelope.only is not None

    async def close(self) -> None:
        """Close the socket and end all that is under way."""
        self.stop()
        await self.protocol.lost.wait()
        await self.protocol.tasks.close()

    @property
    def anchors(self) -> list[Node]:
        """The validators of the configuration, as far as they are known and can be asked, ourselves not among them."""
        return [
            Node(who, endpoint.host, endpoint.port)
            for who, endpoint in self.validators()
            if who != self.node.id and self.reach.accepts(endpoint.host, endpoint.port)
        ]

    async def nearest(self, key: bytes) -> list[Node]:
        """The nodes nearest to `key` that answered, nearest first, at most k, ourselves not among them."""
        return await NodeLookup(self.protocol, Node(key), self._settings, ()).find()

    async def find(self, key: Key, want: int | None) -> dict[NodeId, SignedRecord]:
        """The living records under `key`, the newest of each publisher; `want`: that many are enough."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        lookup = ValueLookup(self.protocol, Node(key), self._settings, self.anchors, want)
        for signed in self.storage.records(key):
            records.merge(lookup.records, signed)
        near = await lookup.find()
        self._watch(key, near)
        self.lookups += 1
        self.lookup_seconds.append(loop.time() - started)
        return {NodeId(signed.record.publisher): signed for signed in records.living(lookup.records.values())}

    async def publish(self, signed: SignedRecord) -> Stored:
        """Store `signed` at the nodes nearest to its key, and at the anchors."""
        key = Node(signed.record.key)
        lookup = CrowdLookup(self.protocol, key, self._settings, ())
        near = await lookup.find()
        self._watch(Key(key.id), near)
        self._hold_if_near(signed, near)
        holders = {node.id: node for node in [*near, *self.anchors]}.values()
        stored = await asyncio.gather(*(self.protocol.call_store(node, key.id, signed.raw) for node in holders))
        return Stored(sum(stored), lookup.crowd)

    def measure(self, target: bytes, near: list[Node]) -> None:
        """Learn from the nodes nearest to a point that nobody could choose how large the network is."""
        distances = [node.long_id ^ Node(target).long_id for node in near if node.id != target]
        few = len(near) < self.ksize  # then those are all there are
        self._sizes.append(float(len(distances)) if few else density.size(sorted(distances)))

    @property
    def estimated_size(self) -> int:
        """How many nodes there are, ourselves among them, as far as can be told."""
        return 1 + round(statistics.median(self._sizes)) if self._sizes else 1 + len(self.protocol.router)

    def _watch(self, key: Key, near: list[Node]) -> None:
        """Raise the alarm, once an hour, if ids crowd around `key`."""
        target = Node(key)
        if not self._sizes or not density.crowded([node.distance_to(target) for node in near], self.estimated_size):
            return
        self.crowded += 1
        now = asyncio.get_running_loop().time()
        if now >= self._quiet.get(key, 0.0):
            if len(self._quiet) >= ALARMS:
                self._quiet.clear()
            self._quiet[key] = now + ALARM_SECONDS
            logger.warning(
                "Node ids crowd around the key {}: somebody may be trying to hide what is stored there", key.hex()
            )

    def _hold_if_near(self, signed: SignedRecord, near: list[Node]) -> None:
        key = Node(signed.record.key)
        among_nearest = len(near) < self.ksize or self.node.distance_to(key) < near[-1].distance_to(key)
        if self._envelope.client or not among_nearest:
            return
        try:
            self.storage.put(signed)
        except PeerFault:
            return  # full: the others hold it
