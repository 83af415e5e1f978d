"""Who of those that are well gets a request. It draws from the `rng` it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from lloom.core.routing.affinity import preferred
from lloom.core.routing.candidate import Entrant
from lloom.core.routing.outcomes import TRIAL
from lloom.core.routing.rules import Rules
from lloom.core.routing.score import Scale
from lloom.core.settings import Policy

_EQUAL: Final = 0.9
"""Scores that differ by less are the same: they are estimates of what changes."""
_NEVER: Final = 1e-3
"""A success below this is as good as none."""


class Contest(Struct, frozen=True):
    """One request and those who could take it, at least one. `key`: what its prompt shares with others, empty: nothing.

    `exploring`: this request is to find out about newcomers.
    """

    among: Sequence[Entrant]
    scale: Scale
    rules: Rules
    key: bytes
    exploring: bool

    def scored(self, each: Entrant) -> Scored:
        """With its score."""
        return Scored(each, self.scale.score(each, hopeful=self.exploring))

    def newcomers(self) -> list[Entrant]:
        """Of whom little is known."""
        return [each for each in self.among if each.standing.evidence < TRIAL]


class Scored(NamedTuple):
    """Somebody in a contest; `score` goes from 0 to 1."""

    entrant: Entrant
    score: float


def balanced(contest: Contest, rng: Random) -> Scored:
    """The better one of two (of equals, either), or whoever has the prompt's beginning in its cache if it is not much worse.

    Herds form where everybody takes the best (Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001).
    """
    better = _better([contest.scored(each) for each in _two(contest, rng)])
    if not contest.key or not contest.rules.affinity:
        return better
    cached = preferred(contest.key, contest.among)
    if cached is better.entrant:
        return better
    other = contest.scored(cached)
    return better if other.score < (1 - contest.rules.affinity) * better.score else other


def cheapest(contest: Contest, rng: Random) -> Scored:
    """The lowest price; among several, as balanced."""
    return balanced(_least(contest, lambda each: each.candidate.price), rng)


def fastest(contest: Contest, rng: Random) -> Scored:
    """The least time for an answer of the expected length, failures included; whoever was never seen is taken to be fast."""
    scale, exploring = contest.scale, contest.exploring

    def seconds(each: Entrant) -> float:
        return (scale.seconds(each) or 0.0) / max(scale.success(each, hopeful=exploring), _NEVER)

    return balanced(_least(contest, seconds), rng)


def pinned(contest: Contest, rng: Random) -> Scored:
    """The first of those that are named; among its workers, as balanced."""
    return balanced(_least(contest, lambda each: contest.rules.pinned.index(each.candidate.executor)), rng)


POLICIES: Final[Mapping[Policy, Callable[[Contest, Random], Scored]]] = MappingProxyType(
    {"balanced": balanced, "cheapest": cheapest, "fastest": fastest, "pinned": pinned}
)


def _two(contest: Contest, rng: Random) -> list[Entrant]:
    drawn = rng.sample(contest.among, min(2, len(contest.among)))
    newcomers = contest.newcomers() if contest.exploring else []
    return [rng.choice(newcomers), *drawn[:1]] if newcomers and drawn[0] not in newcomers else drawn


def _better(drawn: Sequence[Scored]) -> Scored:
    """The first one, unless another is better than chance explains: else who is last of many equals would never be asked."""
    best = max(each.score for each in drawn)
    return next(each for each in drawn if each.score >= _EQUAL * best)


def _least(contest: Contest, value: Callable[[Entrant], float]) -> Contest:
    """The contest of those with the least `value`."""
    values = [value(each) for each in contest.among]
    least = min(values)
    return replace(contest, among=[each for each, one in zip(contest.among, values, strict=True) if one == least])
