"""What became of past requests, place by place: success, speed, load, breaker. It never reads a clock."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from lloom.core.identity import NodeId
from lloom.core.offer import Endpoint
from lloom.core.reputation.evidence import Kind
from lloom.core.reputation.reputations import Reputations
from lloom.core.routing.breaker import Breaker, Event, State
from lloom.core.routing.estimates import Latest, Ratio, faded
from lloom.core.routing.standing import Standing

Place = tuple[NodeId, Endpoint, str]
"""An executor's worker and a model: where one thing fails, the others may work."""

TRIAL: Final = 16.0
"""Outcomes (faded ones count less) after which a place is no newcomer any more."""
TYPICAL_LENGTH: Final = 256.0
"""Output tokens that are expected of a model of which nothing is known."""

MAX_PLACES: Final = 4096
_NEWCOMERS: Final = 16
"""First requests to newcomers that tell what the next ones are worth."""
_OLD: Final = 4.0
"""Times `memory`: older waits are in no quantile."""
_MIN_TOKENS: Final = 8
"""Fewer tell nothing of a rate: they come in one piece."""


class Failure(Enum):
    """How an executor failed: what that says of trying it again."""

    REFUSED = "it answered, and is only passed over for others"
    SILENT = "it did not answer or was lost; it may be back"
    LIED = "it broke the protocol; it is not asked before its rest is over"


@dataclass(slots=True)
class _Record:
    at: float
    breaker: Breaker
    success: Ratio = field(default_factory=Ratio)
    """Good ones, of all."""
    wait: Ratio = field(default_factory=Ratio)
    """Seconds to the first content."""
    rate: Ratio = field(default_factory=Ratio)
    """Output tokens a second, from the first content on."""
    waits: Latest = field(default_factory=Latest)


