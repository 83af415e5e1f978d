"""All executors' evidence and what others say of them, in bounded memory. It reads no clock and touches no disk.

Times are seconds on any steady clock.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from functools import reduce
from typing import Final, NamedTuple

from lloom.core.identity import NodeId
from lloom.core.reputation.evidence import Evidence, Kind, merged, seen
from lloom.core.reputation.score import UNKNOWN, Score, judge

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
        self.models: OrderedDict[str, Evidence] = OrderedDict()
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
        self._add(executor, model, seen(kind, now, right=right))

    def waited(self, executor: NodeId, model: str, seconds: float, now: float) -> None:
        """The first content came after `seconds`."""
        self._add(executor, model, Evidence(now, waited=max(0.0, seconds), waits=1.0))

    def wrote(self, executor: NodeId, model: str, tokens: float, seconds: float, now: float) -> None:
        """`tokens` came within `seconds`."""
        self._add(executor, model, Evidence(now, tokens=tokens, seconds=seconds))

    def said(self, executor: NodeId, share: float) -> None:
        """What others say of `executor`, from 0 (never ask it) to 1."""
        known = self._executor(executor)
        known.said, known.score = min(1.0, max(0.0, share)), None

    # --- what follows

    def score(self, executor: NodeId, now: float) -> Score:
        """What is held of `executor`; at most a second old."""
        known = self._executors.get(executor)
        if known is None:
            return _STRANGER
        if known.score is None or not 0 <= now - known.at < _FRESH:
            known.score, known.at = judge(self.evidence(executor, now), known.said), now
        return known.score

    def evidence(self, executor: NodeId, now: float) -> Evidence:
        """All that was observed of `executor`, whatever the model: who lies with one may with all."""
        known = self._executors.get(executor)
        models = known.models.values() if known is not None else ()
        return reduce(lambda one, other: merged(one, other, self._memory), models, Evidence(now))

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
            self._add(row.executor, row.model, row.known)
            if not fresh:
                self._changed.pop((row.executor, row.model), None)

    def _row(self, executor: NodeId, model: str) -> Row | None:
        """None if it was forgotten meanwhile."""
        known = self._executors.get(executor)
        found = known.models.get(model) if known is not None else None
        return None if found is None else Row(executor, model, found)

    def _add(self, executor: NodeId, model: str, more: Evidence) -> None:
        known = self._executor(executor)
        before = known.models.pop(model, None)
        known.models[model] = more if before is None else merged(before, more, self._memory)
        if len(known.models) > MAX_MODELS:
            known.models.popitem(last=False)
        known.score = None
        self._changed[executor, model] = None

    def _executor(self, executor: NodeId) -> _Executor:
        known = self._executors.setdefault(executor, _Executor())
        self._executors.move_to_end(executor)
        if len(self._executors) > MAX_EXECUTORS:
            self._executors.popitem(last=False)
        return known


_STRANGER: Final = Score()


def _standing(score: Score) -> str:
    if score.doubted:
        return "doubted"
    return "good" if score.value > UNKNOWN else "poor" if score.value < UNKNOWN else "unknown"
