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
from lloom.core.routing.candidate import Candidate, Entrant
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
    entrants = selection.entrants(candidates, now)
    fit = [each for each in entrants if _misfit(selection, each.candidate, request) is None]
    measure = selection.scale(fit or entrants, request.max_output)
    cached = preferred(request.affinity, fit) if request.affinity and fit else None

    def verdict(entrant: Entrant) -> Verdict:
        each, standing, outcomes = entrant.candidate, entrant.standing, selection.outcomes
        word, reason = _word(selection, entrant, request)
        return Verdict(
            executor=checksum(each.executor),
            endpoint=str(each.endpoint),
            model=each.terms.id,
            verdict=word,
            reason=reason,
            score=round(measure.score(entrant), 4),
            input_price=each.quote.input_price,
            output_price=each.quote.output_price,
            first_token_p50=outcomes.wait(each.place, 0.5, now),
            first_token_p95=outcomes.wait(each.place, 0.95, now),
            tokens_per_second=standing.rate,
            success=round(standing.success, 4),
            reputation=round(standing.held.value, 4),
            honesty=round(standing.held.honesty, 4),
            doubts=standing.held.reasons,
            receipts=round(outcomes.reputations.evidence(each.executor, now).right[Kind.RECEIPT], 2),
            outcomes=round(standing.evidence, 2),
            load=standing.load,
            parallel=each.terms.parallel,
            breaker=standing.state,
            cached=entrant is cached,
        )

    return sorted(map(verdict, entrants), key=lambda each: (_ORDER[each.verdict], -each.score))


def _misfit(selection: Selection, each: Candidate, request: ApiRequest) -> str | None:
    rules = selection.rules
    if rules.policy == "pinned" and each.executor not in rules.pinned:
        return "that routing.executors does not name"
    found = misfit(each, request, rules.limits)
    return None if found is None else found.text


def _word(selection: Selection, entrant: Entrant, request: ApiRequest) -> tuple[Word, str]:
    standing = entrant.standing
    problem = _misfit(selection, entrant.candidate, request)
    if problem is not None:
        return "left out", f"one {problem}"
    stand = selection.readiness(entrant, ())
    if isinstance(stand, Later):
        return "not now", f"one {stand.text}"
    if stand is Tier.COOLING:
        return "after others", f"failed lately, rests for {standing.rests:.0f} s"
    if stand is Tier.DOUBTED:
        return "after others", "was not honest to us"
    if stand is not Tier.WELL:
        return "after others", "was silent, and may be back"
    if standing.hope <= UNKNOWN:
        return "newcomer", "nothing good is known of it yet"
    return "well", "" if standing.evidence >= TRIAL else "known by few answers"
