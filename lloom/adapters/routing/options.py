"""Who could take a request, under the names that its model has here; and who is asked next. It sends nothing."""

from __future__ import annotations

import asyncio
import difflib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from random import Random
from typing import Final, get_args

from msgspec import Struct
from msgspec.structs import replace

from lloom.adapters.routing.directory import Directory
from lloom.adapters.routing.waiting import Able, Models, Waiting
from lloom.core.api.request import ApiRequest, Operation
from lloom.core.errors import CallerFault, RetryElsewhere
from lloom.core.identity import NodeId
from lloom.core.offer import ModelOffer
from lloom.core.routing.candidate import Candidate, Choice, Nobody
from lloom.core.routing.explain import Verdict, explain
from lloom.core.routing.outcomes import Place
from lloom.core.routing.plans import Plan, Plans
from lloom.core.routing.rules import matches
from lloom.core.settings import RoutingSettings

OPERATIONS: Final[tuple[Operation, ...]] = get_args(Operation)
_NEAR: Final = 0.5
"""Likeness (difflib) from which a model's name is worth suggesting."""
_MAX_MODELS: Final = 8
"""Models that one alias stands for at a time: anybody can announce names that fit a pattern."""


class Offered(Struct, frozen=True):
    """One model, how it is routed, and who offers it."""

    plan: Plan
    model: str
    candidates: Sequence[Candidate]


class Options:
    """The candidates for one request. `deadline`: on the loop's clock, after it nobody waits."""

    def __init__(self, finder: Finder, offered: Sequence[Offered], deadline: float) -> None:
        self.settings: RoutingSettings = offered[0].plan.settings
        self._finder = finder
        self.offered = offered
        self.clock = finder.clock
        self._models: Models = tuple([each.model for each in offered])
        self._gratis: Sequence[Offered] = ()
        """What of `offered` comes before the rest."""
        self._deadline = deadline

    def __iter__(self) -> Iterator[Candidate]:
        return (candidate for each in self.offered for candidate in each.candidates)

    async def choose(self, request: ApiRequest, tried: Collection[Place]) -> Choice | Nobody:
        """Whom to ask next, other than those `tried`; waits for its turn while all are busy (`routing.queue`).

        The caller must start the attempt before it waits for anything else: only then does the choice count as load.
        """
        clock, waiting = self.clock, self._finder.waiting
        if tried or not waiting.line(self._models):
            found = self._look(request, tried, clock())
            if isinstance(found, Choice) or not found.soon or not self.settings.queue:
                return found

        def look() -> Choice | Nobody:
            return self._look(request, tried, clock())

        able = self._able(request, tried)
        return await waiting.wait(self._models, request.caller, able, look, self.settings, self._deadline)

    def free(self, request: ApiRequest, tried: Collection[Place]) -> Choice | None:
        """Whom to ask besides, at once; None if nobody else is free, or somebody waits for one."""
        if self._finder.waiting.line(self._models):
            return None
        found = self._look(request, tried, self.clock())
        return found if isinstance(found, Choice) else None

    def of(self, model: str) -> Options:
        """Those of `model` only: a part of its answer is out."""
        return Options(self._finder, [each for each in self.offered if each.model == model], self._deadline)

    def spare(self) -> bool:
        """From now on those that cost nothing are asked, or waited for, before all others. Whether that is new, and of use."""
        if self._gratis:
            return False
        self._gratis = _gratis(self.offered)
        return bool(self._gratis)

    async def anew(self) -> None:
        """Asks the network again: those who were known may have moved."""
        self.offered = [await self._finder.anew(each) for each in self.offered]
        if self._gratis:
            self._gratis = _gratis(self.offered)

    def _able(self, request: ApiRequest, tried: Collection[Place]) -> Able:
        fit = [each.plan.selection.fit(each.candidates, request) for each in self._gratis or self.offered]
        able = (each for found in fit if not isinstance(found, Nobody) for each in found)
        return frozenset((each.place, each.terms.parallel) for each in able if each.place not in tried)

    def _look(self, request: ApiRequest, tried: Collection[Place], now: float) -> Choice | Nobody:
        if self._gratis:
            found = self._first(self._gratis, request, tried, now)
            if isinstance(found, Choice) or found.soon:
                return found
        return self._first(self.offered, request, tried, now)

    def _first(
        self, offered: Sequence[Offered], request: ApiRequest, tried: Collection[Place], now: float
    ) -> Choice | Nobody:
        """From the first model for which somebody is free."""
        nobody: list[Nobody] = []
        for each in offered:
            found = each.plan.selection.choose(each.candidates, request, tried, now, self._finder.rng)
            if isinstance(found, Choice):
                return found
            nobody.append(found)
        return next((each for each in nobody if each.soon), nobody[0])


