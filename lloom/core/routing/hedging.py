"""When a request goes to a second executor as well, because the first one is unusually late. It sends nothing itself.

Dean and Barroso, The Tail at Scale, 2013: a few requests more take most of the tail away. The share is capped by a bucket, for
who is slow because it has too much to do must not get more.
"""

from __future__ import annotations

from typing import Final

from lloom.core.routing.outcomes import Outcomes, Place

_LATE: Final = 0.95
"""Share of its answers that had begun by then."""
_LEAST: Final = 20
"""Answers of a place before its tail is known."""
_BURST: Final = 10.0
"""Hedges that may follow each other when there were none for long."""


class Hedging:
    """`share` of the requests may be hedged. For each request `asked` once; then `delay`, and `take` when that has passed."""

    def __init__(self, share: float, outcomes: Outcomes) -> None:
        self._share = share
        self._outcomes = outcomes
        self._saved = 0.0
        self.taken = 0
        """Hedges so far."""

    def asked(self) -> None:
        """A caller's request came: it pays in its share."""
        self._saved = min(_BURST, self._saved + self._share)

    def delay(self, place: Place, now: float) -> float | None:
        """Seconds after which a request sent to `place` at `now` may go elsewhere too: within them nearly all answers begin.

        None if this one is not hedged: its place is not known well enough, or the share is used up. Nothing is taken yet.
        """
        if self._saved < 1:
            return None
        return self._outcomes.wait(place, _LATE, now, _LEAST)

    def take(self) -> bool:
        """The delay has passed without content: whether to hedge now. Others may have taken the share meanwhile."""
        if self._saved < 1:
            return False
        self._saved -= 1
        self.taken += 1
        return True
