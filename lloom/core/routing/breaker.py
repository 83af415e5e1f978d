"""The circuit breaker of one place, as a table: which event leads from which state to which. It never reads a clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

_MAX_DOUBLINGS: Final = 6
_MAX_REST: Final = 3600.0
"""Seconds. Who asks for a longer rest is tried again anyway."""


class State(StrEnum):
    """What may be asked of a place; the value is its name in figures."""

    CLOSED = "closed"
    """Anything."""
    COOLING = "cooling"
    """It answered that it failed: others come first until its rest is over."""
    BUSY = "busy"
    """It said when to come back, so nothing before that."""
    OPEN = "open"
    """It did not answer: nothing, unless there is nobody else; then one request at a time."""
    HALF_OPEN = "half_open"
    """Its rest after silence is over: one request, or one dial, finds out whether it is back; others come first."""
    BARRED = "barred"
    """It broke the protocol: nothing until its rest is over, whatever else it does."""


class Event(StrEnum):
    """What was heard of a place."""

    ANSWERED = "an answer came to its end"
    REACHED = "a dial or a first content arrived"
    REFUSED = "it answered that it failed"
    PUT_OFF = "it refused and said when to come back"
    SILENT = "it did not answer, or was lost"
    LIED = "it broke the protocol"
    RESTED = "its rest is over"


TABLE: Final[Mapping[State, Mapping[Event, State]]] = MappingProxyType(
    {
        State.CLOSED: {
            Event.ANSWERED: State.CLOSED,
            Event.REACHED: State.CLOSED,
            Event.REFUSED: State.COOLING,
            Event.PUT_OFF: State.BUSY,
            Event.SILENT: State.OPEN,
            Event.LIED: State.BARRED,
            Event.RESTED: State.CLOSED,
        },
        State.COOLING: {
            Event.ANSWERED: State.CLOSED,
            Event.REACHED: State.COOLING,  # others it may still refuse
            Event.REFUSED: State.COOLING,
            Event.PUT_OFF: State.BUSY,
            Event.SILENT: State.OPEN,
            Event.LIED: State.BARRED,
            Event.RESTED: State.CLOSED,
        },
        State.BUSY: {
            Event.ANSWERED: State.CLOSED,  # a place is free again
            Event.REACHED: State.BUSY,
            Event.REFUSED: State.BUSY,
            Event.PUT_OFF: State.BUSY,
            Event.SILENT: State.OPEN,
            Event.LIED: State.BARRED,
            Event.RESTED: State.CLOSED,
        },
        State.OPEN: {
            Event.ANSWERED: State.CLOSED,
            Event.REACHED: State.CLOSED,
            Event.REFUSED: State.COOLING,  # so it is there
            Event.PUT_OFF: State.BUSY,
            Event.SILENT: State.OPEN,
            Event.LIED: State.BARRED,
            Event.RESTED: State.HALF_OPEN,
        },
        State.HALF_OPEN: {
            Event.ANSWERED: State.CLOSED,
            Event.REACHED: State.CLOSED,
            Event.REFUSED: State.COOLING,
            Event.PUT_OFF: State.BUSY,
            Event.SILENT: State.OPEN,
            Event.LIED: State.BARRED,
            Event.RESTED: State.HALF_OPEN,
        },
        State.BARRED: {
            Event.ANSWERED: State.BARRED,
            Event.REACHED: State.BARRED,
            Event.REFUSED: State.BARRED,
            Event.PUT_OFF: State.BARRED,
            Event.SILENT: State.BARRED,
            Event.LIED: State.BARRED,
            Event.RESTED: State.CLOSED,
        },
    }
)

RESTING: Final = frozenset({State.COOLING, State.BUSY, State.OPEN, State.BARRED})
"""States that end by themselves."""
_FAILED: Final = frozenset({Event.REFUSED, Event.PUT_OFF, Event.SILENT, Event.LIED})


@dataclass(slots=True)
class Breaker:
    """The state of one place. Times are seconds on any steady clock; a first failure costs `rest` of them."""

    rest: float
    _state: State = State.CLOSED
    _until: float = 0.0
    _failures: int = 0
    """Since the last answer that came to its end."""

    def state(self, now: float) -> State:
        """The state at `now`."""
        if self._state in RESTING and self._until <= now:
            self._state = TABLE[self._state][Event.RESTED]
        return self._state

    def rests(self, now: float) -> float:
        """Seconds until its rest is over; 0 if it has none."""
        return self._until - now if self.state(now) in RESTING else 0.0

    def hear(self, event: Event, now: float, retry_after: float | None = None) -> None:
        """Something happened. After a failure it rests `retry_after` seconds, or twice as long as after the one before."""
        before = self.state(now)
        self._state = TABLE[before][event]
        if event not in _FAILED:
            if event is Event.ANSWERED:
                self._failures = 0
            return
        if before not in RESTING:  # who fails while it rests was on its way before: many streams, one broken connection
            self._failures += 1
        doubled = self.rest * 2 ** min(max(0, self._failures - 1), _MAX_DOUBLINGS)
        wanted = min(doubled if retry_after is None else max(0.0, retry_after), _MAX_REST)
        if before is State.BARRED and event is not Event.LIED:
            return  # what it does meanwhile changes nothing
        self._until = max(self._until, now + wanted) if self._state is before else now + wanted
