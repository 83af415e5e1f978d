"""How good each candidate is, in numbers, compared with the others. It chooses nobody."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from lloom.core.routing.candidate import Entrant


class Scale(Struct, frozen=True):
    """What is usual among those who are compared. `length`: output tokens that are expected; `reputation`: the share of the
    score that is lost without any.
    """

    length: float
    price: float
    first_token: float | None
    rate: float | None
    reputation: float

    def seconds(self, each: Entrant) -> float | None:
        """The whole answer, as far as is known; None of whom no first token was seen."""
        wait = each.standing.first_token
        return None if wait is None else wait + self._writing(each.standing.rate or self.rate)

    def success(self, each: Entrant, *, hopeful: bool) -> float:
        """The share of answers that will come to their end, at least.

        `hopeful`: at most (optimism in the face of uncertainty), else nobody would find out how good newcomers are.
        """
        return _success(each, hopeful=hopeful)

    def score(self, each: Entrant, *, hopeful: bool = False) -> float:
        """From 0 to 1: success and reputation over price, time and load, each relative to what is usual."""
        usual = (self.first_token or 0.0) + self._writing(self.rate)
        seconds = self.seconds(each)
        time = 1.0 if seconds is None or not usual else seconds / usual
        price = each.candidate.price / self.price if self.price else 0.0
        return _merit(each, self.reputation, hopeful=hopeful) / ((1 + price) * (1 + time))

    def _writing(self, rate: float | None) -> float:
        return self.length / rate if rate else 0.0


def alone(each: Entrant, *, reputation: float, hopeful: bool) -> float:
    """As `Scale.score` for one that is compared with itself only: its own price and time are the usual ones."""
    return _merit(each, reputation, hopeful=hopeful) / (4 if each.candidate.price else 2)


def scale(among: Sequence[Entrant], usual: float, wanted: int | None, *, reputation: float) -> Scale:
    """The scale for a request of at most `wanted` output tokens (None: any number) among those who could take it.

    `usual`: output tokens of a usual answer.
    """
    return Scale(
        length=usual if wanted is None else min(usual, wanted),
        price=_mean([each.candidate.price for each in among]) or 0.0,
        first_token=_mean([each.standing.first_token for each in among]),
        rate=_mean([each.standing.rate for each in among]),
        reputation=reputation,
    )


def _success(each: Entrant, *, hopeful: bool) -> float:
    return each.standing.possible if hopeful else each.standing.success


def _merit(each: Entrant, reputation: float, *, hopeful: bool) -> float:
    """What does not depend on others: success and reputation over load."""
    standing = each.standing
    regard = 1 - reputation * (1 - standing.held.regard)
    return _success(each, hopeful=hopeful) * regard / (1 + standing.load / each.candidate.terms.parallel)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
