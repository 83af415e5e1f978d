"""Who gets a request: filters, then a policy. It draws from the `rng` it is given and never asks anybody anything."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final, Literal

from lloom.core.api.request import ApiRequest
from lloom.core.identity import NodeId
from lloom.core.routing.candidate import Candidate, Nobody
from lloom.core.routing.filters import Spending, misfit, nobody_fits
from lloom.core.routing.outcomes import Outcomes, Place

Policy = Literal["balanced", "cheapest", "fastest", "pinned"]

_STRANGERS: Final = 0.25
"""The share of requests for which those count as well of whom nothing good is known, while there are others."""
_UNKNOWN: Final = 0.5
"""The success (`Outcomes.success`) of those of whom nothing is known."""


@dataclass(frozen=True, slots=True)
class Selection:
    """A policy, the executors it is limited to (pinned, in order of preference), and what is remembered."""

    policy: Policy
    pinned: tuple[NodeId, ...]
    outcomes: Outcomes
    spending: Spending = field(default_factory=Spending)

    def choose(
        self,
        candidates: Sequence[Candidate],
        request: ApiRequest,
        tried: Collection[Place],
        now: float,
        rng: Random,
    ) -> Candidate | Nobody:
        """The candidate to ask next, other than those `tried`. `now` counts seconds on any steady clock."""
        fit = self._fit(candidates, request)
        if isinstance(fit, Nobody):
            return fit
        left = [candidate for candidate in fit if candidate.place not in tried]
        awake = [candidate for candidate in left if not self.outcomes.is_shut(candidate.place, now)]
        if awake:
            return self._pick(self._best_tier(self._worth_asking(awake, tried, now, rng), tried, now), now, rng)
        return self._last_resort(left, now) or self._all_shut(fit, now)

    def _fit(self, candidates: Sequence[Candidate], request: ApiRequest) -> list[Candidate] | Nobody:
        allowed = [each for each in candidates if self.policy != "pinned" or each.executor in self.pinned]
        if not allowed:
            return Nobody(f"None of the executors that routing.executors names offers {request.model}.")
        misfits = [(each, misfit(each, request, self.spending)) for each in allowed]
        fit = [each for each, misfit in misfits if misfit is None]
        return fit or nobody_fits({each.executor: misfit for each, misfit in misfits if misfit}, request)

    def _last_resort(self, shut: Sequence[Candidate], now: float) -> Candidate | None:
        """Of those that should rest the one with the least rest left: it may be back, and the caller has nobody else.

        One request at a time finds that out (the half-open state of a circuit breaker); the others are not made to wait for it.
        """
        outcomes = self.outcomes
        idle = [each for each in shut if not outcomes.load(each.place) and not outcomes.lied(each.place, now)]
        return min(idle, key=lambda each: outcomes.rests(each.place, now), default=None)

    def _all_shut(self, fit: Sequence[Candidate], now: float) -> Nobody:
        wait = min(self.outcomes.rests(candidate.place, now) for candidate in fit)
        who = _count(len({candidate.executor for candidate in fit}))
        reason = f"{who} of {fit[0].terms.id} failed a moment ago; the next try is due in {wait:.0f} s."
        return Nobody(reason, retry_after=wait)

    def _worth_asking(
        self, awake: list[Candidate], tried: Collection[Place], now: float, rng: Random
    ) -> list[Candidate]:
        """Those that answered us, or that validators saw answering, if there are any; and strangers now and then, first.

        Identities are free, and many of them may be nobody: no request may fail of them, and few should wait for one.
        """
        if self.policy == "pinned" or (not tried and rng.random() < _STRANGERS):
            return awake
        return [each for each in awake if self._is_well(each.place, now)] or awake

    def _is_well(self, place: Place, now: float) -> bool:
        outcomes = self.outcomes
        well = not outcomes.rests(place, now) and not outcomes.suspect(place, now)
        return well and outcomes.success(place, now) > _UNKNOWN

    def _best_tier(self, left: list[Candidate], tried: Collection[Place], now: float) -> list[Candidate]:
        """Those who neither failed lately nor belong to somebody who just failed this request; else whoever is left.

        Nobody waits twice for the same dead executor: one that was silent is asked after all others, until it was seen again.
        """
        failed = {executor for executor, _, _ in tried}
        outcomes = self.outcomes

        def tier(candidate: Candidate) -> int:
            place = candidate.place
            resting = outcomes.rests(place, now) > 0
            return 4 * outcomes.suspect(place, now) + 2 * resting + (candidate.executor in failed)

        best = min(map(tier, left))
        return [candidate for candidate in left if tier(candidate) == best]

    def _pick(self, left: list[Candidate], now: float, rng: Random) -> Candidate:
        drawn = rng.sample(left, len(left))  # so that equals share the work
        outcomes = self.outcomes
        match self.policy:
            case "cheapest":
                return min(drawn, key=lambda each: (each.price, outcomes.load(each.place)))
            case "fastest":
                return min(drawn, key=lambda each: (outcomes.first_token(each.place) or 0.0, outcomes.load(each.place)))
            case "pinned":
                order = {executor: rank for rank, executor in enumerate(self.pinned)}
                return min(drawn, key=lambda each: (order[each.executor], outcomes.load(each.place)))
            case "balanced":
                return max(drawn[:2], key=self._score(left, now))

    def _score(self, among: Sequence[Candidate], now: float) -> Callable[[Candidate], float]:
        """Success over price, wait and load, each relative to the average of those it is compared with.

        Two are drawn and the better one taken: herds form where everybody takes the best (Mitzenmacher, The Power of Two
        Choices in Randomized Load Balancing).
        """
        outcomes = self.outcomes
        price = sum(each.price for each in among) / len(among) or 1.0
        seen = [known for each in among if (known := outcomes.first_token(each.place)) is not None]
        usual = (sum(seen) / len(seen) if seen else 0.0) or 1.0

        def score(each: Candidate) -> float:
            known = outcomes.first_token(each.place)
            wait = 1.0 if known is None else known / usual
            load = outcomes.load(each.place) / each.terms.parallel
            return outcomes.success(each.place, now) / ((1 + each.price / price) * (1 + wait) * (1 + load))

        return score


def _count(number: int) -> str:
    return "The only executor" if number == 1 else f"All {number} executors"
