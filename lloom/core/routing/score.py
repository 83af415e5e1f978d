"""How good each candidate is, in numbers, compared with the others. It chooses nobody."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from lloom.core.routing.candidate import Candidate
from lloom.core.routing.outcomes import Outcomes


class Scale(Struct, frozen=True):
    """What is usual among those who are compared. `length`: output tokens that are expected; `now`: as in `outcomes`;
    `reputation`: the share of the score that is lost without any.
    """

    outcomes: Outcomes
    length: float
    now: float
    price: float
    first_token: float | None
    rate: float | None
    reputation: float

    def seconds(self, each: Candidate) -> float | None:
        """The whole answer, as far as is known; None of whom no first token was seen."""
        wait = self.outcomes.first_token(each.place)
        return None if wait is None else wait + self._writing(self.outcomes.rate(each.place) or self.rate)

    def success(self, each: Candidate, *, hopeful: bool) -> float:
        """The share of answers that will come to their end, at least.

        `hopeful`: at most (optimism in the face of uncertainty), else nobody would find out how good newcomers are.
        """
        outcomes = self.outcomes
        return outcomes.possible(each.place, self.now) if hopeful else outcomes.success(each.place, self.now)

    def score(self, each: Candidate, *, hopeful: bool = False) -> float:
        """From 0 to 1: success and reputation over price, time and load, each relative to what is usual."""
        regard = 1 - self.reputation * (1 - self.outcomes.regard(each.executor, self.now))
        usual = (self.first_token or 0.0) + self._writing(self.rate)
        seconds = self.seconds(each)
        time = 1.0 if seconds is None or not usual else seconds / usual
        price = each.price / self.price if self.price else 0.0
        load = self.outcomes.load(each.place) / each.terms.parallel
        return self.success(each, hopeful=hopeful) * regard / ((1 + price) * (1 + time) * (1 + load))

    def _writing(self, rate: float | None) -> float:
        return self.length / rate if rate else 0.0


def scale(
    among: Sequence[Candidate], outcomes: Outcomes, wanted: int | None, now: float, *, reputation: float
) -> Scale:
    """The scale for a request of at most `wanted` output tokens (None: any number) among those who could take it."""
    usual = outcomes.length(among[0].terms.id) if among else 0.0
    return Scale(
        outcomes,
        length=usual if wanted is None else min(usual, wanted),
        now=now,
        price=_mean(float(each.price) for each in among) or 0.0,
        first_token=_mean(outcomes.first_token(each.place) for each in among),
        rate=_mean(outcomes.rate(each.place) for each in among),
        reputation=reputation,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