class Outcomes:
    """Estimates that fade: an outcome weighs half after `memory` seconds. `rest`: seconds after a first failure.

    `reputations` hears of all that happens, and stands for experience where a place has none; None: it remembers no longer.
    """

    def __init__(self, memory: float, rest: float, reputations: Reputations | None = None) -> None:
        self.reputations = Reputations(memory) if reputations is None else reputations
        self._memory = memory
        self._rest = rest
        self._records: OrderedDict[Place, _Record] = OrderedDict()
        self._lengths: OrderedDict[str, Ratio] = OrderedDict()
        self._newcomers = Ratio()
        self._newcomers_at = 0.0
        self._open: Counter[Place] = Counter()
        self._on_change: Callable[[str], None] = lambda _model: None
        self.attempts = 0
        """Requests that were sent to some place so far."""
        self.failures: Counter[Failure] = Counter()
        """Of these."""
        self.silent: set[Place] = set()
        """Places that did not answer, until they do."""

    def on_change(self, heard: Callable[[str], None]) -> None:
        """`heard` is told of the model for which a place may be free or well again."""
        self._on_change = heard

    # --- what happens

    def began(self, place: Place) -> None:
        """A request is on its way there; `ended` must follow."""
        self._open[place] += 1
        self.attempts += 1

    def ended(self, place: Place) -> None:
        """It is over, whatever way."""
        left = self._open[place] - 1
        if left:
            self._open[place] = left
        else:
            del self._open[place]
        self._on_change(place[2])

    def answered(self, place: Place, seconds: float, now: float) -> None:
        """The first content came after `seconds`, for what was quoted."""
        record = self._changed(place, now)
        record.wait.add(seconds, 1)
        record.waits.add(seconds, now)
        record.breaker.hear(Event.REACHED, now)
        self.silent.discard(place)
        self.reputations.answered(place[0], place[2], seconds, now)

    def succeeded(self, place: Place, now: float, tokens: int, seconds: float) -> None:
        """An answer of `tokens` came to its end, the first content `seconds` before the last."""
        record = self._tried(place, now, good=True)
        record.breaker.hear(Event.ANSWERED, now)
        timed = tokens - 1 if tokens >= _MIN_TOKENS and seconds > 0 else 0
        if timed:
            record.rate.add(timed, seconds)
        self.reputations.succeeded(place[0], place[2], timed, seconds, now)
        length = self._lengths.get(place[2])
        if length is None:
            length = self._lengths[place[2]] = Ratio()
        self._lengths.move_to_end(place[2])
        if len(self._lengths) > MAX_PLACES:
            self._lengths.popitem(last=False)
        length.fade(1 - 1 / 64)  # the latest ones; how long ago they were does not matter
        length.add(tokens, 1)

    def mispriced(self, place: Place, now: float) -> None:
        """The executor refused a quote of its own that still held."""
        self.reputations.note(place[0], place[2], Kind.PRICE, now, right=False)

    def counted(self, place: Place, now: float, *, overstated: bool) -> None:
        """The tokens reported of an answer were compared with our own count."""
        self.reputations.note(place[0], place[2], Kind.COUNT, now, right=not overstated)

    def failed(self, place: Place, now: float, how: Failure, retry_after: float | None) -> None:
        """No answer, or a broken one. It rests for `retry_after` seconds, or the longer the more often it failed."""
        self.failures[how] += 1
        refused = Event.REFUSED if retry_after is None else Event.PUT_OFF
        event = {Failure.REFUSED: refused, Failure.SILENT: Event.SILENT, Failure.LIED: Event.LIED}[how]
        self._tried(place, now, good=False).breaker.hear(event, now, retry_after)
        if event is Event.SILENT:
            self.silent.add(place)
        if event is not Event.PUT_OFF:  # to have enough to do is no shame
            self.reputations.note(place[0], place[2], Kind.ANSWER, now, right=False)

    def recovered(self, place: Place, now: float) -> None:
        """It can be reached again."""
        if place in self._records:
            self._records[place].breaker.hear(Event.REACHED, now)
            self.silent.discard(place)
            self._on_change(place[2])

    # --- what is known

    def load(self, place: Place) -> int:
        """Requests that are on their way there."""
        return self._open.get(place, 0)

    def state(self, place: Place, now: float) -> State:
        """Of its breaker."""
        record = self._records.get(place)
        return State.CLOSED if record is None else record.breaker.state(now)

    def states(self, now: float) -> Counter[State]:
        """How many places are in which state."""
        return Counter(record.breaker.state(now) for record in self._records.values())

    def rests(self, place: Place, now: float) -> float:
        """Seconds for which the place should be passed over; 0 if it is well."""
        record = self._records.get(place)
        return 0.0 if record is None else record.breaker.rests(now)

    def reputation(self, executor: NodeId, now: float) -> float:
        """What is held of it by evidence of its own and others' words, from 0 to 1 (`core/reputation`)."""
        return self.reputations.score(executor, now).value

    def standing(self, place: Place, now: float) -> Standing:
        """How the place stands."""
        record, held = self._records.get(place), self.reputations.score(place[0], now)
        if record is None:
            pace = self.reputations.pace(place[0], place[2])
            return Standing(State.CLOSED, 0.0, self.load(place), 0.0, 0.0, held, *pace)
        state, success, fade = record.breaker.state(now), record.success, faded(now - record.at, self._memory)
        first_token, rate = record.wait.value, record.rate.value
        if first_token is None or rate is None:
            before = self.reputations.pace(place[0], place[2])
            first_token = before[0] if first_token is None else first_token
            rate = before[1] if rate is None else rate
        return Standing(
            state,
            0.0 if state is State.CLOSED else record.breaker.rests(now),
            self.load(place),
            success.above * fade,
            (success.below - success.above) * fade,
            held,
            first_token,
            rate,
        )

    def wait(self, place: Place, share: float, now: float, least: int = 1) -> float | None:
        """Seconds within which the first content came in `share` of the latest answers; None if there were fewer than `least`."""
        record = self._records.get(place)
        return None if record is None else record.waits.quantile(share, now - _OLD * self._memory, least)

    def length(self, model: str) -> float:
        """Output tokens of a usual answer."""
        known = self._lengths.get(model)
        return (known.value if known else None) or TYPICAL_LENGTH

    def newcomers(self, now: float) -> float:
        """The share of first requests to newcomers that went well lately; a half where none was made."""
        fade = faded(now - self._newcomers_at, self._memory)
        good, count = self._newcomers.above * fade, self._newcomers.below * fade
        return (good + 2) / (count + 4)

    def _tried(self, place: Place, now: float, *, good: bool) -> _Record:
        record = self._changed(place, now)
        if record.success.below < TRIAL:
            self._newcomers.fade(faded(now - self._newcomers_at, self._memory) * (1 - 1 / _NEWCOMERS))
            self._newcomers_at = now
            self._newcomers.add(good, 1)
        record.success.add(good, 1)
        return record

    def _changed(self, place: Place, now: float) -> _Record:
        """The record of `place`, brought to `now`, for a change; the one unused for longest makes room."""
        record = self._records.get(place)
        if record is None:
            record = self._records[place] = _Record(now, Breaker(self._rest))
        self._records.move_to_end(place)
        if len(self._records) > MAX_PLACES:
            forgotten, _ = self._records.popitem(last=False)
            self.silent.discard(forgotten)
        if now != record.at:
            fade = faded(now - record.at, self._memory)
            record.at = now
            for estimate in (record.success, record.wait, record.rate):
                estimate.fade(fade)
        return record
