"""Why an executor would be chosen for a request now, or why not, in numbers. It chooses nobody and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from lloom.core.api.request import ApiRequest
from lloom.core.identity import checksum
from lloom.core.reputation.evidence import Kind
from lloom.core.reputation.score import UNKNOWN
from lloom.core.routing.affinity import preferred
from lloom.core.routing.candidate import Candidate
from lloom.core.routing.filters import misfit
from lloom.core.routing.outcomes import TRIAL
from lloom.core.routing.readiness import Later, Tier
from lloom.core.routing.selection import Selection

Word = Literal["well", "newcomer", "after others", "not now", "left out"]
_ORDER: dict[Word, int] = {"well": 0, "newcomer": 1, "after others": 2, "not now": 3, "left out": 4}


class Verdict(Struct, frozen=True):
    """One worker of an executor. Prices as in quotes, times in seconds; None: never seen."""

    executor: str
    endpoint: str
    model: str
    verdict: Word
    reason: str
    score: float
    input_price: int
    output_price: int
    first_token_p50: float | None
    first_token_p95: float | None
    tokens_per_second: float | None
    success: float
    """At least (Wilson)."""
    reputation: float
    """What is held of it, from 0 to 1 (`core/reputation`),"""
    honesty: float
    """of which this factor is what it was caught at,"""
    doubts: tuple[str, ...]
    """namely."""
    receipts: float
    """Of it that were accepted, faded."""
    outcomes: float
    """Of our own, faded."""
    load: int
    parallel: int
    breaker: str
    cached: bool
    """Whether the request's prompt most likely is in its cache."""


def explain(selection: Selection, candidates: Sequence[Candidate], request: ApiRequest, now: float) -> list[Verdict]:
    """A verdict on each, the best first."""
    fit = [each for each in candidates if _misfit(selection, each, request) is None]
    measure = selection.scale(fit or candidates, request, now)
    loads = selection.outcomes.load
    cached = preferred(request.affinity, fit, lambda each: loads(each.place)) if request.affinity and fit else None

    def verdict(each: Candidate) -> Verdict:
        outcomes, place = selection.outcomes, each.place
        held = outcomes.reputations.score(each.executor, now)
        seen = outcomes.reputations.evidence(each.executor, now)
        word, reason = _word(selection, each, request, now)
        return Verdict(
            executor=checksum(each.executor),
            endpoint=str(each.endpoint),
            model=each.terms.id,
            verdict=word,
            reason=reason,
            score=round(measure.score(each), 4),
            input_price=each.quote.input_price,
            output_price=each.quote.output_price,
            first_token_p50=outcomes.wait(place, 0.5, now),
            first_token_p95=outcomes.wait(place, 0.95, now),
            tokens_per_second=outcomes.rate(place),
            success=round(outcomes.success(place, now), 4),
            reputation=round(held.value, 4),
            honesty=round(held.honesty, 4),
            doubts=held.reasons,
            receipts=round(seen.right[Kind.RECEIPT], 2),
            outcomes=round(outcomes.evidence(place, now), 2),
            load=outcomes.load(place),
            parallel=each.terms.parallel,
            breaker=outcomes.state(place, now),
            cached=each is cached,
        )

    return sorted(map(verdict, candidates), key=lambda each: (_ORDER[each.verdict], -each.score))


def _misfit(selection: Selection, each: Candidate, request: ApiRequest) -> str | None:
    rules = selection.rules
    if rules.policy == "pinned" and each.executor not in rules.pinned:
        return "that routing.executors does not name"
    found = misfit(each, request, rules.limits)
    return None if found is None else found.text


def _word(selection: Selection, each: Candidate, request: ApiRequest, now: float) -> tuple[Word, str]:
    outcomes = selection.outcomes
    problem = _misfit(selection, each, request)
    if problem is not None:
        return "left out", f"one {problem}"
    stand = selection.readiness(each, (), now)
    if isinstance(stand, Later):
        return "not now", f"one {stand.text}"
    if stand is Tier.COOLING:
        return "after others", f"failed lately, rests for {outcomes.rests(each.place, now):.0f} s"
    if stand is Tier.DOUBTED:
        return "after others", "was not honest to us"
    if stand is not Tier.WELL:
        return "after others", "was silent, and may be back"
    if outcomes.hope(each.place, now) <= UNKNOWN:
        return "newcomer", "nothing good is known of it yet"
    return "well", "" if outcomes.evidence(each.place, now) >= TRIAL else "known by few answers"
