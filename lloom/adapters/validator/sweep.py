"""Finds executors that the DHT knows and the catalogue does not, and asks them what they offer. It takes nobody's word for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final, Protocol

from loguru import logger

from lloom.adapters.anchors.inquiry import told
from lloom.adapters.dht.addresses import subnet
from lloom.adapters.routing.offers import Dht
from lloom.adapters.routing.pool import Pool
from lloom.core.catalogue import Catalogue
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import OfferCall
from lloom.core.offer import Endpoint, unseal
from lloom.core.records import ALL

PAUSE_SECONDS: Final = 60.0
"""Between two looks. Executors register by themselves; this is for those that cannot, and for what got lost."""
ASKED: Final = 64
"""Executors asked at one look, by lot: records are free, and each may name an address at which nobody answers."""
AT_ONCE: Final = 8
ENDPOINTS: Final = 2
"""Endpoints of one executor that are tried at one look."""
ASK_SECONDS: Final = 5.0
"""For one endpoint, the connection included."""


class Chooser(Protocol):
    """Draws lots, as `random.Random` does."""

    def sample(self, population: Sequence[NodeId], k: int, /) -> list[NodeId]: ...
    def uniform(self, a: float, b: float, /) -> float: ...


class Sweep:
    """Completes `catalogue` from `dht`, for ever."""

    def __init__(self, catalogue: Catalogue, dht: Dht, pool: Pool, network: str, chooser: Chooser) -> None:
        self._catalogue = catalogue
        self._dht = dht
        self._pool = pool
        self._network = network
        self._chooser = chooser

    async def run(self) -> None:
        """One look after the other, the first soon after the start."""
        while True:
            await self.look()
            await asyncio.sleep(PAUSE_SECONDS * self._chooser.uniform(0.8, 1.2))

    async def look(self) -> None:
        """Asks some of those that are missing."""
        known = self._catalogue.entries
        missing = sorted(who for who in await self._dht.executors(ALL) if who not in known)
        places = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for executor in self._chooser.sample(missing, min(ASKED, len(missing))):
                group.create_task(self._complete(executor, places))

    async def _complete(self, executor: NodeId, places: asyncio.Semaphore) -> None:
        """Nothing that a stranger says may end the sweep: whoever cannot be asked is left for another look."""
        async with places:
            for endpoint in await self._endpoints(executor):
                try:
                    await self._ask(executor, endpoint)
                except RetryElsewhere as error:
                    logger.debug("{} stands in the DHT and hands out no offer: {}", checksum(executor), error)
                else:
                    return

    async def _endpoints(self, executor: NodeId) -> Sequence[Endpoint]:
        try:
            contact = await self._dht.contact(executor)
        except PeerFault as error:
            logger.debug("{} announces nonsense: {}", checksum(executor), error)
            return ()
        return contact.endpoints[:ENDPOINTS] if contact is not None else ()

    async def _ask(self, executor: NodeId, endpoint: Endpoint) -> None:
        """Its offer from its own bridge. RetryElsewhere or PeerFault if that has none."""
        sealed = await told(self._pool, (executor, endpoint), OfferCall(), ASK_SECONDS)
        now = time.time()
        offer = unseal(sealed, executor, self._network, now)
        self._catalogue.put_offer(sealed, offer, now, "" if endpoint.via else subnet(endpoint.host, 0))
