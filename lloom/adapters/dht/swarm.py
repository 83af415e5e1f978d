"""This node's place in the swarm: the socket, and searching and storing over many nodes. It never decides what to publish."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from kademlia.network import Server
from kademlia.node import Node

from lloom.adapters.dht.addresses import Reach
from lloom.adapters.dht.lookup import NodeLookup, ValueLookup
from lloom.adapters.dht.protocol import Protocol
from lloom.adapters.dht.sockets import bind
from lloom.adapters.dht.storage import Clock, RecordStore
from lloom.adapters.dht.wire import Envelope
from lloom.core import records
from lloom.core.errors import PeerFault
from lloom.core.identity import NodeId
from lloom.core.records import Key, SignedRecord
from lloom.core.settings import DhtSettings

# Lookups whose duration is remembered.
WINDOW: Final = 256


class Swarm(Server):  # type: ignore[misc]
    """kademlia's `Server` with our protocol, storage and lookups, and without its upkeep (an O(k²) republish)."""

    protocol: Protocol
    storage: RecordStore

    def __init__(self, address: NodeId, network: str, settings: DhtSettings, envelope: Envelope, clock: Clock) -> None:
        super().__init__(settings.k, settings.alpha, address, RecordStore(network, settings, clock))
        self.lookup_seconds: deque[float] = deque(maxlen=WINDOW)
        self.lookups = 0
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

    async def close(self) -> None:
        """Close the socket and end all that is under way."""
        self.stop()
        await self.protocol.lost.wait()
        await self.protocol.tasks.close()

    async def nearest(self, key: bytes) -> list[Node]:
        """The nodes nearest to `key` that answered, nearest first, at most k, ourselves not among them."""
        return await NodeLookup(self.protocol, Node(key), self._settings).find()

    async def find(self, key: Key, want: int | None) -> dict[NodeId, SignedRecord]:
        """The living records under `key`, the newest of each publisher; `want`: that many are enough."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        lookup = ValueLookup(self.protocol, Node(key), self._settings, want)
        for signed in self.storage.records(key):
            records.merge(lookup.records, signed)
        await lookup.find()
        self.lookups += 1
        self.lookup_seconds.append(loop.time() - started)
        return {NodeId(signed.record.publisher): signed for signed in records.living(lookup.records.values())}

    async def publish(self, signed: SignedRecord) -> int:
        """Store `signed` at the nodes nearest to its key; how many others hold it now."""
        key = Node(signed.record.key)
        near = await self.nearest(key.id)
        self._hold_if_near(signed, near)
        return sum(await asyncio.gather(*(self.protocol.call_store(node, key.id, signed.raw) for node in near)))

    def _hold_if_near(self, signed: SignedRecord, near: list[Node]) -> None:
        key = Node(signed.record.key)
        among_nearest = len(near) < self.ksize or self.node.distance_to(key) < near[-1].distance_to(key)
        if self._envelope.client or not among_nearest:
            return
        try:
            self.storage.put(signed)
        except PeerFault:
            return  # full: the others hold it
