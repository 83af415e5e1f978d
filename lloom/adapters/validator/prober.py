"""Looks at every executor of the catalogue in turn and signs what it saw. It decides nothing about who is asked by clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

from loguru import logger
from msgspec.structs import replace

from lloom.adapters.bridge import Connection
from lloom.adapters.validator.probe import Unpaid, Visit, probe
from lloom.adapters.validator.shopper import Shopper, Shoppers
from lloom.core import questions, vouch
from lloom.core.billing.quote import cost, quote_hash, quotes_of
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.offer import Endpoint, Offer
from lloom.core.rounds import Rounds
from lloom.core.routing.candidate import Candidate
from lloom.core.scrutiny import Scrutiny
from lloom.core.settings import ValidatorSettings
from lloom.core.vouch import Probe, Vouch

_ENDPOINTS: Final = 16
"""Endpoints of one executor that are dialled in one round."""
_MODELS: Final = 16
"""Models of one executor that are asked in one round; the others have their turn in the next ones."""
_LEEWAY: Final = 0.4
"""A look comes later by up to this share of the pause, by lot: what comes like clockwork is no client."""
_LOOK_SECONDS: Final = 5.0
"""Longest pause before newcomers are looked for."""


class Listed(Protocol):
    """What is needed of `core.catalogue.Catalogue`."""

    def offers(self, now: float) -> list[Offer]: ...
    def source(self, executor: NodeId) -> str: ...
    def put_vouch(self, sealed: bytes, vouch: Vouch, now: float) -> bool: ...


@dataclass(frozen=True, slots=True)
class _Reached:
    """An executor that answered, as the shopper who visits it sees it."""

    offer: Offer
    shopper: Shopper
    endpoints: tuple[Endpoint, ...]

    @property
    def executor(self) -> NodeId:
        return NodeId(self.offer.executor)


class Prober:
    """Vouches for the executors in `catalogue` as `shoppers.owner`, by what shoppers see. `run` works until it is cancelled."""

    def __init__(
        self,
        catalogue: Listed,
        shoppers: Shoppers,
        network: str,
        rng: Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.vouched = 0
        """Statements signed so far."""
        self._catalogue = catalogue
        self._shoppers = shoppers
        self._network = network
        self._rng = rng
        self._clock = clock
        self._rounds = Rounds(self._settings.probe_seconds)
        settings = self._settings
        self._scrutiny = Scrutiny(rng, settings.probe_seconds, settings.probe_tokens, settings.probe_logprobs)
        self._seen: dict[NodeId, dict[str, Probe]] = {}
        self._doubts: dict[NodeId, set[str]] = {}
        self._turn = 0

    async def run(self) -> None:
        """One executor after the other, `validator.probes` at once."""
        places = asyncio.Semaphore(self._settings.probes)
        async with asyncio.TaskGroup() as group:
            while True:
                await places.acquire()
                offer = self._next()
                if offer is not None:
                    group.create_task(self._look(offer)).add_done_callback(lambda _: places.release())
                    continue
                places.release()
                await asyncio.sleep(min(_LOOK_SECONDS, max(0.05, self._rounds.wait(self._clock()))))

    async def look(self, offer: Offer) -> Vouch:
        """Dials the executor, asks its models, and puts the signed statement into the catalogue."""
        executor = NodeId(offer.executor)
        async with self._shoppers.visiting(executor, time.time()) as shopper:
            endpoints = await _reach(shopper, executor, offer.endpoints[:_ENDPOINTS])
            models = [model.id for model in offer.models if "chat" in model.operations]
            seen = self._seen[executor] = {
                model: found for model, found in self._seen.get(executor, {}).items() if model in models
            }
            if endpoints:
                await self._ask_all(_Reached(offer, shopper, endpoints), self._some(models), seen)
            else:
                seen.update((model, Probe(model, answered=False)) for model in models)
        return self._say(executor, endpoints, seen)

    def _next(self) -> Offer | None:
        """The executor whose turn it is, which begins."""
        offers = {NodeId(offer.executor): offer for offer in self._catalogue.offers(time.time())}
        self._seen = {executor: seen for executor, seen in self._seen.items() if executor in offers}
        self._doubts = {executor: doubts for executor, doubts in self._doubts.items() if executor in offers}
        self._scrutiny.keep(offers.keys())
        executor = self._rounds.next({each: self._catalogue.source(each) for each in offers}, self._clock())
        return None if executor is None else offers[executor]

    async def _look(self, offer: Offer) -> None:
        executor, well = NodeId(offer.executor), False
        try:
            said = await self.look(offer)
            well = bool(said.reached) and all(found.answered for found in said.probes)
        except Exception:  # noqa: BLE001 - the boundary of a task: one executor must not end the looking at all others
            logger.exception("the probe of {} failed in a way that was not expected", checksum(executor))
        finally:
            later = self._rng.uniform(0, _LEEWAY) * self._settings.probe_seconds
            self._rounds.ended(executor, well, self._clock() + later)

    async def _ask_all(self, reached: _Reached, models: Sequence[str], seen: dict[str, Probe]) -> None:
        """Notes in `seen` how each model answers at one of the workers that were reached, each time another one."""
        for model in models:
            chosen = self._candidate(reached, model)
            if chosen is None:
                seen.pop(model, None)  # it cannot be asked any more
                continue
            try:
                found = await self._probe(*chosen)
            except Unpaid as error:
                logger.debug("{} is not asked for {}: {}", checksum(reached.executor), model, error)
                seen.pop(model, None)
                continue
            if found is not None:
                seen[model] = found

    async def _probe(self, shopper: Shopper, candidate: Candidate) -> Probe | None:
        """How one model answers; None if that could not be seen."""
        executor, terms = candidate.executor, candidate.terms
        try:
            connection = await shopper.pool.connection(executor, candidate.endpoint)
        except RetryElsewhere as error:
            logger.debug("{} was lost: {}", checksum(executor), error)
            return Probe(terms.id, answered=False)
        deadline = asyncio.get_running_loop().time() + self._settings.probe_timeout_seconds
        visit = Visit(shopper, connection, candidate, deadline)
        question = self._scrutiny.ask(executor, terms.id, self._clock())
        length = min(terms.context // 2, self._settings.probe_context)
        long = questions.long_question(self._rng, length, self._settings.probe_tokens)
        seen = await probe(visit, question, long)
        if seen is not None and seen.said is not None:
            source = self._catalogue.source(executor)
            self._scrutiny.answered(executor, source, terms.id, question, seen.said)
        return None if seen is None else seen.probe

    def _candidate(self, reached: _Reached, model: str) -> tuple[Shopper, Candidate] | None:
        """Who asks for a model, and how it is paid; None if it costs more than we have, or want to spend."""
        self._turn += 1
        endpoint = reached.endpoints[self._turn % len(reached.endpoints)]
        for candidate in _offered(reached.offer, model, endpoint):
            if candidate.payment is None:
                return reached.shopper, candidate
            payer = self._shoppers.payer
            if payer is not None and payer.purses.problem(candidate.payment) is None and not self._dear(candidate):
                return payer, candidate
        return None

    def _dear(self, candidate: Candidate) -> bool:
        settings = self._settings
        return cost(candidate.quote, settings.probe_context, 0, settings.probe_tokens) > settings.probe_cost

    def _some(self, models: list[str]) -> list[str]:
        """As many as one round allows, beginning elsewhere every time."""
        if len(models) <= _MODELS:
            return models
        start = self._rng.randrange(len(models))
        return (models[start:] + models[:start])[:_MODELS]

    def _say(self, executor: NodeId, reached: tuple[Endpoint, ...], seen: Mapping[str, Probe]) -> Vouch:
        now, owner = time.time(), self._shoppers.owner
        probes = [replace(found, conduct=self._scrutiny.conduct(executor, model)) for model, found in seen.items()]
        said = Vouch(
            validator=owner.address,
            executor=executor,
            issued=int(now),
            expires=int(now + self._settings.vouch_seconds),
            reached=reached,
            probes=vouch.fitting(probes),
        )
        self._catalogue.put_vouch(vouch.seal(said, owner, self._network), said, now)
        self.vouched += 1
        self._tell(said)
        return said

    def _tell(self, said: Vouch) -> None:
        executor = NodeId(said.executor)
        answered = sum(found.answered for found in said.probes)
        told = f"{len(said.reached)} endpoints reached, {answered} of {len(said.probes)} models answer"
        logger.debug("saw {}: {}", checksum(executor), told)
        doubts = {f"{found.model} {doubt}" for found in said.probes for doubt in found.conduct.doubts()}
        for doubt in sorted(doubts - self._doubts.get(executor, set())):
            logger.warning("{} is suspected: its {}", checksum(executor), doubt)
        self._doubts[executor] = doubts

    @property
    def suspected(self) -> int:
        """Executors whose conduct this validator doubts."""
        return sum(1 for doubts in self._doubts.values() if doubts)

    @property
    def _settings(self) -> ValidatorSettings:
        return self._shoppers.settings


async def _reach(shopper: Shopper, executor: NodeId, endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """Where the executor answers and proves who it is."""

    async def one(endpoint: Endpoint) -> Connection | None:
        try:
            return await shopper.pool.connection(executor, endpoint)
        except RetryElsewhere as error:
            logger.debug("{} was not reached at {}: {}", checksum(executor), endpoint, error)
            return None

    dials: list[Awaitable[Connection | None]] = [one(endpoint) for endpoint in endpoints]
    found = await asyncio.gather(*dials)
    return tuple(endpoint for endpoint, connection in zip(endpoints, found, strict=True) if connection)


def _offered(offer: Offer, model: str, endpoint: Endpoint) -> Iterator[Candidate]:
    """A model at a worker, once for each way to pay for it."""
    terms = offer.model(model)
    assert terms is not None
    for payment, quote in quotes_of(offer, terms):
        yield Candidate(NodeId(offer.executor), endpoint, terms, quote, quote_hash(quote), payment)
