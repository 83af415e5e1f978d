"""Evidence as it grows: its sums, changed in place, for several things are noted of every answer. It reads no clock.

A sum is worth what its observations are worth at its own time, so adding is commutative and associative (but for rounding):
evidence that is read from the disk late, or heard in another order, gives the same. Times are seconds on any one clock.

New observations weigh more, instead of all old ones less (Cormode, Shkapenyuk, Srivastava, Xu, Forward Decay, 2009).
"""

from __future__ import annotations

from math import exp2

from lloom.core.reputation.evidence import Evidence, Kind
from lloom.core.routing.estimates import faded


class Tally:
    """What was seen of one model at one executor; `memory` seconds halve a weight."""

    __slots__ = ("_at", "_memory", "_right", "_seconds", "_since", "_tokens", "_waited", "_waits", "_wrong")

    def __init__(self, at: float, memory: float) -> None:
        self._at = self._since = at
        """When the latest was seen; and when an observation weighs one."""
        self._memory = memory
        self._right = [0.0] * len(Kind)
        self._wrong = [0.0] * len(Kind)
        self._waited = self._waits = self._tokens = self._seconds = 0.0

    @property
    def known(self) -> Evidence:
        """All of it, as it weighs at the time of the latest."""
        self._count_from(self._at)
        sums = tuple(self._right), tuple(self._wrong)
        return Evidence(self._at, *sums, self._waited, self._waits, self._tokens, self._seconds)

    @property
    def first_token(self) -> float | None:
        """Mean seconds to the first content; None if none was seen."""
        return self._waited / self._waits if self._waits else None

    @property
    def rate(self) -> float | None:
        """Tokens a second; None if none were seen."""
        return self._tokens / self._seconds if self._seconds else None

    def note(self, kind: Kind, now: float, *, right: bool) -> None:
        """Something was as it should be, or not."""
        weight = self._weight(now)
        (self._right if right else self._wrong)[kind] += weight

    def waited(self, seconds: float, now: float) -> None:
        """The first content came after `seconds`."""
        weight = self._weight(now)
        self._waited += weight * max(0.0, seconds)
        self._waits += weight

    def wrote(self, tokens: float, seconds: float, now: float) -> None:
        """`tokens` came within `seconds`."""
        weight = self._weight(now)
        self._tokens += weight * tokens
        self._seconds += weight * seconds

    def add(self, more: Evidence) -> None:
        """What was seen before, or elsewhere."""
        weight = self._weight(more.at)
        self._right = [one + weight * other for one, other in zip(self._right, more.right, strict=True)]
        self._wrong = [one + weight * other for one, other in zip(self._wrong, more.wrong, strict=True)]
        self._waited += weight * more.waited
        self._waits += weight * more.waits
        self._tokens += weight * more.tokens
        self._seconds += weight * more.seconds

    def _weight(self, now: float) -> float:
        """What an observation of `now` weighs among the sums."""
        if now > self._at:
            self._at = now
        if now - self._since > self._memory:  # weights must not grow without end
            self._count_from(now)
        return exp2((now - self._since) / self._memory)

    def _count_from(self, since: float) -> None:
        """From now on an observation of `since`, which is no earlier than before, weighs one."""
        fade = faded(since - self._since, self._memory)
        self._since = since
        self._right = [fade * each for each in self._right]
        self._wrong = [fade * each for each in self._wrong]
        self._waited *= fade
        self._waits *= fade
        self._tokens *= fade
        self._seconds *= fade
