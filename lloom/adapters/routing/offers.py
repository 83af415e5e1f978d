"""The signed offers of executors, fetched from their own bridges and checked. It never judges them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from lloom.adapters.bridge import Stream
from lloom.adapters.routing.pool import Pool
from lloom.core.billing.quote import quote_hash, quotes_of
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import OfferCall
from lloom.core.offer import MAX_OFFER_BYTES, Endpoint, ModelOffer, Offer, fingerprint, unseal
from lloom.core.routing.candidate import Candidate
from lloom.core.settings import RoutingSettings

K = TypeVar("K")
V = TypeVar("V")

_MAX_FETCHES: Final = 32
"""Offers asked for at once: a popular model must not start a thousand handshakes."""

_MAX_KNOWN: Final = 4096
"""Executors, or models, that are remembered; the oldest make room."""


class Contact(Protocol):
    """Where an executor listens, and which offer of it is the current one."""

    @property
    def endpoints(self) -> tuple[Endpoint, ...]: ...
    @property
    def fingerprint(self) -> bytes: ...


class Dht(Protocol):
    """What is needed of `lloom.adapters.dht.Dht`."""

    @property
    def peers(self) -> int: ...
    async def executors(self, model: str) -> Sequence[NodeId]: ...
    async def contact(self, executor: NodeId) -> Contact | None: ...


@dataclass(frozen=True, slots=True)
class Scope:
    """The network whose signatures count, and how long an executor may take to hand out its offer (seconds)."""

    network: str
    fetch_seconds: float


@dataclass(slots=True)
class _Known:
    offer: Offer
    fingerprint: bytes
    candidates: dict[str, tuple[Candidate, ...]] = field(default_factory=dict)


class Offers:
    """What executors offer. An offer is asked for again only when the DHT names another one, or when it has expired."""

    def __init__(
        self, dht: Dht, pool: Pool, scope: Scope, settings: RoutingSettings, clock: Callable[[], float]
    ) -> None:
        self._dht = dht
        self._pool = pool
        self._scope = scope
        self._settings = settings
        self._clock = clock
        self._known: dict[NodeId, _Known] = {}
        self._unreachable: dict[NodeId, tuple[float, str]] = {}
        self._fetches: dict[NodeId, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(_MAX_FETCHES)

    def valid(self, executor: NodeId) -> Offer | None:
        """The offer of `executor` if it is known and still holds."""
        known = self._valid(executor)
        return None if known is None else known.offer

    def candidates(self, executor: NodeId, model: str) -> tuple[Candidate, ...]:
        """The workers of `executor` as candidates for `model`."""
        known = self._valid(executor)
        if known is None:
            return ()
        made = known.candidates.get(model)
        if made is None and (terms := known.offer.model(model)) is not None:
            made = known.candidates[model] = _candidates(executor, known.offer, terms)
        return made or ()

    async def refresh(self, executor: NodeId) -> None:
        """Brings the offer of `executor` up to date, once for however many callers. RetryElsewhere or PeerFault if it cannot."""
        until, problem = self._unreachable.get(executor, (0.0, ""))
        if self._clock() < until:
            raise RetryElsewhere(problem, code="unreachable")
        fetch = self._fetches.get(executor)
        if fetch is None:
            fetch = asyncio.create_task(self._fetch(executor))
            self._fetches[executor] = fetch
            fetch.add_done_callback(lambda done: self._fetched(executor, done))
        await asyncio.shield(fetch)

    def learn(self, offer: Offer, fingerprint: bytes) -> None:
        """A verified offer that somebody handed on; what is known already stays, unless this is newer."""
        executor = NodeId(offer.executor)
        known = self._known.get(executor)
        if known is None or offer.seq > known.offer.seq or self.valid(executor) is None:
            remember(self._known, executor, _Known(offer, fingerprint))

    def forget(self, executor: NodeId) -> None:
        """The offer of `executor` proved wrong."""
        self._known.pop(executor, None)

    async def close(self) -> None:
        """Gives up what is being fetched."""
        fetches = list(self._fetches.values())
        for fetch in fetches:
            fetch.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)

    def _valid(self, executor: NodeId) -> _Known | None:
        known = self._known.get(executor)
        return known if known is not None and known.offer.expires > self._clock() else None

    def _fetched(self, executor: NodeId, fetch: asyncio.Task[None]) -> None:
        del self._fetches[executor]
        error = None if fetch.cancelled() else fetch.exception()
        if error is not None:
            until = self._clock() + self._settings.negative_seconds
            remember(self._unreachable, executor, (until, str(error)))

    async def _fetch(self, executor: NodeId) -> None:
        async with self._places:
            contact = await self._dht.contact(executor)
            if contact is None or not contact.endpoints:
                raise RetryElsewhere(f"{checksum(executor)} announces no address", code="unreachable")
            known = self._known.get(executor)
            if known is not None and known.fingerprint == contact.fingerprint and self.valid(executor):
                return
            sealed = await self._ask(executor, contact.endpoints)
        if fingerprint(sealed) != contact.fingerprint:
            raise PeerFault(f"{checksum(executor)} hands out another offer than it announces", code="bad_offer")
        offer = unseal(sealed, executor, self._scope.network, self._clock())
        remember(self._known, executor, _Known(offer, contact.fingerprint))

    async def _ask(self, executor: NodeId, endpoints: Sequence[Endpoint]) -> bytes:
        """The sealed offer from the first worker that answers; the last one's error if none does."""
        connection = await self._pool.any(executor, endpoints)
        try:
            async with asyncio.timeout(self._scope.fetch_seconds):
                stream = await connection.open(OfferCall())
                try:
                    await stream.finish()
                    return await _all(stream)
                finally:
                    stream.cancel()
        except TimeoutError as error:
            raise RetryElsewhere(
                f"{checksum(executor)} did not hand out its offer in time", code="unreachable"
            ) from error


def remember(table: dict[K, V], key: K, value: V) -> V:
    """Puts `value` into a bounded table; the oldest entry makes room."""
    table.pop(key, None)
    while len(table) >= _MAX_KNOWN:
        del table[next(iter(table))]
    table[key] = value
    return value


def _candidates(executor: NodeId, offer: Offer, terms: ModelOffer) -> tuple[Candidate, ...]:
    named = [(payment, quote, quote_hash(quote)) for payment, quote in quotes_of(offer, terms)]
    return tuple(
        Candidate(executor, endpoint, terms, quote, name, payment)
        for payment, quote, name in named
        for endpoint in offer.endpoints
    )


async def _all(stream: Stream) -> bytes:
    parts, size = [], 0
    while (part := await stream.receive()) is not None:
        size += len(part)
        if size > MAX_OFFER_BYTES:
            raise PeerFault("an offer without end", code="bad_offer")
        parts.append(part)
    return b"".join(parts)
