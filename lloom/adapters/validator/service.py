"""A validator's counter: takes offers, answers queries, tells fellows the news. It believes nothing that is not signed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, Final

from lloom.adapters.anchors.inquiry import read
from lloom.adapters.bridge import Stream
from lloom.adapters.validator.sources import network
from lloom.core import queries
from lloom.core.buckets import Buckets
from lloom.core.catalogue import LONGEST_SECONDS, Catalogue
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import Call, CatalogueCall, GossipCall, Message, RegisterCall, encode
from lloom.core.offer import MAX_OFFER_BYTES, unseal
from lloom.core.settings import ValidatorSettings

CALL_SECONDS: Final = 30.0
"""Longest time one of these calls may take, its peer's slowness included."""
CALLS_PER_PEER: Final = 16
"""Calls of one peer at once."""
CALLS_PER_SECOND: Final = 20
"""Calls of one peer, on average; as many again in a burst. Identities are free, hence the next bounds."""
CALLS_PER_SOURCE: Final = 60
"""Calls a second from one network, whoever makes them there."""
CALLS: Final = 400
"""Calls a second of all but fellows: a page costs a millisecond or two. Who is refused asks another validator, or the DHT."""

Handler = Callable[[Stream], Coroutine[Any, Any, None]]
Fellows = Callable[[], Collection[NodeId]]


class Service:
    """Answers the calls of a validator's bridge. `fellows`: who may have the news; `others`: who answers other kinds of calls."""

    def __init__(
        self,
        catalogue: Catalogue,
        network: str,
        settings: ValidatorSettings,
        fellows: Fellows,
        others: Mapping[type[Call], Handler],
    ) -> None:
        self._catalogue = catalogue
        self._network = network
        self._settings = settings
        self._fellows = fellows
        self._others = others
        self._open: Counter[NodeId] = Counter()
        self._answers = queries.Answers(catalogue)
        self._per_peer = Buckets(CALLS_PER_SECOND, 5 * CALLS)
        self._per_source = Buckets(CALLS_PER_SOURCE, CALLS)

    async def handle(self, stream: Stream) -> None:
        """One call, from OPEN to END; what it raises becomes a RESET."""
        other = self._others.get(type(stream.call))
        if other is not None:
            await other(stream)
            return
        peer = stream.connection.peer
        self._admit(peer, network(stream))
        self._open[peer] += 1
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await self._answer(stream)
        except TimeoutError:
            raise RetryElsewhere("This took too long.", status=504, code="deadline") from None
        finally:
            self._open[peer] -= 1
            if not self._open[peer]:
                del self._open[peer]

    def _admit(self, peer: NodeId, source: str) -> None:
        """RetryElsewhere if `peer`, or all from `source`, ask too much. Fellows are bounded by their calls at once only."""
        now = asyncio.get_running_loop().time()
        well = self._open[peer] < CALLS_PER_PEER and (
            peer in self._fellows() or (self._per_peer.take(peer.hex(), now) and self._per_source.take(source, now))
        )
        if not well:
            raise RetryElsewhere("You ask too much of this validator.", status=429, code="busy", retry_after=1.0)

    async def _answer(self, stream: Stream) -> None:
        match stream.call:
            case RegisterCall():
                await self._register(stream)
                await stream.finish()
            case CatalogueCall() as call:
                page = min(call.limit, self._settings.page)
                call = CatalogueCall(call.query, call.after, page)
                await _send(stream, self._answers.answer(call, time.time(), 1 + len(self._fellows())))
            case GossipCall(epoch, version):
                if stream.connection.peer not in self._fellows():
                    raise RetryElsewhere("News is for fellow validators.", status=403, code="not_a_fellow")
                await _send(stream, self._catalogue.news(epoch, version, time.time()))
            case _:
                raise RetryElsewhere("A validator does not answer this.", status=501, code="wrong_role")

    async def _register(self, stream: Stream) -> None:
        """Takes the caller's own offer; RetryElsewhere if there is no room."""
        peer, now = stream.connection.peer, time.time()
        sealed = await read(stream, MAX_OFFER_BYTES)
        offer = unseal(sealed, peer, self._network, now)
        if offer.expires > now + LONGEST_SECONDS:
            raise PeerFault(f"an offer may hold for {LONGEST_SECONDS} s at most", code="bad_offer")
        self._catalogue.put_offer(sealed, offer, now, network(stream))
        known = self._catalogue.entries.get(peer)
        if known is None or known.offer.seq < offer.seq:
            raise RetryElsewhere(f"The catalogue has no room for {checksum(peer)}.", status=507, code="full")


async def _send(stream: Stream, answer: Message) -> None:
    await stream.send(encode(answer))
    await stream.finish()
