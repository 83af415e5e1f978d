"""Searches for the records under a key, and for how many there are. They never store and never judge a record's meaning."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Final

from kademlia.node import Node

from lloom.adapters.dht.lookup import NodeLookup
from lloom.adapters.dht.protocol import Page, Protocol
from lloom.core import records
from lloom.core.errors import PeerFault
from lloom.core.identity import NodeId
from lloom.core.records import SignedRecord
from lloom.core.settings import DhtSettings

ID_SPACE: Final = 1 << 160
# Multiples of the golden section, taken modulo the space, spread evenly however many they are.
GOLDEN: Final = int(ID_SPACE * 0.6180339887498949)


class CrowdLookup(NodeLookup):
    """Finds the nearest nodes and how many records they hold under the key, without fetching all of them."""

    def __init__(self, protocol: Protocol, target: Node, settings: DhtSettings, anchors: Sequence[Node]) -> None:
        super().__init__(protocol, target, settings, anchors)
        self._totals: list[int] = []

    @property
    def crowd(self) -> int:
        """The second largest number that a holder claims, so that no single one can invent it."""
        return min(sorted(self._totals)[-2], self._settings.records_per_key) if len(self._totals) > 1 else 0

    async def _ask(self, node: Node) -> list[Node] | None:
        page: Page | None = await self.protocol.call_find_value(node, self.node, bytes(20))
        if page is None:
            return None
        self._totals.append(page.total)
        return page.neighbours


class ValueLookup(NodeLookup):
    """Gathers the records of all publishers under `target`, the newest of each, from all nodes on the way.

    Every node is asked for a page that begins elsewhere, so that together they show more than any one; what is then still
    missing is fetched page by page from the nearest. Ends early when `want` living records are there (None: when all are).
    """

    def __init__(
        self, protocol: Protocol, target: Node, settings: DhtSettings, anchors: Sequence[Node], want: int | None
    ) -> None:
        super().__init__(protocol, target, settings, anchors)
        self.records: dict[NodeId, SignedRecord] = {}
        self._want = want
        self._cursor = secrets.randbelow(ID_SPACE)
        self._total = 0
        # Where the next page of each holder that has more begins.
        self._more: dict[bytes, bytes] = {}

    async def find(self) -> list[Node]:
        """The nearest nodes that answered; what they hold is in `records`."""
        nearest = await super().find()
        holders = {node.id: node for node in [*nearest, *self._anchors] if node.id in self.answered}
        while self._loop.time() < self._deadline and await self._turn_pages(list(holders.values())):
            pass
        return nearest

    async def _ask(self, node: Node) -> list[Node] | None:
        self._cursor = (self._cursor + GOLDEN) % ID_SPACE
        page = await self._ask_page(node, self._cursor.to_bytes(20, "big"))
        return None if page is None else page.neighbours

    async def _ask_page(self, node: Node, after: bytes) -> Page | None:
        self._more.pop(node.id, None)
        page: Page | None = await self.protocol.call_find_value(node, self.node, after)
        if page is None:
            return None
        self._total = max(self._total, min(page.total, self._settings.records_per_key))
        last = self._take(page.records)
        if last is not None and page.total > len(page.records):
            self._more[node.id] = last
        return page

    def _take(self, raws: list[bytes]) -> NodeId | None:
        """Keep what is valid; the publisher of the last one if all were."""
        last = None
        for raw in raws:
            try:
                signed = self.protocol.storage.check(raw)
            except PeerFault:
                self.protocol.rejected += 1
                return None
            if signed.record.key != self.node.id:
                self.protocol.rejected += 1
                return None
            records.merge(self.records, signed)
            last = NodeId(signed.record.publisher)
        return last

    async def _turn_pages(self, holders: list[Node]) -> bool:
        """Fetch one more page of every holder that has one. False if that was no use, or none is needed."""
        known = len(self.records)
        left = self._settings.max_queries - self.queries
        turn = [(node, self._more[node.id]) for node in holders if node.id in self._more][:left]
        if not turn or known >= self._total or self._enough():
            return False
        self.queries += len(turn)
        pages = [self.protocol.tasks.spawn(self._ask_page(node, after)) for node, after in turn]
        overslept = await self._overslept(pages, self._hedge, asyncio.ALL_COMPLETED)
        await asyncio.wait(pages, timeout=overslept)
        return len(self.records) > known

    def _enough(self) -> bool:
        return self._want is not None and len(records.living(self.records.values())) >= self._want
