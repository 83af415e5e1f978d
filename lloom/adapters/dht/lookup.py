"""One search for the nodes nearest to a key, and for the records there. It never stores and never judges a record's meaning.

After S/Kademlia's disjoint paths (Baumgart & Mies 2007, 4.4), without lock-step rounds: a node is asked by one path only, and a
query that takes unusually long gives its slot to the next, so that dead nodes cost nearly nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import Final

from kademlia.crawling import SpiderCrawl
from kademlia.node import Node

from lloom.adapters.dht.protocol import Page, Protocol
from lloom.core import records
from lloom.core.errors import PeerFault
from lloom.core.identity import NodeId
from lloom.core.records import SignedRecord
from lloom.core.settings import DhtSettings

ID_SPACE: Final = 1 << 160
# Multiples of the golden section, taken modulo the space, spread evenly however many they are.
GOLDEN: Final = int(ID_SPACE * 0.6180339887498949)


@dataclass(slots=True)
class _Path:
    """One of the disjoint walks: whom it heard of, and when it asked those who have not answered."""

    candidates: dict[bytes, Node] = field(default_factory=dict)
    pending: dict[asyncio.Task[None], float] = field(default_factory=dict)

    def asked_since(self, when: float) -> list[float]:
        """When the queries younger than `when` began: those that hold a slot."""
        return [asked for asked in self.pending.values() if asked > when]


class NodeLookup(SpiderCrawl):  # type: ignore[misc]
    """Finds the k nodes nearest to `target`. Ends when they have answered, after `max_queries`, or after `lookup_seconds`."""

    def __init__(self, protocol: Protocol, target: Node, settings: DhtSettings) -> None:
        super().__init__(protocol, target, [], settings.k, settings.alpha)
        self.asked: set[bytes] = set()
        self.answered: dict[bytes, Node] = {}
        self.queries = 0
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + settings.lookup_seconds
        self._hedge: float = protocol.health.hedge()
        self._paths = self._start()

    async def find(self) -> list[Node]:
        """The nearest nodes that answered, nearest first, at most k."""
        while (now := self._loop.time()) < self._deadline:
            self._launch(now)
            until = self._patience(now)
            if until is None or self._enough():
                break
            await self._pause(min(until, self._deadline) - now)
        return sorted(self.answered.values(), key=self.node.distance_to)[: self.ksize]

    async def _ask(self, node: Node) -> list[Node] | None:
        """Put the question to `node`: the contacts it names, None if it did not answer."""
        return await self.protocol.call_find_node(node, self.node)  # type: ignore[no-any-return]

    def _enough(self) -> bool:
        return False

    def _start(self) -> list[_Path]:
        """As many paths as wanted, with the nearest known nodes dealt out to them."""
        count = self._settings.paths
        known = self.protocol.router.find_neighbors(self.node, k=max(self.ksize, count * self.alpha))
        paths = [_Path() for _ in range(count)]
        for number, node in enumerate(self._worth_asking(known) or known):
            paths[number % count].candidates[node.id] = node
        return paths

    def _launch(self, now: float) -> None:
        """Fill the free slots of every path, path by path in turn so that none takes all."""
        idle = False
        while not idle:
            idle = True
            for path in self._paths:
                node = self._next(path) if len(path.asked_since(now - self._hedge)) < self.alpha else None
                if node is not None:
                    idle = False
                    self.asked.add(node.id)
                    self.queries += 1
                    # Owned by the protocol: a straggler outlives the search, and its late answer or silence still counts.
                    path.pending[self.protocol.tasks.spawn(self._query(path, node))] = now

    def _next(self, path: _Path) -> Node | None:
        """The nearest node that nobody asked, unless k nearer ones have answered."""
        if self.queries >= self._settings.max_queries or self._enough():
            return None
        answered = 0
        for node in sorted(path.candidates.values(), key=self.node.distance_to):
            if node.id in self.answered:
                answered += 1
            elif node.id not in self.asked:
                return node
            if answered >= self.ksize:
                return None
        return None

    def _patience(self, now: float) -> float | None:
        """Until when to wait for the pending queries; None: not at all, only stragglers are left."""
        fresh = [asked for path in self._paths for asked in path.asked_since(now - self._hedge)]
        if fresh:
            return min(fresh) + self._hedge
        # When nobody has answered yet, a straggler is all the hope there is.
        return self._deadline if not self.answered and any(path.pending for path in self._paths) else None

    async def _pause(self, seconds: float) -> None:
        """Until a query ends, or for `seconds`, when one has become too old to hold its slot.

        Time overslept does not make a query older: nobody could read its answer meanwhile.
        """
        end = self._loop.time() + max(0.0, seconds)
        pending = [task for path in self._paths for task in path.pending]
        await asyncio.wait(pending, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
        overslept = max(0.0, self._loop.time() - end)
        for path in self._paths:
            path.pending = {task: asked + overslept for task, asked in path.pending.items() if not task.done()}

    async def _query(self, path: _Path, node: Node) -> None:
        contacts = await self._ask(node)
        if contacts is None:
            return
        self.answered[node.id] = node
        for contact in self._worth_asking(contacts):
            path.candidates.setdefault(contact.id, contact)

    def _worth_asking(self, nodes: list[Node]) -> list[Node]:
        now = self._loop.time()
        return [node for node in nodes if not self.protocol.health.resting(node, now)]


class ValueLookup(NodeLookup):
    """Gathers the records of all publishers under `target`, the newest of each, from all nodes on the way.

    Every node is asked for a page that begins elsewhere, so that together they show more than any one; what is then still
    missing is fetched page by page from the nearest. Ends early when `want` living records are there (None: when all are).
    """

    def __init__(self, protocol: Protocol, target: Node, settings: DhtSettings, want: int | None) -> None:
        super().__init__(protocol, target, settings)
        self.records: dict[NodeId, SignedRecord] = {}
        self._want = want
        self._cursor = secrets.randbelow(ID_SPACE)
        self._total = 0
        # Where the next page of each holder that has more begins.
        self._more: dict[bytes, bytes] = {}

    async def find(self) -> list[Node]:
        """The nearest nodes that answered; what they hold is in `records`."""
        nearest = await super().find()
        while self._loop.time() < self._deadline and await self._turn_pages(nearest):
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
        await asyncio.wait(pages, timeout=self._hedge)
        return len(self.records) > known

    def _enough(self) -> bool:
        return self._want is not None and len(records.living(self.records.values())) >= self._want
