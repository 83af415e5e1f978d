"""Who offers what: an index from the DHT, offers from the executors themselves. It never says who is better."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from loguru import logger
from msgspec import Struct

from lloom.adapters.anchors.catalogues import Catalogues
from lloom.adapters.routing.offers import Dht, Offers, Scope, remember
from lloom.adapters.routing.pool import Pool
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.offer import ModelOffer
from lloom.core.records import ALL
from lloom.core.routing.candidate import Candidate
from lloom.core.settings import RoutingSettings

ANEW_SECONDS: Final = 2.0
"""For asking the network again while a request waits."""
WARM: Final = 4
"""Executors of a model to which a connection is kept open."""


class Found(Struct, frozen=True):
    """What is known of a model: `announced` executors say that they serve it, `problems` tells why some are no candidates."""

    candidates: tuple[Candidate, ...]
    announced: int
    problems: tuple[str, ...]


@dataclass(slots=True)
class _Lookup:
    """What is known of one model, and the search for more that is under way."""

    executors: tuple[NodeId, ...] = ()
    listed: set[NodeId] = field(default_factory=set)
    """Those of which a validator gave the offer in the latest search: they need not be asked for it."""
    problems: dict[NodeId, str] = field(default_factory=dict)
    stale_at: float = 0.0
    search: asyncio.Task[None] | None = None
    usable: asyncio.Event = field(default_factory=asyncio.Event)


class Directory:
    """Answers from memory where it can and asks anew behind the answer. `clock`: Unix seconds."""

    def __init__(
        self,
        dht: Dht,
        catalogues: Catalogues | None,
        pool: Pool,
        scope: Scope,
        settings: RoutingSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._dht = dht
        self._catalogues = catalogues
        self._pool = pool
        self._offers = Offers(dht, pool, scope, settings, clock)
        self._settings = settings
        self._clock = clock
        self._lookups: dict[str, _Lookup] = {}

    @property
    def connected(self) -> bool:
        """Whether anybody is there to ask."""
        return self._dht.peers > 0

    def known(self, model: str) -> list[Candidate]:
        """Those of whom no request has to wait to hear; maybe nobody, though somebody will be found."""
        return self._candidates(model, self._looked_up(model))

    async def candidates(self, model: str) -> Found:
        """Everybody known to offer `model` (canonical); waits only if nobody is known yet."""
        return self._found(model, await self._awaited(model))

    async def anew(self, model: str) -> Found:
        """As `candidates`, once the network was asked again: what is known proved to be old. Waits a little."""
        lookup = self._lookups.get(model)
        if lookup is not None:
            if lookup.search is None:
                lookup.search = asyncio.create_task(self._search(model, lookup))
            await asyncio.wait({lookup.search}, timeout=ANEW_SECONDS)
        return await self.candidates(model)

    async def models(self) -> list[tuple[NodeId, ModelOffer]]:
        """Every model of every executor that could be asked."""
        lookup = await self._awaited(ALL)
        offers = [(executor, offer) for executor in lookup.executors if (offer := self._offers.valid(executor))]
        return [(executor, model) for executor, offer in offers for model in offer.models]

    def doubt(self, executor: NodeId) -> None:
        """What is known of this executor proved wrong: it is asked anew for its offer at the next occasion."""
        self._offers.forget(executor)
        for lookup in self._lookups.values():
            if executor in lookup.executors:
                lookup.stale_at = 0.0

    async def close(self) -> None:
        """Gives up all searches."""
        searches = [lookup.search for lookup in self._lookups.values() if lookup.search is not None]
        for search in searches:
            search.cancel()
        await asyncio.gather(*searches, return_exceptions=True)
        await self._offers.close()

    def _looked_up(self, model: str) -> _Lookup:
        """What is known of `model`; if it is stale, the search for more begins."""
        lookup = self._lookups.get(model)
        if lookup is None:
            lookup = remember(self._lookups, model, _Lookup())
        if lookup.search is None and self._clock() >= lookup.stale_at:
            lookup.search = asyncio.create_task(self._search(model, lookup))
        return lookup

    async def _awaited(self, model: str) -> _Lookup:
        """As `_looked_up`, once somebody is known if there is anybody."""
        lookup = self._looked_up(model)
        if (search := self._unknown(model, lookup)) is not None:
            await self._wait(search, lookup.usable)
        return lookup

    def _unknown(self, model: str, lookup: _Lookup) -> asyncio.Task[None] | None:
        """The search to wait for, where nobody is known yet."""
        known = lookup.search is None or any(self._usable(executor, model) for executor in lookup.executors)
        return None if known else lookup.search

    def _found(self, model: str, lookup: _Lookup) -> Found:
        candidates, problems = self._candidates(model, lookup), dict.fromkeys(lookup.problems.values())
        return Found(tuple(candidates), len(lookup.executors), tuple(problems))

    def _candidates(self, model: str, lookup: _Lookup) -> list[Candidate]:
        return [each for executor in lookup.executors for each in self._offers.candidates(executor, model)]

    async def _wait(self, search: asyncio.Task[None], usable: asyncio.Event) -> None:
        """Until the search is over, or somebody usable was found and others had their grace."""
        first = asyncio.create_task(usable.wait())
        try:
            await asyncio.wait({search, first}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            first.cancel()
        await asyncio.wait({search}, timeout=self._settings.grace_seconds)

    def _usable(self, executor: NodeId, model: str) -> bool:
        offer = self._offers.valid(executor)
        return offer is not None and (model == ALL or offer.model(model) is not None)

    async def _search(self, model: str, lookup: _Lookup) -> None:
        lookup.usable.clear()
        lookup.listed.clear()
        before = lookup.executors
        try:
            listing = asyncio.create_task(self._ask_catalogues(model, lookup))
            try:
                found = await self._dht.executors(model)
                if not found:  # the catalogue alone may know somebody
                    await listing
                both = dict.fromkeys([*found, *lookup.listed])
                # An empty answer does not wipe what is known: offers expire by themselves, a network can be cut for a while.
                lookup.executors = tuple(both) or before
                lookup.problems.clear()
                async with asyncio.TaskGroup() as group:
                    for executor in lookup.executors:
                        group.create_task(self._learn(executor, model, lookup))
                await listing
            finally:
                listing.cancel()
                await asyncio.gather(listing, return_exceptions=True)
        except Exception:  # noqa: BLE001 - the boundary of a task: what is known stays as it is
            logger.exception("the search for executors of {} failed", model)
        finally:
            self._warm(model, lookup)
            well = lookup.executors and not lookup.problems
            settings = self._settings
            lookup.stale_at = self._clock() + (settings.directory_seconds if well else settings.negative_seconds)
            lookup.search = None

    def _warm(self, model: str, lookup: _Lookup) -> None:
        """The first request should not wait for a handshake, nor the next one when an executor fails."""
        if model == ALL:
            return
        found = (each for executor in lookup.executors for each in self._offers.candidates(executor, model)[:1])
        self._pool.warm((each.executor, each.endpoint) for each in islice(found, WARM))

    async def _ask_catalogues(self, model: str, lookup: _Lookup) -> None:
        """Adds whom a validator knows. Without one that answers the DHT has to do."""
        if self._catalogues is None or not self._catalogues.configured:
            return
        try:
            told = await self._catalogues.offers(model)
        except RetryElsewhere as error:
            logger.debug("the catalogue was no help with {}: {}", model, error)
            return
        for each in told:
            executor = NodeId(each.offer.executor)
            self._offers.learn(each.offer, each.fingerprint)
            lookup.listed.add(executor)
        lookup.executors = tuple(dict.fromkeys([*lookup.executors, *lookup.listed]))
        if any(self._usable(executor, model) for executor in lookup.listed):
            lookup.usable.set()

    async def _learn(self, executor: NodeId, model: str, lookup: _Lookup) -> None:
        try:
            if executor not in lookup.listed:
                await self._offers.refresh(executor)
        except RetryElsewhere as error:
            if executor in lookup.listed:  # a validator told of it meanwhile
                return
            lookup.problems[executor] = str(error)
            return
        if self._usable(executor, model):
            lookup.usable.set()
        else:
            lookup.problems[executor] = f"{checksum(executor)} no longer offers {model}"
