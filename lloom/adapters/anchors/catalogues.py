"""What validators say of executors, checked. Offers prove themselves; what validators saw is believed as far as they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from random import Random
from secrets import token_bytes
from typing import Final

from loguru import logger

from lloom.adapters.anchors.inquiry import Whereabouts, ask
from lloom.adapters.routing.pool import Pool
from lloom.core import vouch
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.identity import ADDRESS_BYTES, NodeId, checksum
from lloom.core.messages import CatalogueCall, Listing, Numbers, OffersPage, Search, Statistics, decoder
from lloom.core.offer import Offer, fingerprint, unseal
from lloom.core.records import ALL
from lloom.core.trust import Trust
from lloom.core.vouch import Vouch

ASK_SECONDS: Final = 5.0
"""For one page, the connection included."""
HEDGE_SECONDS: Final = 0.3
"""A validator that has not answered by then gets company: the next one is asked as well."""
PAGE: Final = 100
PAGES: Final = 4
"""More executors than these hold are no better to choose from. But which they are is drawn by lot: whoever grinds many low
addresses could else fill all of them.
"""

_offers = decoder(OffersPage)
_numbers = decoder(Numbers)


@dataclass(frozen=True, slots=True)
class Told:
    """One executor as a validator told of it: its offer, verified, and what configured validators saw of it."""

    offer: Offer
    fingerprint: bytes
    vouches: tuple[Vouch, ...]


class Catalogues:
    """Asks one of `anchors()`, and the next if that fails or is slow. `trust` learns from what is forged, `told(executor,
    vouches)` hears what is said.
    """

    def __init__(
        self,
        anchors: Callable[[], Collection[Whereabouts]],
        pool: Pool,
        network: str,
        trust: Trust,
        told: Callable[[NodeId, tuple[Vouch, ...]], None],
    ) -> None:
        self.trust = trust
        self._told = told
        self._anchors = anchors
        self._pool = pool
        self._network = network
        self._rng = Random()  # noqa: S311 (it spreads load, it hides nothing)

    @property
    def configured(self) -> int:
        """How many validators there are to compare."""
        return len(self._anchors())

    @property
    def dropped(self) -> int:
        """How many of them are not asked any more, for what they said."""
        now = asyncio.get_running_loop().time()
        return sum(not self.trust.trusted(who, now) for who, _ in self._anchors())

    async def offers(self, model: str) -> list[Told]:
        """Who serves `model` (canonical; "*" for all), by the first validator that answers. RetryElsewhere if none does."""
        found = await self._first(model)
        for each in found:
            self._told(NodeId(each.offer.executor), each.vouches)
        return found

    async def _first(self, model: str) -> list[Told]:
        anchors = dict(self._anchors())
        order = self.trust.order(anchors, asyncio.get_running_loop().time(), self._rng)
        query = Search() if model == ALL else Search(model=model)
        asking: set[asyncio.Task[list[Told]]] = set()
        try:
            for validator in order:
                asking.add(asyncio.create_task(self._search((validator, anchors[validator]), query)))
                done, asking = await asyncio.wait(asking, timeout=HEDGE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if (found := _good(done)) is not None:
                    return found
            while asking:
                done, asking = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
                if (found := _good(done)) is not None:
                    return found
        finally:
            for task in asking:
                task.cancel()
        raise RetryElsewhere("no validator answers", status=503, code="no_validator")

    async def numbers(self, anchor: Whereabouts) -> Numbers:
        """The statistics of one validator; RetryElsewhere if it does not answer."""
        return await ask(self._pool, anchor, CatalogueCall(Statistics()), _numbers, ASK_SECONDS)

    async def _search(self, anchor: Whereabouts, query: Search) -> list[Told]:
        """All pages, within bounds. A validator that hands out what is forged is not asked again for long."""
        told: dict[NodeId, Told] = {}
        after = b""
        try:
            for _ in range(PAGES):
                page = await ask(self._pool, anchor, CatalogueCall(query, after, PAGE), _offers, ASK_SECONDS)
                found = filter(None, [self._check(listing, query) for listing in page.listings])
                told.update({NodeId(each.offer.executor): each for each in found})
                if not page.next:
                    break
                after = page.next if page.total <= PAGES * PAGE else token_bytes(ADDRESS_BYTES)
        except PeerFault as error:
            logger.warning("the validator {} is not asked any more: {}", checksum(anchor[0]), error)
            self.trust.lied(anchor[0], asyncio.get_running_loop().time())
            raise
        return list(told.values())

    def _check(self, listing: Listing, query: Search) -> Told | None:
        """The listing if it is what was asked for, None if it has just run out. PeerFault if it is forged."""
        now = time.time()
        try:
            offer = unseal(listing.offer, NodeId(listing.executor), self._network, now)
        except PeerFault as error:
            if error.code == "expired":
                return None
            raise
        if query.model and offer.model(query.model) is None:
            raise PeerFault("a validator tells of an executor that does not serve what was asked for", code="bad_page")
        return Told(offer, fingerprint(listing.offer), self._vouches(listing, now))

    def _vouches(self, listing: Listing, now: float) -> tuple[Vouch, ...]:
        """What configured validators say of the executor; others' words, and stale ones, are left out."""
        configured = {who for who, _ in self._anchors()}
        found: dict[NodeId, Vouch] = {}
        for sealed in listing.vouches:
            try:
                said = vouch.unseal(sealed, self._network, now)
            except PeerFault:
                continue
            if said.validator in configured and said.executor == listing.executor:
                found[NodeId(said.validator)] = said
        return tuple(found.values())


def _good(done: set[asyncio.Task[list[Told]]]) -> list[Told] | None:
    """The first answer among finished questions; what the others failed with is looked at."""
    answers = [task.result() for task in done if not task.cancelled() and task.exception() is None]
    unexpected = [error for task in done if (error := task.exception()) and not isinstance(error, RetryElsewhere)]
    if unexpected:
        raise unexpected[0]
    return answers[0] if answers else None
