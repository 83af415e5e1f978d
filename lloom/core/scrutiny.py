"""Which question an executor gets next, and what its answers have come to tell of it. It asks nobody and reads no clock.

In each period all executors of a model get the same question, so that their answers can be compared (`core/panel`), and none gets
it twice: who is asked again gets one of its own. Times are seconds on any steady clock.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from lloom.core.honesty import Conduct, Record
from lloom.core.identity import NodeId
from lloom.core.odds import LIKELIEST
from lloom.core.panel import FASTEST, WORDS, Panel, Said
from lloom.core.questions import Question, question

PADDING: Final = 16
"""An executor may count so many tokens more than we do, beside a factor of two: tokenizers differ, frauds do not stop there."""


@dataclass(slots=True)
class _Round:
    """One question to all executors of a model."""

    question: Question
    until: float
    asked: set[NodeId] = field(default_factory=set)
    panel: Panel = field(default_factory=Panel)


class Scrutiny:
    """`period`: seconds after which a model gets another question; `most`: tokens of an answer; `logprobs`: the share of
    questions that ask for them, of all executors of a model or of none.
    """

    def __init__(self, rng: Random, period: float, most: int, logprobs: float) -> None:
        self._rng = rng
        self._period = period
        self._most = most
        self._logprobs = logprobs
        self._rounds: dict[str, _Round] = {}
        self._records: dict[NodeId, dict[str, Record]] = {}

    def ask(self, executor: NodeId, model: str, now: float) -> Question:
        """What `executor` is to be asked."""
        known = self._rounds.get(model)
        if known is None or known.until <= now:
            self._conclude(model)
            known = self._rounds[model] = _Round(self._question(), now + self._period)
        if executor in known.asked:
            return self._question()
        known.asked.add(executor)
        return known.question

    def answered(self, executor: NodeId, network: str, model: str, asked: Question, said: Said) -> None:
        """What `executor` said when it was asked that. `network`: where it answers from."""
        record = self._records.setdefault(executor, {}).setdefault(model, Record())
        record.answered(
            asked,
            said.words if len(said.words) >= WORDS else None,
            hurried=said.rate > FASTEST,
            miscounted=said.claimed > 2 * said.tokens + PADDING,
        )
        known = self._rounds.get(model)
        if known is not None and known.question is asked:
            known.panel.add(executor, network, said)

    def conduct(self, executor: NodeId, model: str) -> Conduct:
        """What is known of the model's answers there."""
        record = self._records.get(executor, {}).get(model)
        return record.conduct if record is not None else Conduct()

    def keep(self, executors: Collection[NodeId]) -> None:
        """All others are forgotten."""
        for gone in self._records.keys() - executors:
            del self._records[gone]
        for model, known in list(self._rounds.items()):
            if known.asked.isdisjoint(executors):
                del self._rounds[model]

    def _question(self) -> Question:
        made = question(self._rng, self._most)
        return replace(made, logprobs=LIKELIEST) if self._rng.random() < self._logprobs else made

    def _conclude(self, model: str) -> None:
        """No more answers to the question of that model are awaited."""
        known = self._rounds.get(model)
        for executor, verdict in known.panel.verdicts().items() if known is not None else ():
            record = self._records.get(executor, {}).get(model)
            if record is not None:
                record.judged(differed=verdict.differed, hurried=verdict.hurried, apart=verdict.apart)
