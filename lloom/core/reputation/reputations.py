"""All executors' evidence and what others say of them, in bounded memory. It reads no clock and touches no disk.

Times are seconds on any steady clock.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import Final, NamedTuple

from lloom.core.identity import NodeId
from lloom.core.reputation.evidence import Evidence, Kind
from lloom.core.reputation.score import UNKNOWN, Score, judge
from lloom.core.reputation.tally import Tally

MAX_EXECUTORS: Final = 4096
"""The one of which nothing was heard for longest makes room."""
MAX_MODELS: Final = 64
"""Of one executor that are told apart; the one unused for longest makes room."""
_FRESH: Final = 1.0
"""Seconds for which a score is good: it is asked for several times in the choice of an executor."""

STANDINGS: Final = ("good", "unknown", "poor", "doubted")


class Row(NamedTuple):
    """What is kept of one model at one executor."""

    executor: NodeId
    model: str
    known: Evidence


class _Executor:
    """`models` by id, the latest at the end."""

    __slots__ = ("at", "models", "said", "score")

    def __init__(self) -> None:
        self.models: OrderedDict[str, Tally] = OrderedDict()
        self.said = UNKNOWN
        self.score: Score | None = None
        self.at = 0.0


class Reputations:
    """Evidence fades by half in `memory` seconds."""

    def __init__(self, memory: float) -> None:
        self.noted: Counter[tuple[Kind, bool]] = Counter()
        """Observations since the start, and whether all was right."""
        self._memory = memory
        self._executors: OrderedDict[NodeId, _Executor] = OrderedDict()
        self._changed: dict[tuple[NodeId, str], None] = {}

    # --- what is observed

    def note(self, executor: NodeId, model: str, kind: Kind, now: float, *, right: bool) -> None:
        """Something was as it should be, or not."""
        self.noted[kind, right] += 1
        self._tally(executor, model, now).note(kind, now, right=right)
        if not right:
            self._executors[executor].score = None

    def answered(self, executor: NodeId, model: str, seconds: float, now: float) -> None:
        """The first content came after `seconds`, so the quote was kept."""
        self.noted[Kind.PRICE, True] += 1
        tally = self._tally(executor, model, now)
        tally.waited(seconds, now)
        tally.note(Kind.PRICE, now, right=True)

    def succeeded(self, executor: NodeId, model: str, tokens: float, seconds: float, now: float) -> None:
        """An answer came to its end; `tokens` of it within `seconds`, none where that is not known."""
        self.noted[Kind.ANSWER, True] += 1
        tally = self._tally(executor, model, now)
        tally.note(Kind.ANSWER, now, right=True)
        if tokens:
            tally.wrote(tokens, seconds, now)

    def said(self, executor: NodeId, share: float) -> None:
        """What others say of `executor`, from 0 (never ask it) to 1."""
        known = self._executor(executor)
        known.said, known.score = min(1.0, max(0.0, share)), None

    # --- what follows

    def score(self, executor: NodeId, now: float) -> Score:
        """What is held of `executor`; what went well may be a second old."""
        known = self._executors.get(executor)
        if known is None:
            return _STRANGER
        if known.score is None or not 0 <= now - known.at < _FRESH:
            known.score, known.at = judge(self.evidence(executor, now), known.said), now
        return known.score

    def evidence(self, executor: NodeId, now: float) -> Evidence:
        """All that was observed of `executor`, whatever the model: who lies with one may with all."""
        known = self._executors.get(executor)
        total = Tally(now, self._memory)
        for each in known.models.values() if known is not None else ():
            total.add(each.known)
        return total.known

    def pace(self, executor: NodeId, model: str) -> tuple[float | None, float | None]:
        """Mean seconds to the first content, and tokens a second; None: never seen."""
        known = self._executors.get(executor)
        found = known.models.get(model) if known is not None else None
        return (None, None) if found is None else (found.first_token, found.rate)

    def standings(self, now: float) -> Counter[str]:
        """How many executors stand how."""
        return Counter(_standing(self.score(executor, now)) for executor in self._executors)

    # --- what is kept

    def changed(self) -> list[Row]:
        """What was observed since the last call, as totals."""
        rows = [row for key in self._changed if (row := self._row(*key)) is not None]
        self._changed.clear()
        return rows

    def keep_again(self, rows: Iterable[Row]) -> None:
        """These could not be kept: they count as changed."""
        self._changed.update(dict.fromkeys((row.executor, row.model) for row in rows))

    def recall(self, rows: Iterable[Row]) -> None:
        """What was kept by an earlier run; what was observed since then is added."""
        for row in rows:
            fresh = row.executor in self._executors and row.model in self._executors[row.executor].models
            self._tally(row.executor, row.model, row.known.at).add(row.known)
            self._executors[row.executor].score = None
            if not fresh:
                self._changed.pop((row.executor, row.model), None)

    def _row(self, executor: NodeId, model: str) -> Row | None:
        """None if it was forgotten meanwhile."""
        known = self._executors.get(executor)
        found = known.models.get(model) if known is not None else None
        return None if found is None else Row(executor, model, found.known)

    def _tally(self, executor: NodeId, model: str, now: float) -> Tally:
        """For a change."""
        models = self._executor(executor).models
        found = models.get(model)
        if found is None:
            found = models[model] = Tally(now, self._memory)
            if len(models) > MAX_MODELS:
                models.popitem(last=False)
        else:
            models.move_to_end(model)
        self._changed[executor, model] = None
        return found

    def _executor(self, executor: NodeId) -> _Executor:
        known = self._executors.get(executor)
        if known is not None:
            self._executors.move_to_end(executor)
            return known
        known = self._executors[executor] = _Executor()
        if len(self._executors) > MAX_EXECUTORS:
            self._executors.popitem(last=False)
        return known


_STRANGER: Final = Score()


def _standing(score: Score) -> str:
    if score.doubted:
        return "doubted"
    return "good" if score.value > UNKNOWN else "poor" if score.value < UNKNOWN else "unknown"