class Finder:
    """Finds the options for requests; one for all of them. Made in a running loop."""

    def __init__(self, plans: Plans, directory: Directory, aliases: dict[str, tuple[str, ...]]) -> None:
        self.waiting = Waiting()
        self.clock = asyncio.get_running_loop().time
        """The loop's. It is kept, for `get_running_loop` asks the kernel for the process's id each time."""
        self.rng = Random()  # noqa: S311 (it spreads load, it hides nothing)
        self._plans = plans
        self._directory = directory
        self._aliases = {name.lower(): meant for name, meant in aliases.items()}
        plans.outcomes.on_change(self.waiting.changed)

    async def find(self, model: str, deadline: float) -> Options:
        """Who offers `model` (canonical), or what it stands for here.

        CallerFault (404 `model_not_found`, with similar names), or RetryElsewhere (503 `no_executor`; 504 `deadline`).
        """
        known = [] if model in self._aliases else self._directory.known(model)
        if known:  # as nearly always: a timer is not worth its price
            return Options(self, [Offered(self._plans.of(model), model, known)], deadline)
        try:
            async with asyncio.timeout_at(deadline):
                offered = [each for name in await self.names(model) if (each := await self._offered(name)).candidates]
                if not offered:
                    raise await self._missing(model)
        except TimeoutError:
            message = "The network took too long to name an executor."
            raise RetryElsewhere(message, status=504, code="deadline") from None
        return Options(self, offered, deadline)

    async def explain(self, request: ApiRequest, deadline: float) -> list[Verdict]:
        """A verdict on each executor, model by model in the order of preference. Errors as in `find`.

        What does not do what `request` wants is explained by what it does.
        """
        options, now = await self.find(request.model, deadline), self.clock()
        offered = {operation for each in options for operation in each.terms.operations}
        if request.operation not in offered:
            request = replace(
                request, operation=next((each for each in OPERATIONS if each in offered), request.operation)
            )
        return [
            verdict
            for each in options.offered
            for verdict in explain(each.plan.selection, each.candidates, request, now)
        ]

    async def anew(self, offered: Offered) -> Offered:
        """As `offered`, once the network was asked again."""
        found = await self._directory.anew(offered.model)
        return Offered(offered.plan, offered.model, found.candidates)

    @property
    def aliases(self) -> Iterable[str]:
        """Names that stand for others here (canonical)."""
        return self._aliases

    async def names(self, model: str) -> list[str]:
        """What `model` stands for, in order of preference; of a pattern's models those first that most executors offer."""
        meant = self._aliases.get(model)
        if meant is None:
            return [model]
        names: dict[str, None] = {}
        listed: list[str] | None = None
        for each in meant:
            if not _is_pattern(each):
                names[each.lower()] = None
                continue
            if listed is None:
                listed = [
                    name for name, _ in Counter(offer.id for _, offer in await self._directory.models()).most_common()
                ]
            names.update(dict.fromkeys(name for name in listed if matches(each, name)))
        return list(names)[:_MAX_MODELS] or [model]

    async def _offered(self, model: str) -> Offered:
        found = await self._directory.candidates(model)
        return Offered(self._plans.of(model), model, found.candidates)

    async def _missing(self, model: str) -> RetryElsewhere | CallerFault:
        """Why nobody serves `model`."""
        soon = self._plans.of(model).settings.negative_seconds
        for name in await self.names(model):
            found = await self._directory.candidates(name)
            if found.announced:
                reasons = "; ".join(found.problems) or "their offers have expired"
                message = f"{found.announced} executors announce {name}, but none can be used: {reasons}."
                return RetryElsewhere(message, status=503, code="no_executor", retry_after=soon)
        if not self._directory.connected:
            message = "This node has not found the network yet: nobody answers at network.bootstrap."
            return RetryElsewhere(message, status=503, code="no_executor", retry_after=soon)
        if model in self._aliases:
            message = f"Nobody serves what the alias '{model}' stands for: {', '.join(self._aliases[model])}."
            return RetryElsewhere(message, status=503, code="no_executor", retry_after=soon)
        return _unknown(model, await self._directory.models())


def _gratis(offered: Iterable[Offered]) -> list[Offered]:
    return [
        Offered(each.plan, each.model, free)
        for each in offered
        if (free := [candidate for candidate in each.candidates if candidate.payment is None])
    ]


def _unknown(model: str, known: list[tuple[NodeId, ModelOffer]]) -> CallerFault:
    near = difflib.get_close_matches(model, sorted({offer.id for _, offer in known}), n=3, cutoff=_NEAR)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    message = f"The model '{model}' does not exist: no executor announces it.{hint}"
    return CallerFault(message, status=404, code="model_not_found", param="model")


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")
