"""One search for the nodes nearest to a key. It never stores, and never asks for records (see `gathering`).

After S/Kademlia's disjoint paths (Baumgart & Mies 2007, 4.4), without lock-step rounds: a node is asked by one path only, and a
query that takes unusually long gives its slot to the next, so that dead nodes cost nearly nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from kademlia.crawling import SpiderCrawl
from kademlia.node import Node

from lloom.adapters.dht.addresses import is_public, subnet
from lloom.adapters.dht.health import Home, home
from lloom.adapters.dht.protocol import Protocol
from lloom.core.settings import DhtSettings

# Addresses that are tried for one id.
MAX_HOMES: Final = 2
# Whoever named so many silent nodes, and none that answers, is not followed any further.
IN_VAIN: Final = 2
# The share of queries that goes to nodes of which we only heard: ever closer invented ones must not use up all.
HEARSAY: Final = 0.75


@dataclass(slots=True)
class _Query:
    """A question under way: to whom, since when (it moves on while nobody could read the answer), whether it lost its slot."""

    to: Home
    asked: float
    late: bool = False


@dataclass(slots=True)
class _Path:
    """One of the disjoint walks: whom it heard of, and when it asked those who have not answered."""

    candidates: dict[Home, Node] = field(default_factory=dict)
    pending: dict[asyncio.Task[None], _Query] = field(default_factory=dict)
    subnets: Counter[str] = field(default_factory=Counter)

    def fresh(self, hedge: float, now: float) -> list[float]:
        """Until when each query that still holds a slot may hold it."""
        return [query.asked + hedge for query in self.pending.values() if query.asked + hedge > now]


class NodeLookup(SpiderCrawl):  # type: ignore[misc]
    """Finds the k nodes nearest to `target`. Ends when they have answered, after `max_queries`, or after `lookup_seconds`.

    The `anchors` are asked in any case, however far they are, and lead a path of their own.
    """

    def __init__(self, protocol: Protocol, target: Node, settings: DhtSettings, anchors: Sequence[Node]) -> None:
        super().__init__(protocol, target, [], settings.k, settings.alpha)
        self.asked: set[Home] = set()
        self.answered: dict[bytes, Node] = {}
        self.queries = 0
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + settings.lookup_seconds
        self._hedge: float = protocol.health.hedge()
        self._homes: Counter[bytes] = Counter()
        # Who named whom, and how many of those were silent, or answered.
        self._named_by: dict[Home, set[bytes]] = {}
        self._vain: Counter[bytes] = Counter()
        self._useful: Counter[bytes] = Counter()
        self._hearsay = 0
        self._known: set[Home] = set()
        self._anchors = self._worth_asking(list(anchors))
        self._paths = self._start()

    async def find(self) -> list[Node]:
        """The nearest nodes that answered, nearest first, at most k."""
        for anchor in self._anchors:
            self._put_to(self._paths[-1], anchor, self._loop.time())
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
        """As many paths as wanted, with the nearest known nodes dealt out to them, and one that begins at the anchors."""
        count = self._settings.paths
        known = self.protocol.router.find_neighbors(self.node, k=max(self.ksize, count * self.alpha))
        paths = [_Path() for _ in range(count)]
        for number, node in enumerate(self._worth_asking(known) or known):
            paths[number % count].candidates[home(node)] = node
            self._known.add(home(node))
            self._homes[node.id] += 1
        return [*paths, _Path()] if self._anchors else paths

    def _launch(self, now: float) -> None:
        """Fill the free slots of every path, path by path in turn so that none takes all."""
        idle = False
        while not idle:
            idle = True
            for path in self._paths:
                node = self._next(path) if len(path.fresh(self._hedge, now)) < self.alpha else None
                if node is not None:
                    idle = False
                    self._put_to(path, node, now)

    def _put_to(self, path: _Path, node: Node, now: float) -> None:
        if home(node) in self.asked:
            return
        self.asked.add(home(node))
        self.queries += 1
        self._hearsay += home(node) not in self._known
        # Owned by the protocol: a straggler outlives the search, and its late answer or silence still counts.
        path.pending[self.protocol.tasks.spawn(self._query(path, node))] = _Query(home(node), now)

    def _next(self, path: _Path) -> Node | None:
        """The nearest node that nobody asked, unless k nearer ones have answered."""
        if self.queries >= self._settings.max_queries or self._enough():
            return None
        sated = self._hearsay >= HEARSAY * self._settings.max_queries
        answered = 0
        for node in sorted(path.candidates.values(), key=self.node.distance_to):
            if node.id in self.answered:
                answered += 1
            elif home(node) not in self.asked and (
                home(node) in self._known or not (sated or self._invented(home(node)))
            ):
                return node
            if answered >= self.ksize:
                return None
        return None

    def _patience(self, now: float) -> float | None:
        """Until when to wait for the pending queries; None: not at all, only stragglers are left."""
        fresh = [until for path in self._paths for until in path.fresh(self._hedge, now)]
        if fresh:
            return min(fresh)
        # When nobody has answered yet, a straggler is all the hope there is.
        return self._deadline if not self.answered and any(path.pending for path in self._paths) else None

    async def _pause(self, seconds: float) -> None:
        """Until a query ends, or for `seconds`, when one has become too old to hold its slot.

        Time overslept makes neither a query nor the search older: nobody could read an answer meanwhile.
        """
        pending = [task for path in self._paths for task in path.pending]
        overslept = await self._overslept(pending, max(0.0, seconds), asyncio.FIRST_COMPLETED)
        self._deadline += overslept
        for path in self._paths:
            path.pending = {task: query for task, query in path.pending.items() if not task.done()}
            for query in path.pending.values():
                query.asked += overslept
                self._doubt_if_late(query)

    async def _overslept(self, tasks: list[asyncio.Task[None]], seconds: float, until: str) -> float:
        """Waits for `tasks`, `seconds` at most; how much more it became, since our own loop stood still."""
        end = self._loop.time() + seconds
        await asyncio.wait(tasks, timeout=seconds, return_when=until)
        return max(0.0, self._loop.time() - end)

    def _doubt_if_late(self, query: _Query) -> None:
        """Whoever named a node that does not answer may have invented it."""
        if not query.late and query.asked + self._hedge <= self._loop.time():
            query.late = True
            self._credit(query.to, answered=False)

    def _credit(self, where: Home, *, answered: bool) -> None:
        """It counts for or against those who named this node."""
        for who in self._named_by.get(where, ()):
            (self._useful if answered else self._vain)[who] += 1
            self.protocol.health.named(who, answered=answered)

    def _invented(self, where: Home) -> bool:
        """True if nobody named this node but those of whose nodes several were silent and none has answered."""
        named_by = self._named_by.get(where, ())
        return bool(named_by) and all(map(self._invents, named_by))

    def _invents(self, who: bytes) -> bool:
        in_vain = self._vain[who] >= IN_VAIN and not self._useful[who]
        return in_vain or bool(self.protocol.health.invents(who))

    async def _query(self, path: _Path, node: Node) -> None:
        contacts = await self._ask(node)
        if contacts is None:
            return
        self.answered[node.id] = node
        self._credit(home(node), answered=True)
        for contact in self._worth_asking(contacts):
            self._hear_of(path, contact, node)

    def _hear_of(self, path: _Path, contact: Node, named_by: Node) -> None:
        """A candidate more, unless enough addresses are known for that id, or enough of that subnet on this path."""
        where = home(contact)
        self._named_by.setdefault(where, set()).add(named_by.id)
        if where in path.candidates or where in self.asked:
            return
        crowd = subnet(contact.ip, contact.port)
        if path.subnets[crowd] >= self._settings.contacts_per_subnet and is_public(contact.ip):
            return
        if where not in self._known and self._homes[contact.id] >= MAX_HOMES:
            return
        self._homes[contact.id] += 1
        path.subnets[crowd] += 1
        path.candidates[where] = contact

    def _worth_asking(self, nodes: list[Node]) -> list[Node]:
        now = self._loop.time()
        return [node for node in nodes if not self.protocol.health.resting(node, now)]
