"""Whether a candidate can be asked now, or comes after others, or only later. It compares nobody's quality."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum

from lloom.core.identity import NodeId
from lloom.core.routing.breaker import State
from lloom.core.routing.candidate import Entrant


class Tier(IntEnum):
    """Who is asked before whom: a candidate of a later tier only where none of the ones before is left."""

    WELL = 0
    SHAKEN = 1
    """Another worker of it just failed this request."""
    DOUBTED = 2
    """It was dishonest to us, more often than not."""
    COOLING = 3
    """It failed lately."""
    BACK = 4
    """It was silent, and nobody knows yet whether it is back."""


@dataclass(frozen=True, slots=True)
class Later:
    """Not now. `seconds`: when to ask again; None: when a request that is under way has ended."""

    text: str
    seconds: float | None
    busy: bool
    """Whether it is well, and only has enough to do."""
    hopeless: bool = True
    """Whether it is not asked before even where there is nobody else."""


def readiness(entrant: Entrant, failed: Collection[NodeId], *, heedless: bool = False) -> Tier | Later:
    """Whether it can be asked; `failed`: the executors that failed this request; `heedless` of reputations."""
    candidate, standing = entrant.candidate, entrant.standing
    state, load, rests = standing.state, standing.load, standing.rests
    if state is State.CLOSED and load < candidate.terms.parallel:  # as nearly always
        if not heedless and standing.held.doubted:
            return Tier.DOUBTED
        return Tier.SHAKEN if candidate.executor in failed else Tier.WELL
    if state is State.BARRED:
        return Later(f"that broke the protocol, to rest for {rests:.0f} s", rests, busy=False)
    if state is State.BUSY:
        return Later(f"to be asked again in {rests:.0f} s", rests, busy=True)
    if state is State.OPEN:
        return Later(f"that did not answer, to rest for {rests:.0f} s", rests, busy=False, hopeless=load > 0)
    if load >= candidate.terms.parallel:
        return Later(f"at its limit of {candidate.terms.parallel} requests", None, busy=True)
    if state is State.HALF_OPEN:
        return Later("that did not answer and is being tried again", None, busy=False) if load else Tier.BACK
    return Tier.COOLING
