"""Keeps the catalogue whole: fetches from every fellow validator what changed there. It takes nothing on a fellow's word."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from loguru import logger

from lloom.adapters.anchors.inquiry import Whereabouts, ask
from lloom.adapters.routing.pool import Pool
from lloom.core import vouch
from lloom.core.catalogue import Catalogue
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import GossipCall, News, decoder
from lloom.core.offer import unseal

ASK_SECONDS: Final = 20.0
"""For one answer, a connection included."""
LONGEST_PAUSE: Final = 60.0
"""Between two tries of a fellow that does not answer."""
BREATH: Final = 10
"""Offers checked before others have their turn: each costs 0.1 ms, and more in a full catalogue."""

_news = decoder(News)


@dataclass(slots=True)
class _Heard:
    """How far we have listened to one fellow."""

    epoch: int = 0
    version: int = 0
    failures: int = 0


class Gossip:
    """Exchanges with all of `fellows()`, for ever. `trusted()`: whose vouches are kept."""

    def __init__(
        self,
        catalogue: Catalogue,
        pool: Pool,
        network: str,
        pause: float,
        fellows: Callable[[], Collection[Whereabouts]],
        trusted: Callable[[], Collection[NodeId]],
    ) -> None:
        self._catalogue = catalogue
        self._pool = pool
        self._network = network
        self._pause = pause
        self._fellows = fellows
        self._trusted = trusted
        self._heard: dict[NodeId, _Heard] = {}

    async def run(self) -> None:
        """One task for each fellow, as they become known."""
        listening: dict[NodeId, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._catalogue.expire(time.time())
                for fellow, _ in self._fellows():
                    if fellow not in listening:
                        listening[fellow] = group.create_task(self._listen(fellow))
                await asyncio.sleep(self._pause)

    async def exchange(self, fellow: Whereabouts) -> bool:
        """Takes one helping of news; True if there is more at once. RetryElsewhere or PeerFault if there is none to be had."""
        heard = self._heard.setdefault(fellow[0], _Heard())
        news = await ask(self._pool, fellow, GossipCall(heard.epoch, heard.version), _news, ASK_SECONDS)
        await self._take(news)
        heard.epoch, heard.version = news.epoch, news.version
        return news.more

    async def _listen(self, fellow: NodeId) -> None:
        """All news of one fellow, for ever; pauses double while it does not answer."""
        while True:
            where = next((each for each in self._fellows() if each[0] == fellow), None)
            more = where is not None and await self._try(where)
            heard = self._heard.setdefault(fellow, _Heard())
            pause = min(self._pause * 2**heard.failures, max(self._pause, LONGEST_PAUSE))
            if not more:
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - so that they do not stay in step

    async def _try(self, fellow: Whereabouts) -> bool:
        heard = self._heard.setdefault(fellow[0], _Heard())
        try:
            more = await self.exchange(fellow)
        except RetryElsewhere as error:
            if not heard.failures:
                logger.info("no news from the validator {}: {}", checksum(fellow[0]), error)
            heard.failures = min(heard.failures + 1, 8)
            return False
        heard.failures = 0
        return more

    async def _take(self, news: News) -> None:
        """What of `news` is signed as it should be; the rest is the fellow's shame, and left."""
        now, trusted = time.time(), self._trusted()
        for number, (executor, sealed) in enumerate(news.offers):
            if number % BREATH == BREATH - 1:
                await asyncio.sleep(0)
            try:
                offer = unseal(sealed, NodeId(executor), self._network, now)
            except PeerFault as error:
                logger.debug("a fellow passed on what is no offer: {}", error)
                continue
            self._catalogue.put_offer(sealed, offer, now)
        for sealed in news.vouches:
            try:
                said = vouch.unseal(sealed, self._network, now)
            except PeerFault as error:
                logger.debug("a fellow passed on what is no vouch: {}", error)
                continue
            if said.validator in trusted:
                self._catalogue.put_vouch(sealed, said, now)
