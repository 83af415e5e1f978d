"""Giving a new neighbour the records that are now its to hold (paper, 2.5). It never decides who is a neighbour."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from kademlia.node import Node

from lloom.adapters.dht.routing import Table
from lloom.adapters.dht.storage import RecordStore
from lloom.core.records import Key, SignedRecord

# Hand-overs to new neighbours at once, and keys looked at before others get their turn.
MAX_HANDOVERS: Final = 4
HANDOVER_BATCH: Final = 64

Store = Callable[[Node, Key, bytes], Awaitable[bool]]


class Handover:
    """Passes on what `storage` holds. `store` is the call that stores one record at a node, true if that worked."""

    def __init__(self, source_node: Node, router: Table, storage: RecordStore, store: Store) -> None:
        self._source_node = source_node
        self._router = router
        self._storage = storage
        self._store = store
        self._under_way = 0

    @property
    def busy(self) -> bool:
        """True while no further one should begin."""
        return self._under_way >= MAX_HANDOVERS

    async def to(self, node: Node) -> None:
        """Store at `node` what we hold and it should, one record after the other, until it fails."""
        self._under_way += 1
        try:
            for number, key in enumerate(self._storage.keys()):
                if number % HANDOVER_BATCH == HANDOVER_BATCH - 1:
                    await asyncio.sleep(0)
                held = self._storage.records(key) if self._is_due(Node(key), node) else []
                if not await self._store_all(node, key, held):
                    return
        finally:
            self._under_way -= 1

    async def _store_all(self, node: Node, key: Key, held: list[SignedRecord]) -> bool:
        for signed in held:
            if not await self._store(node, key, signed.raw):
                return False
        return True

    def _is_due(self, key: Node, node: Node) -> bool:
        """True if `node` is among the nearest to `key` and, of all others we know, we are the nearest: so that one does it."""
        near = [n for n in self._router.find_neighbors(key, self._router.ksize + 1) if n.id != node.id]
        if not near:
            return True
        is_near = len(near) < self._router.ksize or node.distance_to(key) < near[-1].distance_to(key)
        return bool(is_near and self._source_node.distance_to(key) < near[0].distance_to(key))
