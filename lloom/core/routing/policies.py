"""Who of those that are well gets a request. It draws from the `rng` it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from lloom.core.routing.affinity import preferred
from lloom.core.routing.candidate import Candidate
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

    among: Sequence[Candidate]
    scale: Scale
    rules: Rules
    key: bytes
    exploring: bool

    def score(self, each: Candidate) -> float:
        """From 0 to 1."""
        return self.scale.score(each, hopeful=self.exploring)

    def newcomers(self) -> list[Candidate]:
        """Of whom little is known."""
        outcomes, now = self.scale.outcomes, self.scale.now
        return [each for each in self.among if outcomes.evidence(each.place, now) < TRIAL]


def balanced(contest: Contest, rng: Random) -> Candidate:
    """The better one of two (of equals, either), or whoever has the prompt's beginning in its cache if it is not much worse.

    Herds form where everybody takes the best (Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001).
    """
    better = _better(_two(contest, rng), contest)
    if not contest.key or not contest.rules.affinity:
        return better
    outcomes = contest.scale.outcomes
    cached = preferred(contest.key, contest.among, lambda each: outcomes.load(each.place))
    if contest.score(cached) < (1 - contest.rules.affinity) * contest.score(better):
        return better
    return cached


def cheapest(contest: Contest, rng: Random) -> Candidate:
    """The lowest price; among several, as balanced."""
    return balanced(_least(contest, lambda each: each.price), rng)


def fastest(contest: Contest, rng: Random) -> Candidate:
    """The least time for an answer of the expected length, failures included; whoever was never seen is taken to be fast."""
    scale, exploring = contest.scale, contest.exploring

    def seconds(each: Candidate) -> float:
        return (scale.seconds(each) or 0.0) / max(scale.success(each, hopeful=exploring), _NEVER)

    return balanced(_least(contest, seconds), rng)


def pinned(contest: Contest, rng: Random) -> Candidate:
    """The first of those that are named; among its workers, as balanced."""
    return balanced(_least(contest, lambda each: contest.rules.pinned.index(each.executor)), rng)


POLICIES: Final[Mapping[Policy, Callable[[Contest, Random], Candidate]]] = MappingProxyType(
    {"balanced": balanced, "cheapest": cheapest, "fastest": fastest, "pinned": pinned}
)


def _two(contest: Contest, rng: Random) -> list[Candidate]:
    drawn = rng.sample(contest.among, min(2, len(contest.among)))
    newcomers = contest.newcomers() if contest.exploring else []
    return [rng.choice(newcomers), *drawn[:1]] if newcomers and drawn[0] not in newcomers else drawn


def _better(drawn: Sequence[Candidate], contest: Contest) -> Candidate:
    """The first one, unless another is better than chance explains: else who is last of many equals would never be asked."""
    scores = [contest.score(each) for each in drawn]
    best = max(scores)
    return next(each for each, score in zip(drawn, scores, strict=True) if score >= _EQUAL * best)


def _least(contest: Contest, value: Callable[[Candidate], float]) -> Contest:
    """The contest of those with the least `value`."""
    values = [value(each) for each in contest.among]
    least = min(values)
    return replace(contest, among=[each for each, one in zip(contest.among, values, strict=True) if one == least])
