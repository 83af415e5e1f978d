"""Looks at every executor of the catalogue in turn and signs what it saw. It decides nothing about who is asked by clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import Final, Protocol

from loguru import logger

from lloom.adapters.bridge import Connection
from lloom.adapters.routing.pool import Pool
from lloom.adapters.validator.probe import Asker, probe
from lloom.core import vouch
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.offer import Endpoint, ModelOffer, Offer
from lloom.core.receipt import quote_hash, quotes_of
from lloom.core.rounds import Rounds
from lloom.core.routing.candidate import Candidate
from lloom.core.vouch import Probe, Vouch

_ENDPOINTS: Final = 16
"""Endpoints of one executor that are dialled in one round."""
_MODELS: Final = 16
"""Models of one executor that are asked in one round; the others have their turn in the next ones."""
_LOOK_SECONDS: Final = 5.0
"""Longest pause before newcomers are looked for."""


class Listed(Protocol):
    """What is needed of `core.catalogue.Catalogue`."""

    def offers(self, now: float) -> list[Offer]: ...
    def source(self, executor: NodeId) -> str: ...
    def put_vouch(self, sealed: bytes, vouch: Vouch, now: float) -> bool: ...


class Prober:
    """Vouches for the executors in `catalogue` as the node whose identity `asker` has. `run` works until it is cancelled."""

    def __init__(self, catalogue: Listed, pool: Pool, network: str, asker: Asker) -> None:
        self.vouched = 0
        """Statements signed so far."""
        self._catalogue = catalogue
        self._pool = pool
        self._network = network
        self._asker = asker
        self._rounds = Rounds(asker.settings.probe_seconds)
        self._seen: dict[NodeId, dict[str, Probe]] = {}
        self._turn = 0

    async def run(self) -> None:
        """One executor after the other, `validator.probes` at once."""
        places = asyncio.Semaphore(self._asker.settings.probes)
        async with asyncio.TaskGroup() as group:
            while True:
                await places.acquire()
                offer = self._next()
                if offer is not None:
                    group.create_task(self._look(offer)).add_done_callback(lambda _: places.release())
                    continue
                places.release()
                await asyncio.sleep(min(_LOOK_SECONDS, max(0.05, self._rounds.wait(self._now))))

    async def look(self, offer: Offer) -> Vouch:
        """Dials the executor, asks its models, and puts the signed statement into the catalogue."""
        executor = NodeId(offer.executor)
        open_ = await self._reach(executor, offer.endpoints[:_ENDPOINTS])
        seen = self._seen.setdefault(executor, {})
        for model in self._some([model.id for model in offer.models if _is_asked(offer, model)]):
            found = await self._ask(offer, model, open_) if open_ else Probe(model, answered=False)
            if found is not None:
                seen[model] = found
        offered = {model.id for model in offer.models}
        self._seen[executor] = {model: found for model, found in seen.items() if model in offered}
        return self._say(executor, tuple(endpoint for endpoint, _ in open_))

    def _next(self) -> Offer | None:
        """The executor whose turn it is, which begins."""
        offers = {NodeId(offer.executor): offer for offer in self._catalogue.offers(time.time())}
        self._seen = {executor: seen for executor, seen in self._seen.items() if executor in offers}
        executor = self._rounds.next({each: self._catalogue.source(each) for each in offers}, self._now)
        return None if executor is None else offers[executor]

    async def _look(self, offer: Offer) -> None:
        executor, well = NodeId(offer.executor), False
        try:
            said = await self.look(offer)
            well = bool(said.reached) and all(found.answered for found in said.probes)
        except Exception:  # noqa: BLE001 - the boundary of a task: one executor must not end the looking at all others
            logger.exception("the probe of {} failed in a way that was not expected", checksum(executor))
        finally:
            self._rounds.ended(executor, well, self._now)

    async def _reach(self, executor: NodeId, endpoints: Sequence[Endpoint]) -> list[tuple[Endpoint, Connection]]:
        """Where the executor answers and proves who it is."""

        async def one(endpoint: Endpoint) -> Connection | None:
            try:
                return await self._pool.connection(executor, endpoint)
            except RetryElsewhere as error:
                logger.debug("{} was not reached at {}: {}", checksum(executor), endpoint, error)
                return None

        dials: list[Awaitable[Connection | None]] = [one(endpoint) for endpoint in endpoints]
        found = await asyncio.gather(*dials)
        return [(endpoint, connection) for endpoint, connection in zip(endpoints, found, strict=True) if connection]

    async def _ask(self, offer: Offer, model: str, open_: Sequence[tuple[Endpoint, Connection]]) -> Probe | None:
        """One model at one of the workers that answered, each time another one; None if it is too busy."""
        self._turn += 1
        endpoint, connection = open_[self._turn % len(open_)]
        terms = offer.model(model)
        assert terms is not None
        ((payment, quote),) = quotes_of(offer, terms)
        candidate = Candidate(NodeId(offer.executor), endpoint, terms, quote, quote_hash(quote), payment)
        return await probe(self._asker, connection, candidate)

    def _some(self, models: list[str]) -> list[str]:
        """As many as one round allows, beginning elsewhere every time."""
        if len(models) <= _MODELS:
            return models
        start = self._asker.rng.randrange(len(models))
        return (models[start:] + models[:start])[:_MODELS]

    def _say(self, executor: NodeId, reached: tuple[Endpoint, ...]) -> Vouch:
        now = time.time()
        said = Vouch(
            validator=self._asker.client.identity.address,
            executor=executor,
            issued=int(now),
            expires=int(now + self._asker.settings.vouch_seconds),
            reached=reached,
            probes=tuple(self._seen[executor].values())[:128],
        )
        self._catalogue.put_vouch(vouch.seal(said, self._asker.client.identity, self._network), said, now)
        self.vouched += 1
        logger.debug("saw {}: {}", checksum(executor), _words(said))
        return said

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _is_asked(offer: Offer, model: ModelOffer) -> bool:
    """Whether a question tells anything of a model, and costs nothing: a validator has no money."""
    return "chat" in model.operations and all(payment is None for payment, _ in quotes_of(offer, model))


def _words(said: Vouch) -> str:
    answered = sum(found.answered for found in said.probes)
    return f"{len(said.reached)} endpoints reached, {answered} of {len(said.probes)} models answer"
