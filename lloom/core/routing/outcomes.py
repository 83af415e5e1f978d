"""What became of past requests, place by place: success, speed, load, rest after failures. It never reads a clock."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from enum import Enum
from typing import Final

from lloom.core.identity import NodeId
from lloom.core.offer import Endpoint

Place = tuple[NodeId, Endpoint, str]
"""An executor's worker and a model: where one thing fails, the others may work."""

_MAX_PLACES: Final = 4096
_MAX_DOUBLINGS: Final = 6


class Failure(Enum):
    """How an executor failed: what that says of trying it again."""

    REFUSED = "it answered, and is only passed over for others"
    SILENT = "it did not answer or was lost; it may be back"
    LIED = "it broke the protocol; it is not asked before its rest is over"


@dataclass(slots=True)
class _Record:
    at: float
    good: float = 0.0
    bad: float = 0.0
    timed: float = 0.0
    first_token: float = 0.0
    failures: int = 0
    until: float = 0.0
    how: Failure = Failure.REFUSED


class Outcomes:
    """Estimates that fade: an outcome weighs half after `memory` seconds. `rest`: seconds after a first failure."""

    def __init__(self, memory: float, rest: float) -> None:
        self._memory = memory
        self._rest = rest
        self._records: OrderedDict[Place, _Record] = OrderedDict()
        self._priors: OrderedDict[NodeId, float] = OrderedDict()
        self._open: Counter[Place] = Counter()

    def expect(self, executor: NodeId, success: float) -> None:
        """Others say what to expect of `executor` (a share, 0 to 1): it counts until there is experience of our own."""
        self._priors[executor] = success
        self._priors.move_to_end(executor)
        if len(self._priors) > _MAX_PLACES:
            self._priors.popitem(last=False)

    def began(self, place: Place) -> None:
        """A request is on its way there; `ended` must follow."""
        self._open[place] += 1

    def ended(self, place: Place) -> None:
        """It is over, whatever way."""
        self._open[place] -= 1
        if not self._open[place]:
            del self._open[place]

    def load(self, place: Place) -> int:
        """Requests that are on their way there."""
        return self._open[place]

    def answered(self, place: Place, seconds: float, now: float) -> None:
        """The first content came after `seconds`."""
        record = self._faded(place, now)
        record.timed += 1
        record.first_token += seconds

    def succeeded(self, place: Place, now: float) -> None:
        """An answer came to its end."""
        record = self._faded(place, now)
        record.good += 1
        record.failures, record.until = 0, now

    def failed(self, place: Place, now: float, how: Failure, retry_after: float | None) -> None:
        """No answer, or a broken one. It rests for `retry_after` seconds, or the longer the more often it failed."""
        record = self._faded(place, now)
        record.bad += 1
        if record.until <= now:  # who fails while it rests was on its way before: many streams, one broken connection
            record.failures += 1
        record.how = how
        doubled = self._rest * 2 ** min(record.failures - 1, _MAX_DOUBLINGS)
        record.until = now + (doubled if retry_after is None else retry_after)

    def rests(self, place: Place, now: float) -> float:
        """Seconds for which the place should be passed over; 0 if it is well."""
        record = self._records.get(place)
        return max(0.0, record.until - now) if record is not None else 0.0

    def is_shut(self, place: Place, now: float) -> bool:
        """Whether the place rests and should not be tried while there are others."""
        record = self._records.get(place)
        return record is not None and record.how is not Failure.REFUSED and record.until > now

    def suspect(self, place: Place, now: float) -> bool:
        """Whether the place did not answer the last time, and its rest is over: somebody should see whether it is back."""
        record = self._records.get(place)
        return record is not None and record.failures > 0 and record.how is Failure.SILENT and record.until <= now

    def recovered(self, place: Place) -> None:
        """It can be reached again."""
        record = self._records.get(place)
        if record is not None:
            record.how = Failure.REFUSED

    def lied(self, place: Place, now: float) -> bool:
        """Whether the place rests because it broke the protocol."""
        record = self._records.get(place)
        return record is not None and record.how is Failure.LIED and record.until > now

    def success(self, place: Place, now: float) -> float:
        """Share of answers that came to their end, from 0 to 1; one lucky answer does not beat a hundred good ones.

        The mean of a beta distribution after a uniform prior (Laplace's rule of succession).
        """
        record = self._records.get(place)
        if record is None:
            return self._priors.get(place[0], 0.5)
        fade = self._fade(record, now)
        good, bad = record.good * fade, record.bad * fade
        return (good + 1) / (good + bad + 2)

    def first_token(self, place: Place) -> float | None:
        """Seconds to the first content as lately observed, None if never."""
        record = self._records.get(place)
        return record.first_token / record.timed if record is not None and record.timed else None

    def _faded(self, place: Place, now: float) -> _Record:
        """The record of `place`, brought to `now`, for a change; the one unused for longest makes room."""
        record = self._records.setdefault(place, _Record(at=now))
        self._records.move_to_end(place)
        if len(self._records) > _MAX_PLACES:
            self._records.popitem(last=False)
        fade = self._fade(record, now)
        record.at = now
        record.good *= fade
        record.bad *= fade
        record.timed *= fade
        record.first_token *= fade
        return record

    def _fade(self, record: _Record, now: float) -> float:
        return float(0.5 ** (max(0.0, now - record.at) / self._memory))
