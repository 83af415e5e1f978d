"""How one place stands at one moment, in the numbers that choices are made by. It is told them and remembers nothing."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from lloom.core.reputation.score import Score
from lloom.core.routing.breaker import State
from lloom.core.routing.estimates import wilson

_CAUTION: Final = 1.0
"""Standard deviations: five of six true values are above the bound. More would keep newcomers waiting for longer than their fate
is worth."""
_PRIOR: Final = 1.0
"""Outcomes of a place that weigh as much as its executor's reputation."""


class Standing(Struct, frozen=True):
    """Times are seconds. What was never seen of the place is taken from its executor's other workers, or from before."""

    state: State
    """Of its breaker."""
    rests: float
    """For so long it should be passed over; 0 if it is well."""
    load: int
    """Requests that are on their way there."""
    good: float
    bad: float
    """Outcomes of our own, faded."""
    held: Score
    """What is held of the executor."""
    first_token: float | None
    """To the first content as lately observed; None if never."""
    rate: float | None
    """Output tokens a second, likewise."""

    @property
    def evidence(self) -> float:
        """Outcomes of our own, faded."""
        return self.good + self.bad

    @property
    def hope(self) -> float:
        """The share of answers that will come to their end, as likely as not: a mean."""
        return (self.good + _PRIOR * self.held.value) / (self.good + self.bad + _PRIOR)

    @property
    def success(self) -> float:
        """The share that will at least; one lucky answer does not beat a hundred good ones (`wilson`)."""
        expected = self.held.value
        return wilson(self.good + _PRIOR * expected, self.bad + _PRIOR * (1 - expected), _CAUTION)

    @property
    def possible(self) -> float:
        """The share that will at most, by our own outcomes: 1 where there are none."""
        return 1 - wilson(self.bad, self.good, _CAUTION)
